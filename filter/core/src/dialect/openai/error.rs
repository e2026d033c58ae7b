//! Errors in OpenAI's shape: `{"error":{message,type,param,code}}`.

use crate::outcome::error_body::ErrorBody;
use crate::outcome::outcome::Outcome;
use serde_json::json;

/// Returns the body of an error response.
pub fn body(error: &ErrorBody) -> Vec<u8> {
    let ErrorBody { status: _, kind, code, param, message } = error;
    let error = json!({"error": {"message": message, "type": kind, "param": param, "code": code.code()}});
    error.to_string().into_bytes()
}

/// Returns the last event of a broken stream: the error object, without `[DONE]`.
pub fn event(code: Outcome) -> Vec<u8> {
    let message = match code {
        Outcome::StreamError => "The model provider reported an error mid-stream.",
        Outcome::StreamMalformed => "The model provider sent an event that could not be parsed.",
        _ => "The model provider ended the stream before it was complete.",
    };
    let error = json!({"error": {"message": message, "type": "server_error", "param": null, "code": code.code()}});
    format!("data: {error}\n\n").into_bytes()
}
