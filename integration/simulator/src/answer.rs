//! Decides what the simulator answers, whatever the dialect.

use hyper::{HeaderMap, Method};
use serde_json::{Map, Value, json};

use crate::behavior::{Behavior, CallSpec, Echo, UsageSpec};
use crate::chunked::Chunked;
use crate::schema;
use crate::seal::seal;

/// What identifies one answer.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// The request's number.
    pub number: u64,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

impl Stamp {
    /// Returns an id of the answer or of a part of it.
    pub fn id(&self, prefix: &str) -> String {
        format!("{prefix}{:010}", self.number)
    }
}

/// The parts of a request on which the answer depends.
#[derive(Debug, Default)]
pub struct Ask {
    /// The model, as the request names it.
    pub model: String,
    /// Whether the answer is to be streamed.
    pub stream: bool,
    /// Whether a stream ends with the token counts.
    pub include_usage: bool,
    /// The number of choices.
    pub choices: usize,
    /// The maximum number of tokens per choice.
    pub max_tokens: Option<usize>,
    /// The first stop sequence.
    pub stop: Option<String>,
    /// The role of the last message; `tool` for a tool's result.
    pub last_role: String,
    /// The text of the last message.
    pub last_text: String,
    /// The end user that the request names.
    pub user: Option<String>,
    /// The service tier that the request asks for.
    pub service_tier: Option<String>,
    /// The tool to call, if the request offers one and does not forbid it.
    pub tool: Option<Tool>,
    /// The format of the answer.
    pub format: Format,
    /// The number of tokens in the prompt.
    pub prompt_tokens: u64,
    /// How the answer reasons, if the request wants that.
    pub reasoning: Option<Wish>,
    /// The request itself, for the dialects whose answers repeat or examine it.
    pub asked: Value,
}

/// What a request wants to see of the reasoning.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Its text.
    pub shown: bool,
    /// A signed form to send back.
    pub sealed: bool,
}

/// A function that the request offers.
#[derive(Debug)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Whether its input is text instead of JSON.
    pub takes_text: bool,
    /// The JSON schema of its arguments.
    pub parameters: Value,
}

/// The format of an answer.
#[derive(Debug, Default)]
pub enum Format {
    /// Plain text.
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// A document that satisfies this schema.
    JsonSchema(Value),
}

/// The simulator's answer.
#[derive(Debug)]
pub struct Answer {
    /// The reasoning before the content.
    pub reasoning: Option<Reasoning>,
    /// Text before tool calls.
    pub lead: Option<Chunked>,
    /// The content of every choice.
    pub said: Said,
    /// Why it ends.
    pub ending: Ending,
    /// The service tier that it names; empty if none.
    pub service_tier: String,
    /// The token counts.
    pub usage: Usage,
}

/// The reasoning of an answer.
#[derive(Debug)]
pub struct Reasoning {
    /// Its text; empty if the request does not want to see it.
    pub text: Chunked,
    /// What it costs, seen or not.
    pub tokens: u64,
    /// Its signature, or the whole of it in a form that only the provider can read.
    pub seal: Option<String>,
    /// Reasoning that comes in unreadable form only.
    pub redacted: Option<String>,
}

/// Why an answer ends. Each dialect has its own words for the first two.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is complete.
    Natural,
    /// The limit of tokens was reached.
    Limit,
    /// A behavior gives this reason.
    Given(String),
}

/// The content of a choice.
#[derive(Debug)]
pub enum Said {
    /// Text.
    Text(Chunked),
    /// Tool calls, at least one.
    Calls(Vec<Call>),
}

/// One tool call.
#[derive(Debug)]
pub struct Call {
    /// Its id.
    pub id: String,
    /// The function.
    pub name: String,
    /// The arguments as JSON text; for a tool that takes text, that text.
    pub arguments: Chunked,
    /// Whether the tool takes text.
    pub takes_text: bool,
}

