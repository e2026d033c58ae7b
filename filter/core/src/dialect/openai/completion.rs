//! A completion, broken down into the parts from which cached answers are built.
//!
//! It holds the model's output as JSON texts: each choice's message, and its form as a stream delta if that differs.
//! Members of a single call (`id`, `created`) are dropped.

use crate::dialect::answer::NotKept;
use crate::wire::bytes::{Reader, Writer};
use serde_json::{Map, Value};

/// The parts of one completion. All texts are JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completion {
    /// Members that completions and chunks share, each with a leading comma: `,"model":"gpt"`.
    pub common: String,
    /// Members of the completion only, in the same form.
    pub extra: String,
    /// The usage object, as the provider sent it.
    pub usage: Option<String>,
    /// The choices, ordered by index.
    pub choices: Vec<Choice>,
}

/// One choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// `index`
    pub index: u64,
    /// `message`
    pub message: String,
    /// The message as a delta if it differs: tool calls have an `index` there.
    pub delta: Option<String>,
    /// `logprobs`, if there are any.
    pub logprobs: Option<String>,
    /// `finish_reason`
    pub finish_reason: String,
    /// Other members about its end ([`ENDINGS`]), each with a leading comma.
    pub ending: String,
}

/// Members of a choice in which vLLM and OpenRouter describe its end besides `finish_reason`: the text or token that it
/// stopped at, and the provider's own name for the reason.
pub const ENDINGS: [&str; 2] = ["stop_reason", "native_finish_reason"];

impl Completion {
    /// Breaks a completion down. `choices`: the number of choices requested.
    ///
    /// # Errors
    /// [`NotKept`] if a choice is missing, unfinished, filtered or refused, or has a shape that cannot be replayed as a
    /// stream.
    pub fn from_whole(completion: Value, choices: u64) -> Result<Self, NotKept> {
        let Value::Object(members) = completion else { return Err(NotKept("shape")) };
        let mut parts = Self::default();
        let mut listed = Vec::new();
        for (name, value) in members {
            match (name.as_str(), value) {
                ("id" | "object" | "created", _) | ("usage", Value::Null) => {}
                // Servers that send an empty one mean none, but some clients take it for an error.
                ("error", value) if is_blank(&value) || value == false || value == 0 => {}
                ("usage", usage) => parts.usage = Some(usage.to_string()),
                ("choices", Value::Array(list)) => listed = list,
                ("model" | "system_fingerprint" | "service_tier", value) => {
                    push_member(&mut parts.common, &name, &value)
                }
                (_, value) => push_member(&mut parts.extra, &name, &value),
            }
        }
        for choice in listed {
            parts.choices.push(Choice::from_whole(choice)?);
        }
        parts.choices.sort_by_key(|choice| choice.index);
        let is_whole = (0..choices).eq(parts.choices.iter().map(|choice| choice.index));
        if is_whole { Ok(parts) } else { Err(NotKept("choices")) }
    }

    /// Returns its approximate memory in bytes, besides `Self`.
    pub fn bytes(&self) -> usize {
        let Self { common, extra, usage, choices } = self;
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let of_choice = |choice: &Choice| {
            let Choice { index: _, message, delta, logprobs, finish_reason, ending } = choice;
            size_of::<Choice>() + message.len() + length(delta) + length(logprobs) + finish_reason.len() + ending.len()
        };
        common.len() + extra.len() + length(usage) + choices.iter().map(of_choice).sum::<usize>()
    }

    /// Appends its encoding to `out`.
    pub fn encode(&self, out: &mut Writer) {
        // List every field, so that a new one does not compile until it is encoded.
        let Self { common, extra, usage, choices } = self;
        out.text(common);
        out.text(extra);
        out.optional_text(usage.as_deref());
        out.count(choices.len());
        for Choice { index, message, delta, logprobs, finish_reason, ending } in choices {
            out.u64(*index);
            out.text(message);
            out.optional_text(delta.as_deref());
            out.optional_text(logprobs.as_deref());
            out.text(finish_reason);
            out.text(ending);
        }
    }

