//! Reads a Messages request, and refuses what the provider refuses.

use hyper::HeaderMap;
use serde_json::{Value, json};

use crate::answer::{Ask, Format, Tool, Wish};
use crate::refusal::Refusal;
use crate::seal;

/// The tokens that every message costs in addition to its text.
const TOKENS_PER_MESSAGE: u64 = 3;
/// The version from which on sampling parameters are refused.
const WITHOUT_SAMPLING: &str = "2026-10-21";
/// The least budget of tokens for thinking.
const LEAST_BUDGET: u64 = 1024;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An answer.
    Answer,
    /// To count its tokens.
    Count,
}

/// Reads what a request asks of the provider at listener `place`.
pub fn read(headers: &HeaderMap, body: &[u8], place: usize, purpose: Purpose) -> Result<Ask, Refusal> {
    let Some(version) = headers.get("anthropic-version") else {
        return Err(Refusal::bad("anthropic-version: header is required"));
    };
    let document: Value = serde_json::from_slice(body)
        .map_err(|error| Refusal::bad(format!("The request body is not valid JSON: {error}")))?;
    let missing = |name: &str| Refusal::bad(format!("{name}: Field required"));
    let model = string(&document, "model").ok_or_else(|| missing("model"))?;
    let messages = match document.get("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(Value::Array(_)) => return Err(Refusal::bad("messages: at least one message is required")),
        Some(_) => return Err(Refusal::bad("messages: Input should be a valid list")),
        None => return Err(missing("messages")),
    };
    let max_tokens = document.get("max_tokens").and_then(Value::as_u64);
    if purpose == Purpose::Answer {
        check_limit(document.get("max_tokens"), max_tokens)?;
        check_budget(&document, max_tokens)?;
    }
    if version == WITHOUT_SAMPLING
        && let Some(name) = ["temperature", "top_p", "top_k"].iter().find(|name| document.get(**name).is_some())
    {
        return Err(Refusal::bad(format!("{name}: Extra inputs are not permitted")));
    }
    check_signatures(messages, place)?;
    let last = messages.last();
    let has_result = last.is_some_and(|message| blocks(message).any(|block| kind(block) == Some("tool_result")));
    let role = last.and_then(|message| string(message, "role")).unwrap_or_default();
    Ok(Ask {
        model,
        stream: document.get("stream").and_then(Value::as_bool).unwrap_or(false),
        choices: 1,
        max_tokens: max_tokens.and_then(|most| usize::try_from(most).ok()),
        stop: document.pointer("/stop_sequences/0").and_then(Value::as_str).map(str::to_owned),
        last_role: if has_result { "tool".to_owned() } else { role },
        last_text: last.map(|message| texts(message).concat()).unwrap_or_default(),
        user: document.pointer("/metadata/user_id").and_then(Value::as_str).map(str::to_owned),
        service_tier: Some("standard".to_owned()),
        tool: tool(&document),
        format: format(&document),
        prompt_tokens: tokens(&document, messages),
        reasoning: reasoning(&document),
        ..Ask::default()
    })
}

