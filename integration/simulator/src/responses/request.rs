//! Reads a Responses request, and refuses what the provider refuses.

use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};

use super::store::{Response, Store};
use crate::answer::{Ask, Format, Tool, Wish};
use crate::openai::{NOT_JSON, missing};
use crate::refusal::Refusal;
use crate::seal;

/// The tokens that every item costs in addition to its text.
const TOKENS_PER_ITEM: u64 = 3;
/// The least limit of output tokens.
const LEAST_OUTPUT: u64 = 16;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// An answer.
    Answer,
    /// To count its tokens.
    Count,
}

/// Reads what a request asks of the provider at listener `place`.
pub fn read(store: &Store, body: &[u8], place: usize, purpose: Purpose) -> Result<Ask, Refusal> {
    let document: Value = serde_json::from_slice(body).map_err(|_| Refusal::bad(NOT_JSON))?;
    let model = string(&document, "model").ok_or_else(|| missing("model"))?;
    let previous = previous(store, &document, place)?;
    let items = items(&document, previous.is_some())?;
    if document.get("background").and_then(Value::as_bool) == Some(true) {
        let message = "The simulator does nothing in the background.";
        return Err(Refusal::of("background", Some("unsupported_parameter"), message));
    }
    let max_tokens = document.get("max_output_tokens").and_then(Value::as_u64);
    if let Some(most) = max_tokens.filter(|&most| most < LEAST_OUTPUT) {
        let message = format!(
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got {most} instead."
        );
        return Err(Refusal::of("max_output_tokens", Some("integer_below_min_value"), message));
    }
    check_encrypted(&items, place)?;
    let last = items.last();
    let is_result = last.and_then(kind).is_some_and(|kind| kind.ends_with("_call_output"));
    let role = last.and_then(|item| string(item, "role")).unwrap_or_default();
    let is_streamed = purpose == Purpose::Answer && document.get("stream").and_then(Value::as_bool).unwrap_or(false);
    Ok(Ask {
        model,
        stream: is_streamed,
        choices: 1,
        max_tokens: max_tokens.and_then(|most| usize::try_from(most).ok()),
        last_role: if is_result { "tool".to_owned() } else { role },
        last_text: last.map(|item| texts(item).concat()).unwrap_or_default(),
        user: string(&document, "user"),
        service_tier: string(&document, "service_tier"),
        tool: tool(&document),
        format: format(&document),
        prompt_tokens: tokens(&document, &items) + previous.map_or(0, |previous| previous.tokens),
        reasoning: reasoning(&document),
        asked: document,
        ..Ask::default()
    })
}

/// Returns the response that a path names, if this listener made it.
pub fn find(store: &Store, place: usize, path: &str) -> Result<Arc<Response>, Refusal> {
    let id = path.rsplit('/').next().unwrap_or_default();
    let refusal = || Refusal::with(StatusCode::NOT_FOUND, format!("Response with id '{id}' not found."));
    store.find(place, id).ok_or_else(refusal)
}

fn string(of: &Value, name: &str) -> Option<String> {
    of.get(name).and_then(Value::as_str).map(str::to_owned)
}

fn kind(of: &Value) -> Option<&str> {
    of.get("type").and_then(Value::as_str)
}

/// Returns the response that the request continues. Another provider, or one that stores nothing, does not know it.
fn previous(store: &Store, document: &Value, place: usize) -> Result<Option<Arc<Response>>, Refusal> {
    let Some(id) = string(document, "previous_response_id") else { return Ok(None) };
    let message = format!("Previous response with id '{id}' not found.");
    let refusal = || Refusal::of("previous_response_id", Some("previous_response_not_found"), message);
    store.find(place, &id).map(Some).ok_or_else(refusal)
}

/// Returns the input as items: a text is a message of the user.
fn items(document: &Value, continues: bool) -> Result<Vec<Value>, Refusal> {
    match document.get("input") {
        Some(Value::String(text)) => Ok(vec![json!({"role": "user", "content": text})]),
        Some(Value::Array(items)) => Ok(items.clone()),
        Some(Value::Null) | None if continues => Ok(Vec::new()),
        Some(Value::Null) | None => {
            let message = "One of \"input\" or \"previous_response_id\" or 'prompt' or 'conversation_id' must be \
                           provided.";
            Err(Refusal::of("input", Some("missing_required_parameter"), message))
        }
        Some(_) => {
            let message = "Invalid type for 'input': expected one of an array of objects or string.";
            Err(Refusal::of("input", Some("invalid_type"), message))
        }
    }
}

