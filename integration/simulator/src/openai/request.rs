//! Reads a chat completions request, and refuses what the provider refuses.

use serde_json::Value;

use crate::answer::{Ask, Format, Tool};
use crate::refusal::Refusal;

/// The tokens that every message costs in addition to its text.
const TOKENS_PER_MESSAGE: u64 = 3;

/// What OpenAI says of a body that is not JSON.
pub const NOT_JSON: &str = "We could not parse the JSON body of your request. (HINT: This likely means you aren't \
                            using your HTTP library correctly. The OpenAI API expects a JSON payload, but what was \
                            sent was not valid JSON.)";

/// Returns what OpenAI says of a parameter that is missing.
pub fn missing(param: &str) -> Refusal {
    let message = format!("Missing required parameter: '{param}'.");
    Refusal::of(param, Some("missing_required_parameter"), message)
}

/// Reads what the body asks for. Checks only that it is JSON and that it has messages. Of a repeated key the last value
/// counts, as for a provider written in Python.
pub fn read(body: &[u8]) -> Result<Ask, Refusal> {
    let Ok(document) = serde_json::from_slice::<Value>(body) else {
        return Err(Refusal::bad(NOT_JSON));
    };
    let messages = match document.get("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(Value::Array(_)) => {
            let message = "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty \
                           array instead.";
            return Err(Refusal::of("messages", Some("empty_array"), message));
        }
        Some(_) => {
            let message = "Invalid type for 'messages': expected an array of objects.";
            return Err(Refusal::of("messages", Some("invalid_type"), message));
        }
        None => return Err(missing("messages")),
    };
    let text_bytes: u64 = messages.iter().map(|message| text_bytes(message) as u64).sum();
    let last = messages.last();
    let max_tokens = ["max_completion_tokens", "max_tokens"].iter().find_map(|name| document.get(name)?.as_u64());
    Ok(Ask {
        model: string(&document, "model").unwrap_or_default(),
        stream: document.get("stream").and_then(Value::as_bool).unwrap_or(false),
        include_usage: document.pointer("/stream_options/include_usage").and_then(Value::as_bool).unwrap_or(false),
        choices: document.get("n").and_then(Value::as_u64).map_or(1, |n| n.clamp(1, 128) as usize),
        max_tokens: max_tokens.and_then(|most| usize::try_from(most).ok()),
        last_role: last.and_then(|message| string(message, "role")).unwrap_or_default(),
        last_text: last.map(text).unwrap_or_default(),
        user: string(&document, "user"),
        service_tier: string(&document, "service_tier"),
        tool: tool(&document),
        format: format(&document),
        prompt_tokens: text_bytes.div_ceil(4) + TOKENS_PER_MESSAGE * messages.len() as u64,
        ..Ask::default()
    })
}

fn string(of: &Value, name: &str) -> Option<String> {
    of.get(name).and_then(Value::as_str).map(str::to_owned)
}

/// Returns the texts of a message: its content, or the text parts of its content.
fn texts(message: &Value) -> impl Iterator<Item = &str> {
    let content = message.get("content");
    let parts = content.and_then(Value::as_array).into_iter().flatten();
    let texts = parts.filter_map(|part| part.get("text").and_then(Value::as_str));
    content.and_then(Value::as_str).into_iter().chain(texts)
}

fn text_bytes(message: &Value) -> usize {
    texts(message).map(str::len).sum()
}

fn text(message: &Value) -> String {
    texts(message).collect()
}

/// Returns the tool that `tool_choice` names, or the first one.
fn tool(document: &Value) -> Option<Tool> {
    let choice = document.get("tool_choice");
    if choice.and_then(Value::as_str) == Some("none") {
        return None;
    }
    let named = choice.and_then(|choice| choice.pointer("/function/name")).and_then(Value::as_str);
    let mut functions = document.get("tools")?.as_array()?.iter().filter_map(|tool| tool.get("function"));
    let function =
        functions.find(|function| named.is_none() || function.get("name").and_then(Value::as_str) == named)?;
    Some(Tool {
        name: string(function, "name")?,
        takes_text: false,
        parameters: function.get("parameters").cloned().unwrap_or_else(|| serde_json::json!({"type": "object"})),
    })
}

fn format(document: &Value) -> Format {
    let Some(format) = document.get("response_format") else { return Format::Text };
    match format.get("type").and_then(Value::as_str) {
        Some("json_object") => Format::JsonObject,
        Some("json_schema") => match format.pointer("/json_schema/schema") {
            Some(schema) => Format::JsonSchema(schema.clone()),
            None => Format::JsonObject,
        },
        _ => Format::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_without_messages_is_refused_and_one_with_is_not() {
        assert!(read(b"{").unwrap_err().message.starts_with("We could not parse"));
        assert_eq!(read(b"{}").unwrap_err().message, "Missing required parameter: 'messages'.");
        assert_eq!(read(br#"{"messages":[]}"#).unwrap_err().code, Some("empty_array"));
        assert!(read(br#"{"messages":[{}]}"#).is_ok());
    }

    #[test]
    fn text_is_counted_in_both_its_forms() {
        let ask = read(
            br#"{"messages":[{"content":"12345"},{"role":"user","content":[{"type":"text","text":"ab"},
                {"type":"image_url"},{"type":"text","text":"cd"}]}]}"#,
        )
        .unwrap();
        assert_eq!(ask.prompt_tokens, 3 + 6);
        assert_eq!(ask.last_text, "abcd");
    }

    #[test]
    fn the_tool_choice_chooses() {
        let with = |choice: &str| {
            let body = format!(
                r#"{{"messages":[{{}}],"tools":[{{"function":{{"name":"a"}}}},{{"function":{{"name":"b"}}}}]{choice}}}"#
            );
            read(body.as_bytes()).unwrap().tool.map(|tool| tool.name)
        };
        assert_eq!(with("").as_deref(), Some("a"));
        assert_eq!(with(r#","tool_choice":{"function":{"name":"b"}}"#).as_deref(), Some("b"));
        assert_eq!(with(r#","tool_choice":"none""#), None);
    }

    #[test]
    fn the_last_of_two_keys_counts() {
        assert_eq!(read(br#"{"model":"a","model":"b","messages":[{}]}"#).unwrap().model, "b");
    }
}
