//! What Envoy answers before the module was asked, or without it: the codes that caller, record and metric have for it.

use crate::outcome::outcome::Outcome;

/// `code` of an error that Envoy answers by itself with this status. `pointsman render` writes it into the answer.
pub fn outcome(status: u16) -> Outcome {
    match status {
        408 => Outcome::RequestTimeout,
        413 => Outcome::RequestTooLarge,
        431 => Outcome::RequestHeadersTooLarge,
        400..500 => Outcome::BadRequest,
        _ => Outcome::GatewayError,
    }
}
