//! What a careful client makes of an answer: the choices' text and tool calls, how it ended, and its error.
//!
//! A new id is a new call, whatever its index; a function's name is assigned, never appended; arguments are appended.

use crate::{ToolCall, sse};
use serde_json::Value;
use std::collections::BTreeMap;

/// An answer, put together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Content of the choices, in order of their index, separated by LF.
    pub text: String,
    /// Tool calls of the choices, in the same order.
    pub tool_calls: Vec<ToolCall>,
    /// Reasons why the choices ended.
    pub finish_reasons: Vec<String>,
    /// The `code` of the error that it has.
    pub error: Option<String>,
    /// Whether a stream has its end marker.
    pub is_done: bool,
}

#[derive(Debug, Default)]
struct Choice {
    text: String,
    /// With the index that each had.
    calls: Vec<(Option<u64>, ToolCall)>,
    finish_reason: Option<String>,
}

/// Reads a whole answer or a stream.
///
/// # Panics
/// If it is not JSON.
pub fn read(body: &str, is_stream: bool) -> Answer {
    let documents = if is_stream { sse::data(body) } else { vec![body.to_owned()] };
    let (mut answer, mut choices) = (Answer::default(), BTreeMap::<u64, Choice>::new());
    for document in documents {
        if document.trim() == "[DONE]" {
            answer.is_done = true;
            continue;
        }
        // Python's clients read it.
        let text = document.trim_start_matches('\u{feff}').replace(":NaN", ":null");
        let document: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {document}"));
        if let Some(code) = document["error"].get("code") {
            answer.error = Some(code.as_str().unwrap_or_default().to_owned());
        }
        for choice in document["choices"].as_array().into_iter().flatten() {
            let whole = choices.entry(choice["index"].as_u64().unwrap_or(0)).or_default();
            whole.add(&choice[if is_stream { "delta" } else { "message" }], is_stream);
            if let Some(reason) = choice["finish_reason"].as_str() {
                whole.finish_reason = Some(reason.to_owned());
            }
        }
    }
    let texts: Vec<String> = choices.values().map(|choice| choice.text.clone()).collect();
    answer.text = texts.join("\n");
    for choice in choices.into_values() {
        answer.tool_calls.extend(choice.calls.into_iter().map(|(_, call)| call));
        answer.finish_reasons.extend(choice.finish_reason);
    }
    answer
}

impl Choice {
    fn add(&mut self, message: &Value, is_stream: bool) {
        self.text.push_str(message["content"].as_str().unwrap_or_default());
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64();
            let id = call["id"].as_str().filter(|id| !id.is_empty());
            let name = call["function"]["name"].as_str().filter(|name| !name.is_empty());
            let at = if is_stream { self.position(index, id, name) } else { None };
            self.append(at, index, (id, name), &call["function"]["arguments"]);
        }
        if let Some(function) = message.get("function_call").filter(|function| function.is_object()) {
            let at = (is_stream && !self.calls.is_empty()).then(|| self.calls.len() - 1);
            self.append(at, None, (None, function["name"].as_str()), &function["arguments"]);
        }
    }

    /// Which call a piece continues; `None`: a new one.
    fn position(&self, index: Option<u64>, id: Option<&str>, name: Option<&str>) -> Option<usize> {
        match id {
            Some(id) => {
                let known = self.calls.iter().position(|(_, call)| call.id == id);
                // An id may come after the first piece of its call.
                known.or_else(|| self.last(index).filter(|at| self.calls[*at].1.id.is_empty()))
            }
            None => self.last(index).filter(|at| name.is_none_or(|name| self.calls[*at].1.name == name)),
        }
    }

    fn last(&self, index: Option<u64>) -> Option<usize> {
        match index {
            Some(_) => self.calls.iter().rposition(|(known, _)| *known == index),
            None => self.calls.len().checked_sub(1),
        }
    }

    fn append(
        &mut self,
        at: Option<usize>,
        index: Option<u64>,
        (id, name): (Option<&str>, Option<&str>),
        arguments: &Value,
    ) {
        let at = at.unwrap_or_else(|| {
            self.calls.push((index, ToolCall::default()));
            self.calls.len() - 1
        });
        let call = &mut self.calls[at].1;
        call.id = id.map_or_else(|| call.id.clone(), str::to_owned);
        call.name = name.map_or_else(|| call.name.clone(), str::to_owned);
        match arguments {
            Value::Null => {}
            Value::String(text) => call.arguments.push_str(text),
            other => call.arguments.push_str(&other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
        ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() }
    }

    fn streamed(deltas: &[&str]) -> Vec<ToolCall> {
        let event = |delta: &&str| {
            format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":[{delta}]}}}}]}}\n\n")
        };
        read(&deltas.iter().map(event).collect::<String>(), true).tool_calls
    }

    #[test]
    fn a_new_id_is_a_new_call_and_a_name_is_assigned() {
        let a = r#"{"index":0,"id":"a","function":{"name":"f","arguments":"{"}}"#;
        let more = r#"{"index":0,"id":"","function":{"name":"f","arguments":"}"}}"#;
        let b = r#"{"index":0,"id":"b","function":{"name":"f","arguments":"{}"}}"#;
        assert_eq!(streamed(&[a, more, b]), [call("a", "f", "{}"), call("b", "f", "{}")]);
        assert_eq!(streamed(&[&[a, b].join(",")]), [call("a", "f", "{"), call("b", "f", "{}")]);
    }

    #[test]
    fn both_kinds_of_answers_read_alike() {
        let whole = r#"{"choices":[{"index":1,"message":{"content":"b"},"finish_reason":"stop"},
            {"index":0,"message":{"content":"a","function_call":{"name":"f","arguments":"{}"}}}]}"#;
        let stream = "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"b\"},\"finish_reason\":\"stop\"}]}\n\n\
            data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\",\"function_call\":{\"name\":\"f\"}}}]}\n\n\
            data: {\"choices\":[{\"index\":0,\"delta\":{\"function_call\":{\"arguments\":\"{}\"}}}]}\n\ndata: [DONE]\n\n";
        let expected = Answer {
            text: "a\nb".into(),
            tool_calls: vec![call("", "f", "{}")],
            finish_reasons: vec!["stop".into()],
            ..Answer::default()
        };
        assert_eq!(read(whole, false), expected);
        assert_eq!(read(stream, true), Answer { is_done: true, ..expected });
    }
}