/// The token counts of an answer.
#[derive(Debug, Clone)]
pub enum Usage {
    /// These counts.
    Tokens {
        /// Of the prompt.
        input: u64,
        /// Of all choices.
        output: u64,
        /// The part of `input` that a cache had.
        cached: u64,
        /// The part of `input` that a cache took in.
        cache_write: u64,
        /// The part of `output` that is reasoning.
        reasoning: u64,
    },
    /// This value, sent unchanged (it may be `null`).
    Given(Value),
    /// No token counts.
    Omit,
}

impl Answer {
    /// Returns the number of content chunks of one choice.
    pub fn chunks(&self) -> usize {
        let said = match &self.said {
            Said::Text(text) => text.len(),
            Said::Calls(calls) => calls.iter().map(|call| call.arguments.len() + 1).sum(),
        };
        let reasoning = self.reasoning.as_ref().map_or(0, |reasoning| reasoning.text.len());
        said + reasoning + self.lead.as_ref().map_or(0, Chunked::len)
    }
}

/// The context of a request: who answers it, and the parts that an echo repeats.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// The name of the simulator.
    pub name: &'a str,
    /// The index of the listener, which tells one provider from another.
    pub place: usize,
    /// The request's number, for ids.
    pub number: u64,
    /// The method.
    pub method: &'a Method,
    /// The path and query.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: &'a [u8],
}

/// Composes the answer to `ask` under `behavior`.
pub fn compose(ask: &Ask, behavior: &Behavior, around: Circumstances<'_>) -> Answer {
    let mut ending = behavior.finish_reason.clone().map_or(Ending::Natural, Ending::Given);
    let mut lead = None;
    let said = match calls(ask, behavior, around.number) {
        Some(calls) => {
            lead = behavior.content.clone().map(Chunked::words);
            Said::Calls(calls)
        }
        None => {
            let (text, scripted) = text(ask, behavior, around);
            let mut text = match (text, behavior.chunks, behavior.chunk_bytes) {
                (None, count, bytes) => Chunked::made(count.unwrap_or(16), bytes),
                (Some(text), Some(count), _) => Chunked::count(text, count),
                (Some(text), None, Some(bytes)) => Chunked::bytes(text, bytes),
                (Some(text), None, None) => Chunked::words(text),
            };
            let cut = !scripted && ask.max_tokens.is_some_and(|most| text.truncate(most));
            if cut && ending == Ending::Natural {
                ending = Ending::Limit;
            }
            Said::Text(text)
        }
    };
    let asked = ask.service_tier.clone().filter(|tier| tier != "auto").unwrap_or_else(|| "default".to_owned());
    let service_tier = behavior.service_tier.clone().unwrap_or(asked);
    let reasoning = reasoning(ask, behavior, around.place);
    let mut answer = Answer { reasoning, lead, said, ending, service_tier, usage: Usage::Omit };
    answer.usage = match &behavior.usage {
        UsageSpec::Counted => counted(ask, behavior, &answer),
        UsageSpec::Null => Usage::Given(Value::Null),
        UsageSpec::Given(value) => Usage::Given(value.clone()),
        UsageSpec::Omit => Usage::Omit,
    };
    answer
}

/// Returns the reasoning that the behavior gives, or that the request wants.
fn reasoning(ask: &Ask, behavior: &Behavior, place: usize) -> Option<Reasoning> {
    let given = behavior.reasoning.as_deref();
    if given == Some("") || (given.is_none() && ask.reasoning.is_none() && behavior.redacted_reasoning.is_none()) {
        return None;
    }
    let wish = ask.reasoning.unwrap_or(Wish { shown: true, sealed: true });
    let text = Chunked::words(given.unwrap_or("This is the Pointsman simulator; it does not think.").to_owned());
    let hidden = Chunked::default();
    let tokens = text.len() as u64;
    let text = if wish.shown || given.is_some() { text } else { hidden };
    let seal = wish.sealed.then(|| seal(place, text.text()));
    Some(Reasoning { text, tokens, seal, redacted: behavior.redacted_reasoning.clone() })
}

