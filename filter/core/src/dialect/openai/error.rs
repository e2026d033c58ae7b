//! Errors in OpenAI's shape: `{"error":{message,type,param,code}}`.

use crate::outcome::error_body::{ErrorBody, ProviderMessage};
use crate::outcome::outcome::Outcome;
use crate::wire::json::{InvalidJson, Kind, Scanner, Span, unquote};
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

/// Reads `{"error":{"message":…,"param":…}}`, and vLLM's older `{"message":…}`.
pub fn read(body: &[u8]) -> ProviderMessage {
    let mut told = ProviderMessage::default();
    let mut scanner = Scanner::new(body, 64);
    let _ = scanner.object(|s, key| match s.bytes(&key) {
        b"\"error\"" if s.peek()? == Kind::Object => s.object(|s, key| field(s, &key, &mut told)),
        _ => field(s, &key, &mut told),
    });
    told
}

fn field(s: &mut Scanner, key: &Span, told: &mut ProviderMessage) -> Result<(), InvalidJson> {
    let key = s.bytes(key);
    let value = s.value()?;
    let text = || unquote(s.bytes(&value.span)).map(std::borrow::Cow::into_owned);
    if value.kind == Kind::String {
        match key {
            b"\"message\"" => told.message = text(),
            b"\"param\"" => told.param = text(),
            _ => {}
        }
    }
    Ok(())
}
