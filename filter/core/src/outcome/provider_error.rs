//! Translates a provider's failure for the caller: the right status, without the provider's internals.
//!
//! Only an error that the caller can fix (a bad request) quotes the provider's message, with anything redacted that
//! looks like a key, an organisation, a project, a host or an address. Every other error has the gateway's own message.

use crate::outcome::error_body::{ErrorBody, ProviderMessage};
use crate::outcome::outcome::Outcome;
use crate::outcome::refusal::{OVERLOADED_RETRY_AFTER, Refusal};
use crate::wire::header::HeaderLine;

mod redaction;
use redaction::{is_field_path, redact};

/// Returns why Envoy answered itself or cut off an answer, from its `response.code_details`; `None` if it did neither.
pub fn cause(details: &str) -> Option<Outcome> {
    let starts = |prefix: &str| details.starts_with(prefix);
    if starts("upstream_per_try_timeout") {
        Some(Outcome::FirstTokenTimeout)
    } else if starts("upstream_response_timeout") || starts("response_timeout") {
        Some(Outcome::DeadlineExceeded)
    } else if starts("upstream_per_try_idle_timeout") || starts("stream_idle_timeout") {
        Some(Outcome::ChunkTimeout)
    } else if starts("downstream_") || starts("codec_error") || starts("http1.") || starts("http2.") {
        Some(Outcome::ClientDisconnected)
    } else if starts("upstream_reset") && details.contains("overflow") {
        Some(Outcome::ModelOverloaded)
    } else if starts("upstream_reset_after_response_started") {
        Some(Outcome::StreamReset)
    } else if starts("upstream_reset_before_response_started") {
        Some(Outcome::ProviderUnreachable)
    } else if starts("no_healthy_upstream") || starts("cluster_not_found") || starts("maintenance_mode") {
        Some(Outcome::NoHealthyProvider)
    } else if starts("route_not_found") || starts("no_cluster") {
        Some(Outcome::NoSuchPlan)
    } else if starts("response_payload_too_large") || starts("upstream_response_headers_too_large") {
        Some(Outcome::ResponseTooLarge)
    } else {
        None
    }
}

/// Returns whether Envoy answered before it sent the request to any provider, from its `response.code_details`.
pub fn is_unasked(details: &str) -> bool {
    matches!(cause(details), Some(Outcome::NoHealthyProvider | Outcome::NoSuchPlan | Outcome::ModelOverloaded))
}

/// Returns whether the caller may retry: not if the same request would be refused again.
pub fn may_retry(error: &ErrorBody) -> bool {
    !is_final(error.status, error.code) && error.code != Outcome::DeadlineExceeded
}

/// Returns whether the same request would be refused again, whoever sent it.
pub fn is_final(status: u16, code: Outcome) -> bool {
    !matches!(status, 408 | 409 | 429 | 500..=599) || code == Outcome::ProviderRefusedGateway
}

/// Returns `retry-after` if the models are overloaded. A full circuit breaker and the policy's own limit have the same
/// error.
pub fn retry_after(error: &ErrorBody) -> Option<HeaderLine> {
    (error.code == Outcome::ModelOverloaded).then(|| ("retry-after", OVERLOADED_RETRY_AFTER.into()))
}

/// Returns the error to send to the caller when a provider answered `status`, or Envoy did in place of a missing
/// answer, with its [`cause`]. `message` reads the provider's message; it is called only if that is quoted.
pub fn error_body(status: u16, cause: Option<Outcome>, message: impl FnOnce() -> ProviderMessage) -> ErrorBody {
    let told = |status, message: &str| {
        let code = cause.unwrap_or(Outcome::ProviderError);
        ErrorBody { status, kind: "server_error", code, param: None, message: message.to_owned() }
    };
    match cause {
        Some(Outcome::FirstTokenTimeout | Outcome::AttemptTimeout | Outcome::ChunkTimeout) => {
            told(504, "The model provider did not respond in time.")
        }
        Some(Outcome::DeadlineExceeded) => told(504, "The request exceeded its deadline."),
        Some(Outcome::ModelOverloaded) => Refusal::Overloaded.response(),
        Some(Outcome::ProviderUnreachable | Outcome::NoHealthyProvider) => {
            told(503, "The model provider is unavailable. Try again later.")
        }
        Some(Outcome::NoSuchPlan) => told(503, "The gateway is being reconfigured. Try again in a moment."),
        Some(Outcome::ResponseTooLarge) => told(502, "The model provider's response exceeds the gateway's size limit."),
        _ => by_status(status, message),
    }
}