/// Counts the tokens of an answer.
fn counted(ask: &Ask, behavior: &Behavior, answer: &Answer) -> Usage {
    let choices = ask.choices.max(1) as u64;
    let reasoning = answer.reasoning.as_ref();
    let hidden = reasoning.map_or(0, |reasoning| reasoning.tokens.saturating_sub(reasoning.text.len() as u64));
    Usage::Tokens {
        input: ask.prompt_tokens,
        output: (answer.chunks() as u64 + hidden) * choices,
        cached: behavior.cached_tokens.min(ask.prompt_tokens),
        cache_write: behavior.cache_write_tokens.min(ask.prompt_tokens.saturating_sub(behavior.cached_tokens)),
        reasoning: reasoning.map_or(0, |reasoning| reasoning.tokens) * choices,
    }
}

/// Returns the tool calls to answer with: those of the behavior, or one call of the request's tool if the user spoke
/// last and no text is scripted.
fn calls(ask: &Ask, behavior: &Behavior, number: u64) -> Option<Vec<Call>> {
    let id = |index: usize| format!("call_sim{number:08}{index:02}");
    if let Some(specs) = behavior.tool_calls.as_deref().filter(|specs| !specs.is_empty()) {
        return Some(specs.iter().enumerate().map(|(index, spec)| call(spec, id(index))).collect());
    }
    let text_is_scripted = behavior.content.is_some()
        || behavior.chunks.is_some()
        || behavior.chunk_bytes.is_some()
        || behavior.echo != Echo::No;
    let tool = ask.tool.as_ref().filter(|_| ask.last_role == "user" && !text_is_scripted)?;
    let arguments = if tool.takes_text { "sim".to_owned() } else { schema::instance(&tool.parameters).to_string() };
    let (name, takes_text) = (tool.name.clone(), tool.takes_text);
    Some(vec![Call { id: id(0), name, arguments: Chunked::bytes(arguments, 8), takes_text }])
}

fn call(spec: &CallSpec, id: String) -> Call {
    let function = spec.function.as_ref();
    let name = spec.name.clone().or_else(|| function.and_then(|function| function.name.clone()));
    let arguments = match spec.arguments.as_ref().or_else(|| function.and_then(|function| function.arguments.as_ref()))
    {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "{}".to_owned(),
    };
    Call {
        id: spec.id.clone().unwrap_or(id),
        name: name.unwrap_or_else(|| "sim".to_owned()),
        arguments: Chunked::bytes(arguments, 8),
        takes_text: spec.kind.as_deref() == Some("custom"),
    }
}

/// Returns the text to answer with (`None`: made-up chunks), and whether a behavior fixes it.
fn text(ask: &Ask, behavior: &Behavior, around: Circumstances<'_>) -> (Option<String>, bool) {
    match behavior.echo {
        Echo::Body => return (Some(String::from_utf8_lossy(around.body).into_owned()), true),
        Echo::User => return (Some(identity(ask, around).to_string()), true),
        Echo::No => {}
    }
    if let Some(content) = &behavior.content {
        return (Some(content.clone()), true);
    }
    if behavior.chunks.is_some() || behavior.chunk_bytes.is_some() {
        return (None, true);
    }
    let text = match &ask.format {
        Format::JsonSchema(schema) => schema::instance(schema).to_string(),
        Format::JsonObject => json!({"answer": "This is the Pointsman simulator, not a model."}).to_string(),
        Format::Text if ask.last_role == "tool" => format!(
            "This is the Pointsman simulator, not a model: {} got the tool result {}",
            around.name, ask.last_text
        ),
        Format::Text => format!(
            "This is the Pointsman simulator, not a model: {} read {} bytes of your last message, for model {}.",
            around.name,
            ask.last_text.len(),
            ask.model
        ),
    };
    (Some(text), false)
}

