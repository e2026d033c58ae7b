//! Reads what a provider says of its failure: its message, the field at fault, and its code.
//!
//! Servers that speak OpenAI's dialect have errors of many shapes. Sources: the API references of OpenAI, Azure,
//! Anthropic, Gemini, Mistral and Cohere, and the error handlers of vLLM, SGLang, TGI, llama.cpp, Ollama and FastAPI.

use crate::dialect::openai::provider_words;
use crate::outcome::error_body::ProviderMessage;
use crate::wire::sse::{self, EventCutter, Piece};
use serde_json::Value;

/// Members that hold a message, or an object that does. The first one that says something counts: `error` may be the
/// object with the message, the message itself, or only its title.
const WORDS: [&str; 12] = [
    "message",
    "msg",
    "detail",
    "error_msg",
    "error_message",
    "status_msg",
    "Message",
    "error",
    "errors",
    "base_resp",
    "details",
    "title",
];

/// Members that hold a code, or an object that does, from the most to the least exact.
const CODES: [&str; 8] = ["code", "reason", "type", "status", "error_type", "error", "errors", "details"];

/// Deepest nesting of the members above.
const DEPTH: u32 = 4;

/// Most messages of a list that are read, and most of its codes.
const LIST: usize = 4;

/// Longest body that is quoted as it is, in bytes.
const PLAIN: usize = 2000;

/// Reads the body of a failure, or a stream that begins with an error event.
pub fn read(body: &[u8]) -> ProviderMessage {
    let body = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body).trim_ascii();
    let document = serde_json::from_slice::<Value>(body).ok().or_else(|| in_stream(body));
    let (message, param, codes) = match &document {
        Some(document) => {
            let mut codes = Vec::new();
            gather_codes(document, DEPTH, &mut codes);
            (words(document, DEPTH), param(document, DEPTH), codes)
        }
        None => (plain(body), None, Vec::new()),
    };
    let code = codes.iter().find_map(|code| provider_words::code(code));
    let code = code.or_else(|| provider_words::said(message.as_deref()?));
    ProviderMessage { message, param, code }
}

/// Returns the first document with an error or a message in a stream: the data of an event, or an object in a line that
/// is no field.
fn in_stream(stream: &[u8]) -> Option<Value> {
    let mut found = None;
    let mut cutter = EventCutter::default();
    cutter.push(&[stream, b"\n\n"].concat(), |piece| {
        let Piece::Event(event) = piece else { return };
        found = found.take().or_else(|| {
            let data = sse::data(event);
            let text = if data.is_empty() { event } else { &data };
            let object = text.get(memchr::memchr(b'{', text)?..)?;
            let document = serde_json::Deserializer::from_slice(object).into_iter::<Value>().next()?.ok()?;
            (document.get("error").is_some() || words(&document, DEPTH).is_some()).then_some(document)
        });
    });
    found
}

/// Returns a body that is neither JSON nor a page.
fn plain(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    (!text.is_empty() && text.len() <= PLAIN && !text.starts_with(['{', '[', '<'])).then(|| text.to_owned())
}

fn words(value: &Value, depth: u32) -> Option<String> {
    let deeper = depth.checked_sub(1)?;
    match value {
        Value::String(text) => (!text.trim().is_empty()).then(|| text.trim().to_owned()),
        Value::Array(all) => {
            let all: Vec<_> = all.iter().take(LIST).filter_map(|one| words(one, deeper)).collect();
            (!all.is_empty()).then(|| all.join("; "))
        }
        Value::Object(object) => {
            let message = WORDS.iter().filter_map(|name| object.get(*name)).find_map(|value| words(value, deeper))?;
            Some(match path(object.get("loc")) {
                Some(path) => format!("{path}: {message}"),
                None => message,
            })
        }
        _ => None,
    }
}

/// Returns the path of the field in FastAPI's `loc`: `messages.0.content` for `["body","messages",0,"content"]`.
fn path(loc: Option<&Value>) -> Option<String> {
    let parts = loc?.as_array()?.iter().take(16).filter_map(|part| match part {
        Value::String(name) => Some(name.clone()),
        Value::Number(index) => Some(index.to_string()),
        _ => None,
    });
    let parts: Vec<_> =
        parts.enumerate().filter(|(at, part)| *at > 0 || part != "body").map(|(_, part)| part).collect();
    (!parts.is_empty()).then(|| parts.join("."))
}

fn param(value: &Value, depth: u32) -> Option<String> {
    let deeper = depth.checked_sub(1)?;
    match value {
        Value::Array(all) => all.iter().take(LIST).find_map(|one| param(one, deeper)),
        Value::Object(object) => {
            let own = object.get("param").and_then(Value::as_str).map(str::to_owned);
            let inner =
                || ["error", "detail"].iter().filter_map(|name| object.get(*name)).find_map(|v| param(v, deeper));
            own.or_else(|| path(object.get("loc"))).or_else(inner)
        }
        _ => None,
    }
}

