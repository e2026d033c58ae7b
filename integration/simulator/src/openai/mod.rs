//! The OpenAI chat completions dialect: requests in, documents and streams out.

mod error;
mod request;
mod stream;
mod whole;

pub use error::{Refusal, error_document, server_error};
pub use request::read;
pub use stream::events;
pub use whole::document;

use serde_json::{Value, json};

/// What identifies one completion.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// Its id.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
}

/// Returns the list of models.
pub fn models(names: &[String], created: u64) -> Value {
    let data: Vec<Value> = names
        .iter()
        .map(|name| json!({"id": name, "object": "model", "created": created, "owned_by": "pointsman-simulator"}))
        .collect();
    json!({"object": "list", "data": data})
}

/// Appends `text` as a JSON string.
fn put_string(out: &mut Vec<u8>, text: &str) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// Appends the usage object, if the answer has one.
fn put_usage(out: &mut Vec<u8>, usage: &crate::answer::Usage) {
    use crate::answer::Usage;
    match usage {
        Usage::Tokens { input, output } => out.extend_from_slice(
            format!(
                r#"{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":0,"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#,
                input + output
            )
            .as_bytes(),
        ),
        Usage::Given(value) => {
            let _ = serde_json::to_writer(out, value);
        }
        Usage::Omit => out.extend_from_slice(b"null"),
    }
}