/// Returns whether the caller gets the provider's message, because it can fix the request.
pub fn is_quoted(status: u16) -> bool {
    matches!(status, 400 | 404 | 405 | 413 | 415 | 422)
}

fn by_status(status: u16, message: impl FnOnce() -> ProviderMessage) -> ErrorBody {
    let server = |status, code, message: &str| ErrorBody {
        status,
        kind: "server_error",
        code,
        param: None,
        message: message.to_owned(),
    };
    match status {
        _ if is_quoted(status) => {
            let told = message();
            ErrorBody {
                status,
                kind: "invalid_request_error",
                code: Outcome::ProviderRejectedRequest,
                param: told.param.filter(|param| is_field_path(param)),
                message: told
                    .message
                    .map_or_else(|| "The model provider rejected the request.".to_owned(), |m| redact(&m)),
            }
        }
        // The provider's own 401 or 403 is about the gateway's credential, not the caller's.
        401..=403 => {
            server(502, Outcome::ProviderRefusedGateway, "The model provider rejected the gateway's credentials.")
        }
        408 | 504 => server(504, Outcome::ProviderTimeout, "The model provider did not respond in time."),
        429 => ErrorBody {
            status: 429,
            kind: "rate_limit_error",
            code: Outcome::ProviderRateLimited,
            param: None,
            message: "The model provider is receiving too many requests. Try again later.".to_owned(),
        },
        503 | 529 => server(503, Outcome::ProviderUnavailable, "The model provider is unavailable. Try again later."),
        500..=599 => server(502, Outcome::ProviderError, "The model provider failed."),
        _ => server(502, Outcome::ProviderUnexpectedStatus, "The model provider returned an unexpected response."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::client::ClientDialect;

    fn words(status: u16, cause: Option<Outcome>, body: &[u8]) -> ErrorBody {
        error_body(status, cause, || ClientDialect::OpenAi.read_error(body))
    }

    #[test]
    fn a_bad_request_keeps_the_providers_message_without_its_internals() {
        let body = br#"{"error":{"message":"Invalid 'temperature' for org-AbC123: ask https://internal.example.com or gpu-7.cluster.local:8000, key sk-proj-9.","param":"temperature","code":"x"}}"#;
        let words = words(400, None, body);
        assert_eq!((words.status, words.param.as_deref()), (400, Some("temperature")));
        assert_eq!(
            words.message,
            "Invalid 'temperature' for [redacted]: ask [redacted] or [redacted], key [redacted]."
        );
    }

    #[test]
    fn the_gateways_own_credential_is_not_the_callers_fault() {
        for status in [401, 403] {
            let told = words(status, None, br#"{"error":{"message":"Incorrect API key provided: sk-abc"}}"#);
            assert_eq!(told.status, 502);
            assert!(!told.message.contains("sk-"));
        }
        assert_eq!(words(429, None, b"").status, 429);
        assert_eq!(words(529, None, b"").status, 503);
        assert_eq!(words(500, None, b"<html>").status, 502);
        assert_eq!(words(418, None, b"").status, 502);
        assert_eq!(words(422, None, b"not json").message, "The model provider rejected the request.");
    }

    #[test]
    fn envoys_own_reasons_have_their_own_codes() {
        let told = |details| {
            let words = words(503, cause(details), b"");
            (words.status, words.code)
        };
        assert_eq!(told("upstream_per_try_timeout"), (504, Outcome::FirstTokenTimeout));
        assert_eq!(told("upstream_response_timeout"), (504, Outcome::DeadlineExceeded));
        assert_eq!(told("upstream_reset_before_response_started{overflow}"), (503, Outcome::ModelOverloaded));
        assert!(retry_after(&words(503, Some(Outcome::ModelOverloaded), b"")).is_some());
        assert!(retry_after(&words(503, None, b"")).is_none());
        assert_eq!(
            told("upstream_reset_before_response_started{connection_termination}"),
            (503, Outcome::ProviderUnreachable)
        );
        assert_eq!(told("no_healthy_upstream"), (503, Outcome::NoHealthyProvider));
        assert_eq!(told("via_upstream"), (503, Outcome::ProviderUnavailable));
        assert_eq!(cause("downstream_remote_disconnect"), Some(Outcome::ClientDisconnected));
        assert_eq!(cause("upstream_reset_after_response_started{remote_reset}"), Some(Outcome::StreamReset));
    }

    #[test]
    fn the_caller_is_told_when_waiting_will_not_help() {
        assert!(may_retry(&words(429, None, b"")) && may_retry(&words(503, None, b"")));
        assert!(!may_retry(&words(400, None, b"")) && !may_retry(&words(401, None, b"")));
    }
}
