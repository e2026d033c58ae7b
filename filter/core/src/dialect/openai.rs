//! OpenAI's chat completions. Source of the format: OpenAI's API reference, "Create chat completion".

pub mod completion;
pub mod error;
pub mod failure;
pub mod proof;
pub mod provider_error;
pub mod provider_words;
pub mod rate_limits;
pub mod read;
pub mod replay;
pub mod reply;
pub mod request;
pub mod stream;
pub mod streamable;
pub mod transcript;
pub mod upstream;
pub mod usage;
