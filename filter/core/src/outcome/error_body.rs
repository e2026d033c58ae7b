//! An error for a caller, before it is written in the caller's dialect.

use crate::outcome::outcome::Outcome;

/// The contents of an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    /// HTTP status.
    pub status: u16,
    /// Its kind in OpenAI's terms: `type` of the error object.
    pub kind: &'static str,
    /// The code, which is also the reason in the metric and in the audit record.
    pub code: Outcome,
    /// The member of the request that is at fault.
    pub param: Option<String>,
    /// A message for people.
    pub message: String,
}

/// A provider's own description of its failure.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderMessage {
    /// A message for people.
    pub message: Option<String>,
    /// The member of the request that is at fault.
    pub param: Option<String>,
    /// What it means, where the gateway knows the provider's code or words: a code for the caller,
    /// [`Outcome::ProviderRefusedGateway`] or [`Outcome::ProviderRateLimited`].
    pub code: Option<Outcome>,
}
