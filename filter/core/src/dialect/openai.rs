//! OpenAI's chat completions. Source of the format: OpenAI's API reference, "Create chat completion".

pub mod completion;
pub mod frame;
pub mod request;
pub mod transcript;
pub mod upstream;
