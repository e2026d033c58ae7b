//! The gateway's own replies.

use crate::outcome::error_body::ErrorBody;
use crate::outcome::outcome::Outcome;
use crate::outcome::refusal::{OVERLOADED_RETRY_AFTER, Refusal};
use crate::wire::header::HeaderLine;

/// Envoy's `response.code_details` for the module's own replies.
pub const REPLY_DETAILS: &str = "pointsman";

/// A whole response, which is final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers, without content-length.
    pub headers: Vec<HeaderLine>,
    /// Body.
    pub body: Vec<u8>,
    /// The refusal's code; `None` if the reply is not a refusal.
    pub code: Option<Outcome>,
}

impl Reply {
    /// Returns a refusal with its error, serialized as `body`.
    pub fn refusal(refusal: &Refusal, error: &ErrorBody, body: Vec<u8>) -> Self {
        let mut headers: Vec<HeaderLine> = vec![("content-type", "application/json".into())];
        match refusal {
            Refusal::WrongMethod(allowed) => headers.push(("allow", (*allowed).into())),
            Refusal::MissingKey | Refusal::UnknownKey | Refusal::ExpiredKey => {
                headers.push(("www-authenticate", "Bearer".into()));
            }
            Refusal::Overloaded | Refusal::ShareTaken | Refusal::TooManyUploads => {
                headers.push(("retry-after", OVERLOADED_RETRY_AFTER.into()))
            }
            Refusal::Quota(exhausted) => headers.extend(exhausted.headers.iter().cloned()),
            _ => {}
        }
        Self { status: error.status, headers, body, code: Some(error.code) }
    }

    /// Returns the answer to `GET /healthz`.
    pub fn healthy() -> Self {
        let headers = vec![("content-type", "application/json".into())];
        Self { status: 200, headers, body: b"{\"status\":\"ok\"}".to_vec(), code: None }
    }

    /// Returns a JSON document with status 200.
    pub fn json(body: Vec<u8>) -> Self {
        Self { status: 200, headers: vec![("content-type", "application/json".into())], body, code: None }
    }
}
