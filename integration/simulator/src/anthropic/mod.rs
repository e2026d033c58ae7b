//! The Anthropic Messages dialect: requests in, documents and streams out.

mod error;
mod headers;
mod models;
mod request;
mod stream;
mod usage;
mod whole;

pub use error::{error_document, overloaded, refusal};
pub use headers::headers;
pub use models::{model, models};
pub use request::{Purpose, read};
pub use stream::{events, ping};
pub use whole::document;