/// Gathers the texts in the members that hold codes, in the order of [`CODES`], inner objects last.
fn gather_codes<'a>(value: &'a Value, depth: u32, codes: &mut Vec<&'a str>) {
    let Some(deeper) = depth.checked_sub(1) else { return };
    match value {
        Value::Array(all) => all.iter().take(LIST).for_each(|one| gather_codes(one, deeper, codes)),
        Value::Object(object) => {
            for value in CODES.iter().filter_map(|name| object.get(*name)) {
                match value {
                    Value::String(code) => codes.push(code),
                    inner => gather_codes(inner, deeper, codes),
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> (Option<String>, Option<String>, Option<&'static str>) {
        let ProviderMessage { message, param, code } = read(body.as_bytes());
        (message, param, code.map(|code| code.code()))
    }

    fn message(body: &str) -> String {
        told(body).0.unwrap_or_default()
    }

    #[test]
    fn a_message_is_found_in_every_shape() {
        for body in [
            r#"{"error":{"message":"No.","type":"invalid_request_error","param":null,"code":null}}"#,
            r#"[{"error":{"code":400,"message":"No.","status":"INVALID_ARGUMENT"}}]"#,
            r#"{"object":"error","message":"No.","type":"BadRequestError","param":null,"code":400}"#,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"No."},"request_id":"req_1"}"#,
            r#"{"detail":"No."}"#,
            r#"{"detail":[{"msg":"No.","type":"missing"}]}"#,
            r#"{"detail":{"error":"No."}}"#,
            r#"{"error":"No."}"#,
            r#"{"error":"No.","error_type":"validation"}"#,
            r#"{"error":["No."]}"#,
            r#"{"message":"No."}"#,
            r#"{"error":"Bad Request","message":"No.","status":400}"#,
            r#"{"Message":"No."}"#,
            r#"{"error_code":336501,"error_msg":"No."}"#,
            r#"{"base_resp":{"status_code":1008,"status_msg":"No."}}"#,
            r#"{"errors":[{"message":"No.","code":5007}],"success":false}"#,
            r#"{"code":1302,"msg":"No."}"#,
            r#"{"title":"Bad Request","detail":"No.","status":400}"#,
            r#"{"error":{"message":null,"detail":"No."}}"#,
            r#""No.""#,
            "No.",
            "\u{feff} {\"error\":\"No.\"}\n",
            "data: {\"error\":{\"message\":\"No.\",\"code\":400}}\n\n",
            ": wait\n\nevent: error\ndata: {\"error\":\"No.\"}\n\ndata: [DONE]\n\n",
            "data: {\"type\":\"ping\"}\n\ndata: {\"detail\":\"No.\"}\n\n",
            "error: {\"code\":500,\"message\":\"No.\"}\n\n",
        ] {
            assert_eq!(message(body), "No.", "{body}");
        }
    }

    #[test]
    fn what_is_no_message_is_not_quoted() {
        for body in ["", "{}", "[]", "null", "7", "<html>502</html>", r#"{"error":{"mess"#, r#"{"error":" "}"#] {
            assert_eq!(told(body), (None, None, None), "{body}");
        }
        assert_eq!(told(&"x".repeat(PLAIN + 1)).0, None);
        assert_eq!(read(b"\xff\xfe").message, None);
        let deep = format!("{}1{}", r#"{"error":"#.repeat(60), "}".repeat(60));
        assert_eq!(told(&deep), (None, None, None));
    }

    #[test]
    fn a_field_is_named() {
        let body = r#"{"detail":[{"type":"missing","loc":["body","messages",0,"content"],"msg":"Field required","input":{}},
            {"loc":["body"],"msg":"Extra"}]}"#;
        let (message, param, _) = told(body);
        assert_eq!(message.unwrap(), "messages.0.content: Field required; Extra");
        assert_eq!(param.unwrap(), "messages.0.content");
        let body = r#"{"error":{"message":"x","param":"temperature"}}"#;
        assert_eq!(told(body).1.unwrap(), "temperature");
    }

    #[test]
    fn a_known_code_is_found_wherever_it_stands() {
        for (body, code) in [
            (r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#, "context_length_exceeded"),
            (r#"{"error":{"code":400,"message":"x","type":"exceed_context_size_error"}}"#, "context_length_exceeded"),
            (r#"{"error":{"message":"x","code":"content_filter","status":400}}"#, "content_filter"),
            (r#"{"error":{"message":"x","code":"unsupported_value","param":"temperature"}}"#, "unsupported_value"),
            (r#"{"error":{"message":"x","code":"invalid_image_url"}}"#, "invalid_image_url"),
            (
                r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.",
                "status":"INVALID_ARGUMENT","details":[{"@type":"x","reason":"API_KEY_INVALID"}]}}]"#,
                "provider_refused_gateway",
            ),
            (
                r#"{"object":"error","message":"Invalid model: x","type":"invalid_model","code":"1500"}"#,
                "provider_refused_gateway",
            ),
            (
                r#"{"error":{"message":"too large","type":"tokens","code":"rate_limit_exceeded"}}"#,
                "provider_rate_limited",
            ),
            // Words alone.
            (r#"{"error":"the input length exceeds the context length"}"#, "context_length_exceeded"),
        ] {
            assert_eq!(told(body).2, Some(code), "{body}");
        }
        for body in [
            r#"{"error":{"message":"x","code":"made_up"}}"#,
            r#"{"error":{"message":"x","code":"client_disconnected"}}"#,
            r#"{"code":{"code":{"code":{"code":{"code":"content_filter"}}}}}"#,
        ] {
            assert_eq!(told(body).2, None, "{body}");
        }
    }
}