    /// Decodes it; `None` if the bytes are not a stored completion.
    pub fn decode(reader: &mut Reader) -> Option<Self> {
        let optional = |reader: &mut Reader| Some(reader.optional_text()?.map(str::to_owned));
        let (common, extra, usage) = (reader.text()?.to_owned(), reader.text()?.to_owned(), optional(reader)?);
        let mut choices = Vec::new();
        for _ in 0..reader.count()? {
            choices.push(Choice {
                index: reader.u64()?,
                message: reader.text()?.to_owned(),
                delta: optional(reader)?,
                logprobs: optional(reader)?,
                finish_reason: reader.text()?.to_owned(),
                ending: reader.text()?.to_owned(),
            });
        }
        Some(Self { common, extra, usage, choices })
    }
}

impl Choice {
    fn from_whole(choice: Value) -> Result<Self, NotKept> {
        let Value::Object(mut choice) = choice else { return Err(NotKept("shape")) };
        let finish_reason = match choice.remove("finish_reason") {
            Some(Value::String(reason)) if matches!(&*reason, "stop" | "length" | "tool_calls" | "function_call") => {
                reason
            }
            Some(Value::String(_)) => return Err(NotKept("filtered")),
            _ => return Err(NotKept("unfinished")),
        };
        let Some(Value::Object(message)) = choice.remove("message") else { return Err(NotKept("shape")) };
        // An empty answer is more often a fault of the server than the answer to every such question.
        if !message.iter().any(|(name, value)| name != "role" && !is_blank(value)) {
            return Err(NotKept("empty"));
        }
        if message.get("error").is_some_and(|error| !is_blank(error)) {
            return Err(NotKept("error"));
        }
        if message.get("refusal").is_some_and(|refusal| !refusal.is_null()) {
            return Err(NotKept("refused"));
        }
        let index = choice.remove("index").map_or(Some(0), |index| index.as_u64()).ok_or(NotKept("shape"))?;
        let logprobs = choice.remove("logprobs").filter(|logprobs| !logprobs.is_null()).map(|l| l.to_string());
        // Azure adds its content filter's findings to each choice; for an unfiltered choice they are useless to a
        // caller.
        choice.remove("content_filter_results");
        let mut ending = String::new();
        for name in ENDINGS {
            match choice.remove(name) {
                Some(value @ (Value::String(_) | Value::Number(_))) => push_member(&mut ending, name, &value),
                None | Some(Value::Null) => {}
                Some(_) => return Err(NotKept("shape")),
            }
        }
        if choice.values().any(|value| !value.is_null()) {
            return Err(NotKept("shape"));
        }
        let delta = delta(&message)?;
        Ok(Self { index, message: Value::Object(message).to_string(), delta, logprobs, finish_reason, ending })
    }
}

/// Whether a member of a message has nothing for the caller.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Returns the message as a delta, if it differs from the message.
fn delta(message: &Map<String, Value>) -> Result<Option<String>, NotKept> {
    let calls = match message.get("tool_calls") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(calls)) => calls,
        Some(_) => return Err(NotKept("shape")),
    };
    let mut indexed = Vec::with_capacity(calls.len());
    for (i, call) in calls.iter().enumerate() {
        let Value::Object(call) = call else { return Err(NotKept("shape")) };
        let mut call = call.clone();
        call.insert("index".to_owned(), i.into());
        indexed.push(Value::Object(call));
    }
    let mut delta = message.clone();
    delta.insert("tool_calls".to_owned(), Value::Array(indexed));
    Ok(Some(Value::Object(delta).to_string()))
}

