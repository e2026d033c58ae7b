//! Envoy's own replies in the words of Anthropic's API, beside those in OpenAI's.

use serde_json::{Value, json};

/// Matches the paths of Anthropic's API, before and after the module has set the provider's.
const PATHS: &str = r".*/messages(/count_tokens)?(\?.*)?";

/// Returns a mapper of a reply with OpenAI's error `code` for requests of Anthropic's API: it must precede the other.
pub fn of_messages(mapper: &Value, code: &str, message: &str) -> Value {
    let (kind, status) = match code {
        "attempt_timeout" | "chunk_timeout" | "deadline_exceeded" => ("timeout_error", None),
        "provider_unreachable" => ("overloaded_error", Some(529)),
        "request_too_large" => ("request_too_large", None),
        "request_timeout" | "request_headers_too_large" | "bad_request" => ("invalid_request_error", None),
        _ => ("api_error", None),
    };
    let error = json!({"type": "error", "error": {"type": kind, "message": message, "code": code}});
    let path = json!({"name": ":path", "string_match": {"safe_regex": {"regex": PATHS}}});
    let mut of_messages = mapper.clone();
    let filter = of_messages["filter"].take();
    of_messages["filter"] = json!({"and_filter": {"filters": [{"header_filter": {"header": path}}, filter]}});
    of_messages["body_format_override"]["text_format_source"]["inline_string"] = error.to_string().into();
    if let Some(status) = status {
        of_messages["status_code"] = status.into();
    }
    of_messages
}