/// Returns everything that identifies the caller.
fn identity(ask: &Ask, around: Circumstances<'_>) -> Value {
    let mut headers = Map::new();
    for name in around.headers.keys() {
        let values: Vec<_> =
            around.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        headers.insert(name.as_str().to_owned(), Value::String(values.join(", ")));
    }
    json!({"path": around.path, "model": ask.model, "user": ask.user, "headers": headers})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(ask: &Ask, behavior: &str) -> Answer {
        let behavior = serde_json::from_str(behavior).unwrap();
        let headers = HeaderMap::from_iter([("authorization".parse().unwrap(), "Bearer k".parse().unwrap())]);
        let around = Circumstances {
            name: "vllm",
            place: 0,
            number: 7,
            method: &Method::POST,
            path: "/v1",
            headers: &headers,
            body: b"{}",
        };
        compose(ask, &behavior, around)
    }

    fn text(answer: &Answer) -> &str {
        match &answer.said {
            Said::Text(text) => text.text(),
            Said::Calls(calls) => panic!("{calls:?}"),
        }
    }

    #[test]
    fn the_default_answer_says_what_it_is() {
        let answer = say(&Ask { model: "m".to_owned(), ..Ask::default() }, "{}");
        assert!(text(&answer).starts_with("This is the Pointsman simulator, not a model: vllm"));
    }

    #[test]
    fn a_limit_cuts_the_default_answer_but_not_a_scripted_one() {
        let ask = Ask { max_tokens: Some(2), ..Ask::default() };
        let answer = say(&ask, "{}");
        assert_eq!((text(&answer), &answer.ending), ("This is", &Ending::Limit));
        let answer = say(&ask, r#"{"content":"a b c"}"#);
        assert_eq!((text(&answer), &answer.ending), ("a b c", &Ending::Natural));
    }

    #[test]
    fn a_user_gets_a_tool_call_and_a_tool_gets_text() {
        let tool = || {
            let parameters = json!({"properties": {"q": {}}});
            Some(Tool { name: "f".to_owned(), takes_text: false, parameters })
        };
        let ask = Ask { last_role: "user".to_owned(), tool: tool(), ..Ask::default() };
        let Said::Calls(calls) = say(&ask, "{}").said else { panic!() };
        assert_eq!(calls[0].arguments.text(), r#"{"q":"sim"}"#);
        assert_eq!(text(&say(&ask, r#"{"content":"no"}"#)), "no");
        let ask = Ask { last_role: "tool".to_owned(), last_text: "42".to_owned(), tool: tool(), ..Ask::default() };
        assert!(text(&say(&ask, "{}")).ends_with("the tool result 42"));
    }

    #[test]
    fn usage_counts_chunks_of_all_choices() {
        let ask = Ask { choices: 2, prompt_tokens: 9, ..Ask::default() };
        let Usage::Tokens { input, output, .. } = say(&ask, r#"{"chunks":5}"#).usage else { panic!() };
        assert_eq!((input, output), (9, 10));
    }

    #[test]
    fn hidden_reasoning_costs_what_it_costs_when_it_is_seen() {
        for shown in [true, false] {
            let ask = Ask { reasoning: Some(Wish { shown, sealed: true }), prompt_tokens: 9, ..Ask::default() };
            let answer = say(&ask, r#"{"chunks":5,"cached_tokens":4,"cache_write_tokens":9}"#);
            let Usage::Tokens { output, cached, cache_write, reasoning, .. } = answer.usage else { panic!() };
            assert_eq!((output, cached, cache_write, reasoning), (14, 4, 5, 9));
            assert_eq!(answer.reasoning.unwrap().text.len() == 9, shown);
        }
        assert!(say(&Ask::default(), "{}").reasoning.is_none());
        assert!(say(&Ask::default(), r#"{"reasoning":"hm"}"#).reasoning.is_some());
    }

    #[test]
    fn text_may_come_before_a_call() {
        let answer = say(&Ask::default(), r#"{"content":"I look.","tool_calls":[{"name":"f"}]}"#);
        assert_eq!(answer.lead.unwrap().text(), "I look.");
    }

    #[test]
    fn an_echo_shows_the_credential() {
        assert!(text(&say(&Ask::default(), r#"{"echo":"user"}"#)).contains(r#""authorization":"Bearer k""#));
        assert_eq!(text(&say(&Ask::default(), r#"{"echo":true}"#)), "{}");
    }
}