fn string(of: &Value, name: &str) -> Option<String> {
    of.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn check_limit(given: Option<&Value>, max_tokens: Option<u64>) -> Result<(), Refusal> {
    match (given, max_tokens) {
        (None, _) => Err(Refusal::bad("max_tokens: Field required")),
        (Some(_), None) => Err(Refusal::bad("max_tokens: Input should be a valid integer")),
        _ => Ok(()),
    }
}

fn check_budget(document: &Value, max_tokens: Option<u64>) -> Result<(), Refusal> {
    let Some(budget) = document.pointer("/thinking/budget_tokens").and_then(Value::as_u64) else { return Ok(()) };
    if budget < LEAST_BUDGET {
        let message = "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024";
        return Err(Refusal::bad(message));
    }
    if max_tokens.is_some_and(|most| most <= budget) {
        return Err(Refusal::bad("`max_tokens` must be greater than `thinking.budget_tokens`."));
    }
    Ok(())
}

/// Refuses thinking that this provider did not sign, or that was changed since.
fn check_signatures(messages: &[Value], place: usize) -> Result<(), Refusal> {
    for (at, message) in messages.iter().enumerate() {
        for (index, block) in blocks(message).enumerate().filter(|(_, block)| kind(block) == Some("thinking")) {
            let text = block.get("thinking").and_then(Value::as_str).unwrap_or_default();
            let signature = block.get("signature").and_then(Value::as_str).unwrap_or_default();
            if !seal::opens(place, text, signature) {
                let message = format!("messages.{at}.content.{index}: Invalid `signature` in `thinking` block");
                return Err(Refusal::bad(message));
            }
        }
    }
    Ok(())
}

fn blocks(message: &Value) -> impl Iterator<Item = &Value> {
    message.get("content").and_then(Value::as_array).into_iter().flatten()
}

fn kind(block: &Value) -> Option<&str> {
    block.get("type").and_then(Value::as_str)
}

/// Returns the texts of a message, with those of its tool results.
fn texts(message: &Value) -> Vec<&str> {
    let Some(content) = message.get("content") else { return Vec::new() };
    if let Some(text) = content.as_str() {
        return vec![text];
    }
    let of = |block| match kind(block) {
        Some("tool_result") => texts(block),
        _ => block.get("text").and_then(Value::as_str).into_iter().collect(),
    };
    blocks(message).flat_map(of).collect()
}

fn tokens(document: &Value, messages: &[Value]) -> u64 {
    let system = json!({"content": document.get("system")});
    let length = |message| texts(message).iter().map(|text| text.len() as u64).sum::<u64>();
    let bytes = length(&system) + messages.iter().map(length).sum::<u64>();
    bytes.div_ceil(4) + TOKENS_PER_MESSAGE * messages.len() as u64
}

/// Returns the tool that `tool_choice` names, or the first one that the client runs.
fn tool(document: &Value) -> Option<Tool> {
    let choice = document.get("tool_choice");
    if choice.and_then(kind) == Some("none") {
        return None;
    }
    let named = choice.and_then(|choice| choice.get("name")).and_then(Value::as_str);
    let is_wanted = |tool: &&Value| {
        tool.get("input_schema").is_some() && (named.is_none() || tool.get("name").and_then(Value::as_str) == named)
    };
    let tool = document.get("tools")?.as_array()?.iter().find(is_wanted)?;
    let parameters = tool.get("input_schema").cloned().unwrap_or_default();
    Some(Tool { name: string(tool, "name")?, takes_text: false, parameters })
}

fn format(document: &Value) -> Format {
    let format = document.pointer("/output_config/format");
    match format.and_then(|format| format.get("schema")) {
        Some(schema) => Format::JsonSchema(schema.clone()),
        None => Format::Text,
    }
}

fn reasoning(document: &Value) -> Option<Wish> {
    let thinking = document.get("thinking")?;
    let wanted = matches!(kind(thinking), Some("enabled" | "adaptive"));
    let shown = thinking.get("display").and_then(Value::as_str) != Some("omitted");
    wanted.then_some(Wish { shown, sealed: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(document: &Value) -> Result<Ask, String> {
        ask_as("2023-06-01", document)
    }

    fn ask_as(version: &'static str, document: &Value) -> Result<Ask, String> {
        let headers = HeaderMap::from_iter([("anthropic-version".parse().unwrap(), version.parse().unwrap())]);
        let body = document.to_string();
        read(&headers, body.as_bytes(), 0, Purpose::Answer).map_err(|refusal| refusal.message)
    }

    fn with(name: &str, value: Value) -> Value {
        let mut document =
            json!({"model": "m", "max_tokens": 2048, "messages": [{"role": "user", "content": "hello"}]});
        document[name] = value;
        document
    }

    #[test]
    fn what_is_required_is_missed() {
        let plain = with("stream", json!(false));
        assert!(ask(&plain).is_ok());
        let without_version = read(&HeaderMap::new(), plain.to_string().as_bytes(), 0, Purpose::Answer);
        assert_eq!(without_version.unwrap_err().message, "anthropic-version: header is required");
        for name in ["model", "messages", "max_tokens"] {
            let mut document = plain.clone();
            document.as_object_mut().unwrap().remove(name);
            assert_eq!(ask(&document).unwrap_err(), format!("{name}: Field required"));
        }
        assert_eq!(ask(&with("messages", json!([]))).unwrap_err(), "messages: at least one message is required");
    }

    #[test]
    fn counting_needs_no_limit() {
        let headers = HeaderMap::from_iter([("anthropic-version".parse().unwrap(), "2023-06-01".parse().unwrap())]);
        let body = br#"{"model":"m","system":"12345678","messages":[{"content":[{"type":"text","text":"1234"}]}]}"#;
        assert_eq!(read(&headers, body, 0, Purpose::Count).unwrap().prompt_tokens, 3 + 3);
    }

    #[test]
    fn the_new_version_refuses_sampling() {
        let document = with("top_k", json!(3));
        assert!(ask(&document).is_ok());
        assert_eq!(ask_as("2026-10-21", &document).unwrap_err(), "top_k: Extra inputs are not permitted");
    }

    #[test]
    fn a_budget_is_at_least_1024_and_below_the_limit() {
        let thinking = |budget: u64| with("thinking", json!({"type": "enabled", "budget_tokens": budget}));
        assert!(ask(&thinking(1024)).unwrap().reasoning.unwrap().shown);
        assert!(ask(&thinking(1023)).unwrap_err().contains("greater than or equal to 1024"));
        assert!(ask(&thinking(2048)).unwrap_err().starts_with("`max_tokens` must be greater"));
        let hidden = ask(&with("thinking", json!({"type": "adaptive", "display": "omitted"}))).unwrap();
        assert!(!hidden.reasoning.unwrap().shown);
        assert!(ask(&with("thinking", json!({"type": "disabled"}))).unwrap().reasoning.is_none());
    }

    #[test]
    fn thinking_comes_back_unchanged_or_not_at_all() {
        let back = |text: &str, signature: &str| {
            let block = json!({"type": "thinking", "thinking": text, "signature": signature});
            let content = json!([block]);
            ask(&with("messages", json!([{"role": "user", "content": "?"}, {"role": "assistant", "content": content}])))
        };
        let signature = seal::seal(0, "hm");
        assert!(back("hm", &signature).is_ok());
        let refused = "messages.1.content.0: Invalid `signature` in `thinking` block";
        assert_eq!(back("hm!", &signature).unwrap_err(), refused);
        assert_eq!(back("hm", &seal::seal(1, "hm")).unwrap_err(), refused);
    }

    #[test]
    fn a_tool_result_is_no_word_of_the_user() {
        let content = json!([{"type": "tool_result", "tool_use_id": "x", "content": [{"type": "text", "text": "21"}]},
            {"type": "text", "text": " degrees"}]);
        let asked = ask(&with("messages", json!([{"role": "user", "content": content}]))).unwrap();
        assert_eq!((asked.last_role.as_str(), asked.last_text.as_str()), ("tool", "21 degrees"));
    }

    #[test]
    fn the_tool_choice_chooses() {
        let chosen = |choice: Value| {
            let tool = |name: &str| json!({"name": name, "input_schema": {"type": "object"}});
            let own = json!({"type": "web_search_20260101", "name": "web_search"});
            let mut document = with("tools", json!([own, tool("a"), tool("b")]));
            document["tool_choice"] = choice;
            ask(&document).unwrap().tool.map(|tool| tool.name)
        };
        assert_eq!(chosen(json!({"type": "auto"})).as_deref(), Some("a"));
        assert_eq!(chosen(json!({"type": "tool", "name": "b"})).as_deref(), Some("b"));
        assert_eq!(chosen(json!({"type": "none"})), None);
    }
}
