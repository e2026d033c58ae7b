//! How a request ends: the reasons to refuse it, the translation of a provider's failure, and the reply to the caller.

pub mod blame;
pub mod envoy_reply;
pub mod error_body;
#[allow(clippy::module_inception)] // The module is named after its main enum.
pub mod outcome;
pub mod provider_error;
pub mod refusal;
pub mod reply;
