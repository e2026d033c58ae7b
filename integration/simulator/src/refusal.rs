//! A request that a provider refuses, whatever the dialect in which it says so.

use hyper::StatusCode;

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: StatusCode,
    /// What is wrong.
    pub message: String,
    /// The parameter at fault, where the dialect names it.
    pub param: Option<String>,
    /// The provider's code for it, where the dialect has codes.
    pub code: Option<&'static str>,
}

impl Refusal {
    /// A refusal with a status of its own.
    pub fn with(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// A bad request.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::with(StatusCode::BAD_REQUEST, message)
    }

    /// A bad request for a parameter that is wrong.
    pub fn of(param: &str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), code, ..Self::bad(message) }
    }
}
