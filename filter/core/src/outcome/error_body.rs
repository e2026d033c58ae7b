//! An error as a caller is told it, before it is written in the caller's dialect.

use crate::outcome::outcome::Outcome;

/// What the caller is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    /// HTTP status.
    pub status: u16,
    /// Its kind, by OpenAI's word: `type` of its error object.
    pub kind: &'static str,
    /// The code, which is the metric's and the audit record's reason too.
    pub code: Outcome,
    /// The member of the request that is at fault.
    pub param: Option<String>,
    /// For people.
    pub message: String,
}

/// What a provider says of its failure, as it says it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderMessage {
    /// For people.
    pub message: Option<String>,
    /// The member of the request that is at fault.
    pub param: Option<String>,
}