fn push_member(members: &mut String, name: &str, value: &Value) {
    members.push(',');
    members.push_str(&Value::from(name).to_string());
    members.push(':');
    members.push_str(&value.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn whole() -> Value {
        json!({"id": "x", "object": "chat.completion", "created": 1, "model": "gpt", "system_fingerprint": "fp",
            "vendor": [1],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi", "refusal": null},
                         "logprobs": null, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    }

    #[test]
    fn keeps_what_the_model_said_and_nothing_of_the_call() {
        let parts = Completion::from_whole(whole(), 1).unwrap();
        assert_eq!(parts.common, r#","model":"gpt","system_fingerprint":"fp""#);
        assert_eq!(parts.extra, r#","vendor":[1]"#);
        assert_eq!(parts.choices[0].message, r#"{"content":"hi","refusal":null,"role":"assistant"}"#);
        assert_eq!((&parts.choices[0].delta, &*parts.choices[0].finish_reason), (&None, "stop"));
    }

    #[test]
    fn an_empty_error_is_not_kept_and_neither_is_an_empty_answer() {
        for error in [json!({}), json!([]), json!(""), json!(false), Value::Null] {
            let mut whole = whole();
            whole["error"] = error;
            assert_eq!(Completion::from_whole(whole, 1).unwrap().extra, r#","vendor":[1]"#);
        }
        let mut whole = whole();
        whole["choices"][0]["message"]["content"] = json!("");
        assert_eq!(Completion::from_whole(whole, 1), Err(NotKept("empty")));
    }

    #[test]
    fn nothing_partial_refused_filtered_or_strange_is_kept() {
        let changed = |pointer: &str, value: Value| {
            let mut whole = whole();
            *whole.pointer_mut(pointer).unwrap() = value;
            Completion::from_whole(whole, 1).map(drop)
        };
        assert_eq!(changed("/choices/0/finish_reason", Value::Null), Err(NotKept("unfinished")));
        assert_eq!(changed("/choices/0/finish_reason", json!("content_filter")), Err(NotKept("filtered")));
        assert_eq!(changed("/choices/0/finish_reason", json!("error")), Err(NotKept("filtered")));
        assert_eq!(changed("/choices/0/message/refusal", json!("no")), Err(NotKept("refused")));
        assert_eq!(changed("/choices", json!([])), Err(NotKept("choices")));
        assert_eq!(changed("/choices/0/index", json!(1)), Err(NotKept("choices")));
        assert_eq!(changed("/choices/0/message", json!("hi")), Err(NotKept("shape")));
        assert_eq!(Completion::from_whole(whole(), 2), Err(NotKept("choices")));
        assert_eq!(changed("/choices/0/finish_reason", json!("length")), Ok(()));
    }

    #[test]
    fn what_servers_say_of_the_end_besides_is_kept_and_anything_else_is_strange() {
        let said = |name: &str, value: Value| {
            let mut whole = whole();
            whole["choices"][0][name] = value;
            Completion::from_whole(whole, 1).map(|mut parts| parts.choices.remove(0).ending)
        };
        assert_eq!(said("stop_reason", json!("#\"#")).unwrap(), r##","stop_reason":"#\"#""##);
        assert_eq!(said("stop_reason", json!(151_643)).unwrap(), r#","stop_reason":151643"#);
        assert_eq!(said("stop_reason", Value::Null).unwrap(), "");
        assert_eq!(said("native_finish_reason", json!("STOP")).unwrap(), r#","native_finish_reason":"STOP""#);
        assert_eq!(said("stop_reason", json!({})), Err(NotKept("shape")));
        assert_eq!(said("other", json!("x")), Err(NotKept("shape")));
    }

    #[test]
    fn a_streams_tool_calls_have_an_index() {
        let mut whole = whole();
        let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        whole["choices"][0]["message"]["tool_calls"] = json!([call, call]);
        let parts = Completion::from_whole(whole, 1).unwrap();
        let delta: Value = serde_json::from_str(parts.choices[0].delta.as_deref().unwrap()).unwrap();
        assert_eq!((&delta["tool_calls"][0]["index"], &delta["tool_calls"][1]["index"]), (&json!(0), &json!(1)));
        let message: Value = serde_json::from_str(&parts.choices[0].message).unwrap();
        assert_eq!(message["tool_calls"][1].get("index"), None);
    }
}
