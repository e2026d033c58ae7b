//! Answers that the gateway gives itself.

use crate::outcome::error_body::ErrorBody;
use crate::outcome::outcome::Outcome;
use crate::outcome::refusal::{OVERLOADED_RETRY_AFTER, Refusal};
use crate::wire::header::HeaderLine;

/// Envoy's `response.code_details` of the module's own replies.
pub const REPLY_DETAILS: &str = "pointsman";

/// A whole response. Once given it is final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers, without content-length.
    pub headers: Vec<HeaderLine>,
    /// Body.
    pub body: Vec<u8>,
    /// The refusal's code; `None` for an answer that is no refusal.
    pub code: Option<Outcome>,
}

impl Reply {
    /// A refusal, its error written as `body` writes it.
    pub fn refusal(refusal: &Refusal, body: impl FnOnce(&ErrorBody) -> Vec<u8>) -> Self {
        let error = refusal.response();
        let mut headers: Vec<HeaderLine> = vec![("content-type", "application/json".into())];
        match refusal {
            Refusal::WrongMethod(allowed) => headers.push(("allow", (*allowed).into())),
            Refusal::MissingKey | Refusal::UnknownKey | Refusal::ExpiredKey => {
                headers.push(("www-authenticate", "Bearer".into()));
            }
            Refusal::Overloaded => headers.push(("retry-after", OVERLOADED_RETRY_AFTER.into())),
            Refusal::Quota(exhausted) => headers.extend(exhausted.headers.iter().cloned()),
            _ => {}
        }
        Self { status: error.status, headers, body: body(&error), code: Some(error.code) }
    }

    /// `GET /healthz`
    pub fn healthy() -> Self {
        let headers = vec![("content-type", "application/json".into())];
        Self { status: 200, headers, body: b"{\"status\":\"ok\"}".to_vec(), code: None }
    }

    /// A document.
    pub fn json(body: Vec<u8>) -> Self {
        Self { status: 200, headers: vec![("content-type", "application/json".into())], body, code: None }
    }
}
