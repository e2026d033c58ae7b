//! How a request ends: the reasons to refuse it, the translation of a provider's failure, and the reply to the caller.

pub mod envoy_reply;
pub mod error_body;
#[allow(clippy::module_inception)] // The room is named after the enum that all of it is about.
pub mod outcome;
pub mod provider_error;
pub mod refusal;
pub mod reply;
