//! OpenAI's chat completions and its smaller endpoints: requests in, documents and streams out.

pub mod audio;
pub mod completions;
pub mod embeddings;
mod error;
pub mod images;
pub mod moderations;
mod multipart;
mod request;
mod stream;
mod tokens;
mod whole;

pub use error::{error_document, refusal, server_error};
pub use request::{NOT_JSON, missing, read};
pub use stream::events;
pub use whole::document;

use serde_json::{Value, json};

/// Returns the list of models.
pub fn models(names: &[String], created: u64) -> Value {
    let data: Vec<Value> = names.iter().map(|name| model(name, created)).collect();
    json!({"object": "list", "data": data})
}

/// Returns one model.
pub fn model(name: &str, created: u64) -> Value {
    json!({"id": name, "object": "model", "created": created, "owned_by": "pointsman-simulator"})
}

/// Appends the usage object, if the answer has one.
fn put_usage(out: &mut Vec<u8>, usage: &crate::answer::Usage) {
    use crate::answer::Usage;
    match usage {
        Usage::Tokens { input, output, cached, cache_write, reasoning } => out.extend_from_slice(
            format!(
                r#"{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{cached},{}"audio_tokens":0}},"completion_tokens_details":{{"reasoning_tokens":{reasoning},"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}}}"#,
                input + output,
                if *cache_write > 0 { format!(r#""cache_write_tokens":{cache_write},"#) } else { String::new() },
            )
            .as_bytes(),
        ),
        Usage::Given(value) => {
            let _ = serde_json::to_writer(out, value);
        }
        Usage::Omit => out.extend_from_slice(b"null"),
    }
}
