//! Errors in Anthropic's shape: `{"type":"error","error":{type,message},"request_id"}`.

use crate::dialect::anthropic::kinds;
use crate::outcome::error_body::ErrorBody;
use crate::outcome::outcome::Outcome;
use serde_json::json;

/// How Anthropic's API begins the message about a prompt that is too long. Claude Code looks for these words, and
/// shortens the conversation.
const TOO_LONG: &str = "prompt is too long";

/// Returns the error with Anthropic's status and words for it.
pub fn adapted(error: ErrorBody) -> ErrorBody {
    let status = match error.status {
        503 => 529,
        // A provider that refuses the gateway stays a matter of the gateway.
        502 if error.code != Outcome::ProviderRefusedGateway => 500,
        status => status,
    };
    let is_too_long = error.code == Outcome::ContextLengthExceeded && !error.message.starts_with(TOO_LONG);
    let message = if is_too_long { format!("{TOO_LONG}: {}", error.message) } else { error.message };
    ErrorBody { status, message, ..error }
}

/// Returns the body of an error response.
pub fn body(error: &ErrorBody, request_id: &str) -> Vec<u8> {
    let ErrorBody { status, kind: _, code, param: _, message } = error;
    let kind = kinds::of_status(*status);
    let error = json!({"type": "error", "error": {"type": kind, "message": message, "code": code.code()},
        "request_id": request_id});
    error.to_string().into_bytes()
}

/// Returns the last event of a broken stream. The client libraries take a stream that merely ends for a whole one.
pub fn event(code: Outcome) -> Vec<u8> {
    let message = match code {
        Outcome::StreamError => "The model provider reported an error mid-stream.",
        Outcome::StreamMalformed => "The model provider sent an event that could not be parsed.",
        _ => "The model provider ended the stream before it was complete.",
    };
    let error = json!({"type": "error", "error": {"type": "api_error", "message": message, "code": code.code()}});
    format!("event: error\ndata: {error}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn error(status: u16, code: Outcome, message: &str) -> ErrorBody {
        ErrorBody { status, kind: "server_error", code, param: None, message: message.to_owned() }
    }

    #[test]
    fn an_error_has_anthropics_status_and_kind() {
        for (status, code, adapted_status, kind) in [
            (401, Outcome::InvalidApiKey, 401, "authentication_error"),
            (429, Outcome::ProviderRateLimited, 429, "rate_limit_error"),
            (502, Outcome::ProviderError, 500, "api_error"),
            (502, Outcome::ProviderRefusedGateway, 502, "api_error"),
            (503, Outcome::ModelOverloaded, 529, "overloaded_error"),
            (504, Outcome::ProviderTimeout, 504, "timeout_error"),
        ] {
            let error = adapted(error(status, code, "No."));
            assert_eq!(error.status, adapted_status);
            let body: Value = serde_json::from_slice(&body(&error, "req-1")).unwrap();
            assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!(kind)));
            assert_eq!((&body["error"]["message"], &body["request_id"]), (&json!("No."), &json!("req-1")));
        }
    }

    #[test]
    fn a_prompt_that_is_too_long_is_told_in_anthropics_words() {
        let told = |message| adapted(error(400, Outcome::ContextLengthExceeded, message)).message;
        assert_eq!(told("prompt is too long: 9 tokens > 8 maximum"), "prompt is too long: 9 tokens > 8 maximum");
        assert_eq!(told("Maximum context length is 8."), "prompt is too long: Maximum context length is 8.");
    }

    #[test]
    fn a_broken_stream_ends_with_an_error_event() {
        let event = String::from_utf8(event(Outcome::StreamTruncated)).unwrap();
        assert!(event.starts_with("event: error\ndata: {") && event.ends_with("}\n\n"), "{event}");
        assert!(event.contains("\"code\":\"stream_truncated\""), "{event}");
    }
}