/// Refuses reasoning that this provider did not encrypt, or whose summary was changed since.
fn check_encrypted(items: &[Value], place: usize) -> Result<(), Refusal> {
    for item in items.iter().filter(|item| kind(item) == Some("reasoning")) {
        let Some(encrypted) = item.get("encrypted_content").and_then(Value::as_str) else { continue };
        let parts = item.get("summary").and_then(Value::as_array).into_iter().flatten();
        let summary: String = parts.filter_map(|part| part.get("text").and_then(Value::as_str)).collect();
        if !seal::opens(place, &summary, encrypted) {
            let id = string(item, "id").unwrap_or_default();
            let message = format!("The encrypted content for item {id} could not be verified.");
            return Err(Refusal { code: Some("invalid_encrypted_content"), ..Refusal::bad(message) });
        }
    }
    Ok(())
}

/// Returns the texts of an item: its content, or the output of a tool.
fn texts(item: &Value) -> Vec<&str> {
    ["content", "output"].iter().filter_map(|name| item.get(*name)).flat_map(texts_of).collect()
}

fn texts_of(content: &Value) -> Vec<&str> {
    let parts = content.as_array().into_iter().flatten();
    let texts = parts.filter_map(|part| part.get("text").and_then(Value::as_str));
    content.as_str().into_iter().chain(texts).collect()
}

fn tokens(document: &Value, items: &[Value]) -> u64 {
    let length = |item| texts(item).iter().map(|text| text.len() as u64).sum::<u64>();
    let instructions = document.get("instructions").and_then(Value::as_str).map_or(0, |text| text.len() as u64);
    let bytes = instructions + items.iter().map(length).sum::<u64>();
    bytes.div_ceil(4) + TOKENS_PER_ITEM * items.len() as u64
}

/// Returns the tool that `tool_choice` names, or the first one that the client runs.
fn tool(document: &Value) -> Option<Tool> {
    let choice = document.get("tool_choice");
    if choice.and_then(Value::as_str) == Some("none") {
        return None;
    }
    let named = choice.and_then(|choice| choice.get("name")).and_then(Value::as_str);
    let is_wanted = |tool: &&Value| {
        matches!(kind(tool), Some("function" | "custom"))
            && (named.is_none() || tool.get("name").and_then(Value::as_str) == named)
    };
    let tool = document.get("tools")?.as_array()?.iter().find(is_wanted)?;
    Some(Tool {
        name: string(tool, "name")?,
        takes_text: kind(tool) == Some("custom"),
        parameters: tool.get("parameters").cloned().unwrap_or_else(|| json!({"type": "object"})),
    })
}

fn format(document: &Value) -> Format {
    let Some(format) = document.pointer("/text/format") else { return Format::Text };
    match (kind(format), format.get("schema")) {
        (Some("json_schema"), Some(schema)) => Format::JsonSchema(schema.clone()),
        (Some("json_schema" | "json_object"), _) => Format::JsonObject,
        _ => Format::Text,
    }
}

