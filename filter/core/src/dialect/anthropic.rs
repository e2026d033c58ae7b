//! Anthropic's Messages. Source of the format: Anthropic's API reference, "Messages", "Count Message tokens" and
//! "Streaming messages".

pub mod count;
pub mod error;
pub mod kinds;
pub mod message;
pub mod object;
pub mod proof;
pub mod rate_limits;
pub mod read;
pub mod replay;
pub mod reply;
pub mod request;
pub mod stream;
pub mod transcript;
pub mod upstream;
pub mod usage;
