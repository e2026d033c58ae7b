//! The codes of replies that Envoy sends before or without the module, for caller, record and metric.

use crate::outcome::outcome::Outcome;

/// Returns the `code` of an error reply that Envoy itself sends with this status. `pointsman render` writes it into
/// that reply.
pub fn outcome(status: u16) -> Outcome {
    match status {
        408 => Outcome::RequestTimeout,
        413 => Outcome::RequestTooLarge,
        431 => Outcome::RequestHeadersTooLarge,
        400..500 => Outcome::BadRequest,
        _ => Outcome::GatewayError,
    }
}