fn reasoning(document: &Value) -> Option<Wish> {
    let reasoning = document.get("reasoning").filter(|reasoning| reasoning.is_object())?;
    let includes = document.get("include").and_then(Value::as_array).into_iter().flatten();
    let sealed = includes.filter_map(Value::as_str).any(|included| included == "reasoning.encrypted_content");
    let shown = reasoning.get("summary").is_some_and(|summary| summary.is_string());
    (reasoning.get("effort").and_then(Value::as_str) != Some("none")).then_some(Wish { shown, sealed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(document: &Value) -> Result<Ask, Refusal> {
        read(&Store::default(), document.to_string().as_bytes(), 0, Purpose::Answer)
    }

    #[test]
    fn input_is_text_or_items() {
        let text = ask(&json!({"model": "m", "instructions": "1234", "input": "12345678", "stream": true})).unwrap();
        assert_eq!((text.last_role.as_str(), text.last_text.as_str(), text.prompt_tokens), ("user", "12345678", 6));
        assert!(text.stream);
        let items = json!([{"role": "user", "content": [{"type": "input_text", "text": "?"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "21 degrees"}]);
        let result = ask(&json!({"model": "m", "input": items})).unwrap();
        assert_eq!((result.last_role.as_str(), result.last_text.as_str()), ("tool", "21 degrees"));
    }

    #[test]
    fn what_is_required_is_missed() {
        let code = |document| ask(&document).unwrap_err().code;
        assert_eq!(code(json!({"input": "?"})), Some("missing_required_parameter"));
        assert_eq!(code(json!({"model": "m"})), Some("missing_required_parameter"));
        assert_eq!(code(json!({"model": "m", "input": 3})), Some("invalid_type"));
        assert_eq!(code(json!({"model": "m", "input": "?", "max_output_tokens": 15})), Some("integer_below_min_value"));
        assert_eq!(code(json!({"model": "m", "input": "?", "background": true})), Some("unsupported_parameter"));
        assert!(ask(&json!({"model": "m", "input": "?", "max_output_tokens": 16})).is_ok());
        assert!(read(&Store::default(), b"{", 0, Purpose::Answer).unwrap_err().message.starts_with("We could not"));
    }

    #[test]
    fn a_conversation_continues_where_it_began() {
        let store = Store::default();
        store.keep(Response { place: 0, id: "resp_1".to_owned(), document: String::new(), tokens: 40 });
        let body = json!({"model": "m", "input": "1234", "previous_response_id": "resp_1"}).to_string();
        assert_eq!(read(&store, body.as_bytes(), 0, Purpose::Answer).unwrap().prompt_tokens, 44);
        let refusal = read(&store, body.as_bytes(), 1, Purpose::Answer).unwrap_err();
        assert_eq!(refusal.code, Some("previous_response_not_found"));
        assert!(find(&store, 0, "/v1/responses/resp_1").is_ok());
        assert_eq!(find(&store, 1, "/v1/responses/resp_1").unwrap_err().status, StatusCode::NOT_FOUND);
    }

    #[test]
    fn encrypted_reasoning_comes_back_unchanged() {
        let back = |place| {
            let summary = json!([{"type": "summary_text", "text": "hm"}]);
            let encrypted = seal::seal(place, "hm");
            let item = json!({"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": encrypted});
            ask(&json!({"model": "m", "input": [item, {"role": "user", "content": "?"}]}))
        };
        assert!(back(0).is_ok());
        assert_eq!(back(1).unwrap_err().code, Some("invalid_encrypted_content"));
    }

    #[test]
    fn a_tool_is_one_that_the_client_runs() {
        let tools =
            json!([{"type": "web_search"}, {"type": "custom", "name": "patch"}, {"type": "function", "name": "f"}]);
        let chosen = |choice: Value| {
            ask(&json!({"model": "m", "input": "?", "tools": tools, "tool_choice": choice})).unwrap().tool
        };
        let first = chosen(json!("auto")).unwrap();
        assert_eq!((first.name.as_str(), first.takes_text), ("patch", true));
        assert_eq!(chosen(json!({"type": "function", "name": "f"})).unwrap().name, "f");
        assert!(chosen(json!("none")).is_none());
    }

    #[test]
    fn reasoning_is_shown_and_sealed_as_asked() {
        let wish = |more: Value| {
            let mut document = json!({"model": "m", "input": "?"});
            document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            ask(&document).unwrap().reasoning.map(|wish| (wish.shown, wish.sealed))
        };
        let include = json!(["reasoning.encrypted_content"]);
        assert_eq!(wish(json!({"reasoning": {"effort": "low"}})), Some((false, false)));
        assert_eq!(wish(json!({"reasoning": {"summary": "auto"}, "include": include})), Some((true, true)));
        assert_eq!(wish(json!({"reasoning": {"effort": "none"}})), None);
        assert_eq!(wish(json!({})), None);
    }
}
