//! The policy that most tests share, and the gateway that runs it.

use pointsman_integration::gateway::{Gateway, Shared};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Providers: vllm and ollama are local, openai and azure are hosted. Some test needs each model, tier and tenant.
pub const POLICY: &str = include_str!("standard.yaml");

/// Returns the gateway with [`POLICY`] that tests share. They tell their requests apart by trace ids and by marks in
/// prompts.
pub fn gateway() -> Shared {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| Gateway::start(POLICY));
    Shared::of(&GATEWAY)
}

/// Returns a request for `model` with this prompt.
pub fn ask(model: &str, prompt: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": prompt}]})
}

/// Returns a request for `model` that makes the provider behave like this.
pub fn scripted(model: &str, behavior: &Value) -> Value {
    ask(model, &format!("[[sim:{behavior}]]"))
}

/// Returns the same request as a stream.
pub fn streamed(model: &str, behavior: &Value) -> Value {
    let mut request = scripted(model, behavior);
    request["stream"] = true.into();
    request
}
