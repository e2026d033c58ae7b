//! How a request ends: what it is refused for, what a provider's failure becomes, and what the caller is told.

pub mod envoy_reply;
pub mod error_body;
#[allow(clippy::module_inception)] // The room is named after the enum that all of it is about.
pub mod outcome;
pub mod provider_error;
pub mod refusal;
pub mod reply;
