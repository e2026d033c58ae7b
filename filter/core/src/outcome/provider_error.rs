//! Translates a provider's failure for the caller: the right status, without the provider's internals.
//!
//! Only an error that the caller can fix (a bad request) quotes the provider's message, with anything redacted that
//! looks like a key, an organisation, a project, a host or an address. Every other error has the gateway's own message.

use crate::outcome::blame::Blame;
use crate::outcome::error_body::{ErrorBody, ProviderMessage};
use crate::outcome::outcome::Outcome;
use crate::outcome::refusal::{OVERLOADED_RETRY_AFTER, Refusal};
use crate::routing::attempt::OF_ONE_REQUEST;
use crate::wire::header::HeaderLine;

mod redaction;
pub use redaction::CallersOwn;
use redaction::{is_field_path, redact};

/// Judges a failure's status and what its body says: the code that the dialect's reader found.
pub fn blame(status: u16, code: Option<Outcome>) -> Blame {
    match (Blame::of_status(status), code) {
        (Blame::Request, Some(Outcome::ContextLengthExceeded)) => Blame::Context,
        // A rate limit that this one request exceeds is the account's. Waiting does not help.
        (Blame::Request, Some(Outcome::ProviderRefusedGateway | Outcome::ProviderRateLimited)) => Blame::Gateway,
        // An account without credit.
        (Blame::Provider, Some(Outcome::ProviderRefusedGateway)) if status == 429 => Blame::Gateway,
        (blame, _) => blame,
    }
}

/// Judges an error that came in place of an answer. It has a status only if it names one, so what it says counts more.
pub fn blame_of_error(status: u16, code: Option<Outcome>) -> Blame {
    match code {
        Some(Outcome::ContextLengthExceeded) => Blame::Context,
        Some(Outcome::ProviderRefusedGateway) => Blame::Gateway,
        _ => blame(status, code),
    }
}

/// Returns the outcome to record for an attempt that failed with `otherwise`, when its failure means `told`.
pub fn recorded(told: Outcome, otherwise: Outcome) -> Outcome {
    match otherwise {
        // The status already says so.
        Outcome::Status(status) if Blame::of_status(status) == Blame::Gateway => otherwise,
        _ if says_more_than_a_status(told) => told,
        _ => otherwise,
    }
}

/// Returns the outcome that a failure of this blame means, if that says more than its status.
pub fn meaning(blame: Blame) -> Option<Outcome> {
    match blame {
        Blame::Context => Some(Outcome::ContextLengthExceeded),
        Blame::Gateway => Some(Outcome::ProviderRefusedGateway),
        Blame::Request | Blame::Provider => None,
    }
}

/// Returns whether an outcome of an attempt says more than its status did, and the caller is told so.
pub fn says_more_than_a_status(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::ContextLengthExceeded | Outcome::ProviderRefusedGateway)
}

/// Returns the status and the cause of a failure that the caller is told, from those of the response that arrived and
/// the failure of the last attempt. `is_envoys`: Envoy wrote the response.
pub fn told_by_last_attempt(
    status: u16,
    cause: Option<Outcome>,
    last: Option<Outcome>,
    is_envoys: bool,
) -> (u16, Option<Outcome>) {
    match last {
        // No model is left that could be asked, so the last failure is the answer.
        Some(Outcome::Status(last)) if cause == Some(Outcome::NoHealthyProvider) => (last, None),
        Some(last) if cause == Some(Outcome::NoHealthyProvider) && says_more_than_a_status(last) => (400, Some(last)),
        Some(last) if !is_envoys && says_more_than_a_status(last) => (status, Some(last)),
        // The model stage's status. A provider's own 424 is recorded as such.
        Some(last) if !is_envoys && status == OF_ONE_REQUEST && !matches!(last, Outcome::Status(_)) => (502, cause),
        _ => (status, cause),
    }
}

/// Returns why Envoy answered itself or cut off an answer, from its `response.code_details`; `None` if it did neither.
pub fn cause(details: &str) -> Option<Outcome> {
    let starts = |prefix: &str| details.starts_with(prefix);
    if starts("upstream_per_try_timeout") {
        Some(Outcome::FirstTokenTimeout)
    } else if starts("upstream_response_timeout") || starts("response_timeout") || is_deadline(details) {
        Some(Outcome::DeadlineExceeded)
    } else if starts("upstream_per_try_idle_timeout") || starts("stream_idle_timeout") {
        Some(Outcome::ChunkTimeout)
    } else if starts("downstream_local_disconnect(buffer_high_watermark_timeout") {
        Some(Outcome::ClientSlow)
    } else if starts("downstream_local_disconnect") {
        // Envoy closes all connections when it exits. It has no other reason to close one with a request.
        Some(Outcome::GatewayShutdown)
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

/// Returns whether the exchange ended at its own deadline, from Envoy's `response.code_details`. The other timers are
/// the policy's.
pub fn is_deadline(details: &str) -> bool {
    details == "max_duration_timeout"
}

/// Returns whether Envoy answered before it sent the request to any provider, from its `response.code_details`.
pub fn is_unasked(details: &str) -> bool {
    matches!(cause(details), Some(Outcome::NoHealthyProvider | Outcome::NoSuchPlan | Outcome::ModelOverloaded))
}

/// Returns whether the caller may retry: not if the same request would be refused again.
pub fn may_retry(error: &ErrorBody) -> bool {
    !is_final(error.status, error.code) && error.code != Outcome::DeadlineExceeded
}

/// Returns whether the same request would be refused again, from any caller.
pub fn is_final(status: u16, code: Outcome) -> bool {
    !matches!(status, 408 | 409 | 429 | 500..=599) || code == Outcome::ProviderRefusedGateway
}

/// Returns `retry-after` if the models are overloaded. A full circuit breaker and the policy's own limit have the same
/// error.
pub fn retry_after(error: &ErrorBody) -> Option<HeaderLine> {
    (error.code == Outcome::ModelOverloaded).then(|| ("retry-after", OVERLOADED_RETRY_AFTER.into()))
}

/// Returns the error to send to the caller when a provider answered `status`, or Envoy did in place of a missing
/// answer, with its [`cause`]; or the cause is what the model stage has recorded. `message` reads the provider's
/// message; it is called only if the message counts. `own`: what the caller may see of it.
pub fn error_body(
    status: u16,
    cause: Option<Outcome>,
    own: &CallersOwn,
    message: impl FnOnce() -> ProviderMessage,
) -> ErrorBody {
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
        // An answer that was put together from a stream.
        Some(Outcome::StreamError) => told(502, "The model provider reported an error in the middle of its response."),
        Some(Outcome::StreamMalformed) => told(502, "The model provider sent a response that could not be read."),
        Some(Outcome::StreamTruncated) => told(502, "The model provider ended its response before it was complete."),
        Some(Outcome::ContextLengthExceeded) => quoted(400, Outcome::ContextLengthExceeded, message(), own),
        Some(Outcome::ProviderRefusedGateway) => refused(status),
        _ => by_status(status, own, message),
    }
}

/// Returns whether the body of a failure counts for what the caller is told: it may quote the provider's message.
pub fn is_read(status: u16) -> bool {
    Blame::of_status(status) == Blame::Request
}

fn by_status(status: u16, own: &CallersOwn, message: impl FnOnce() -> ProviderMessage) -> ErrorBody {
    let server = |status, code, message: &str| ErrorBody {
        status,
        kind: "server_error",
        code,
        param: None,
        message: message.to_owned(),
    };
    let told = match status {
        400 | 413 | 422 | 429 => message(),
        _ => ProviderMessage::default(),
    };
    match (blame(status, told.code), status) {
        (Blame::Context, _) => quoted(400, Outcome::ContextLengthExceeded, told, own),
        (Blame::Request, _) => {
            let code = told.code.unwrap_or(Outcome::ProviderRejectedRequest);
            quoted(status, code, told, own)
        }
        (Blame::Gateway, _) => refused(status),
        (Blame::Provider, 408 | 504) => {
            server(504, Outcome::ProviderTimeout, "The model provider did not respond in time.")
        }
        (Blame::Provider, 429) => ErrorBody {
            status: 429,
            kind: "rate_limit_error",
            code: Outcome::ProviderRateLimited,
            param: None,
            message: "The model provider is receiving too many requests. Try again later.".to_owned(),
        },
        (Blame::Provider, 503 | 529) => {
            server(503, Outcome::ProviderUnavailable, "The model provider is unavailable. Try again later.")
        }
        (Blame::Provider, 500..=599) => server(502, Outcome::ProviderError, "The model provider failed."),
        (Blame::Provider, _) => {
            server(502, Outcome::ProviderUnexpectedStatus, "The model provider returned an unexpected response.")
        }
    }
}

/// Returns the error for a provider that refused the gateway.
fn refused(status: u16) -> ErrorBody {
    let message = match status {
        404 | 405 | 410 => {
            "The model provider does not know the path or the model id in the gateway's policy. The gateway's operator \
             must correct it."
        }
        _ => {
            "The model provider rejected the gateway's credential, account or configuration, not this request. The \
             gateway's operator must correct it."
        }
    };
    ErrorBody {
        status: 502,
        kind: "server_error",
        code: Outcome::ProviderRefusedGateway,
        param: None,
        message: message.to_owned(),
    }
}

/// Returns an error that the caller can mend, in the provider's words.
fn quoted(status: u16, code: Outcome, told: ProviderMessage, own: &CallersOwn) -> ErrorBody {
    ErrorBody {
        status,
        kind: "invalid_request_error",
        code,
        param: told.param.filter(|param| is_field_path(param)),
        message: told.message.map_or_else(|| unexplained(code).to_owned(), |message| redact(&message, own)),
    }
}

/// Returns what the caller is told where the provider says nothing.
fn unexplained(code: Outcome) -> &'static str {
    match code {
        Outcome::ContextLengthExceeded => {
            "The request exceeds the model's maximum context length. Please reduce the length of the messages."
        }
        _ => "The model provider rejected the request.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::client::ClientDialect;

    fn words(status: u16, cause: Option<Outcome>, body: &[u8]) -> ErrorBody {
        error_body(status, cause, &CallersOwn::default(), || ClientDialect::OpenAi.read_error(body))
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
        for status in [301, 401, 402, 403, 404, 405, 407, 410, 415, 424, 451, 499] {
            let told = words(status, None, br#"{"error":{"message":"Incorrect API key provided: sk-abc"}}"#);
            assert_eq!((told.status, told.code), (502, Outcome::ProviderRefusedGateway), "{status}");
            assert!(!told.message.contains("sk-") && !may_retry(&told), "{status}");
        }
        // The same with a status of the caller's.
        for (status, body) in [
            (400, &br#"[{"error":{"code":400,"message":"API key not valid.","details":[{"reason":"API_KEY_INVALID"}]}}]"#[..]),
            (400, br#"{"error":{"message":"The model 'x' does not exist","code":"model_not_found"}}"#),
            (413, br#"{"error":{"message":"Request too large for model in organization org_1","code":"rate_limit_exceeded"}}"#),
            (429, br#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#),
        ] {
            let told = words(status, None, body);
            assert_eq!((told.status, told.code), (502, Outcome::ProviderRefusedGateway), "{status}");
        }
        assert_eq!(words(429, None, br#"{"error":{"code":"rate_limit_exceeded"}}"#).status, 429);
        assert_eq!(words(429, None, b"").status, 429);
        assert_eq!(words(529, None, b"").status, 503);
        assert_eq!(words(500, None, b"<html>").status, 502);
        assert_eq!(words(422, None, b"not json").message, "not json");
        assert_eq!(words(422, None, b"<html>").message, "The model provider rejected the request.");
    }

    #[test]
    fn a_code_that_the_caller_can_act_on_reaches_it() {
        for (status, body, told_status, code) in [
            (400, r#"{"error":{"message":"x","code":"content_filter"}}"#, 400, "content_filter"),
            (
                400,
                r#"{"error":{"message":"x","code":"unsupported_value","param":"temperature"}}"#,
                400,
                "unsupported_value",
            ),
            (422, r#"{"error":{"message":"x","code":"invalid_image_url"}}"#, 422, "invalid_image_url"),
            (400, r#"{"error":{"message":"x","code":"some_new_one"}}"#, 400, "provider_rejected_request"),
            // Whatever its provider's status, a prompt that is too long has OpenAI's.
            (413, r#"{"error":"prompt is too long: 9 tokens > 8 maximum"}"#, 400, "context_length_exceeded"),
            (422, r#"{"error":{"message":"x","type":"exceed_context_size_error"}}"#, 400, "context_length_exceeded"),
        ] {
            let told = words(status, None, body.as_bytes());
            assert_eq!((told.status, told.code.code()), (told_status, code), "{body}");
            assert_eq!(told.kind, "invalid_request_error");
            assert!(!may_retry(&told));
        }
        // What the model stage has recorded of a body that is gone.
        let told = words(400, Some(Outcome::ContextLengthExceeded), b"");
        assert_eq!((told.status, told.code), (400, Outcome::ContextLengthExceeded));
        assert!(told.message.contains("maximum context length"), "{}", told.message);
        assert_eq!(words(400, Some(Outcome::ProviderRefusedGateway), b"").status, 502);
    }

    #[test]
    fn a_refusal_of_the_request_may_be_the_gateways_matter() {
        for status in [400, 413, 422] {
            assert_eq!(blame(status, Some(Outcome::ContextLengthExceeded)), Blame::Context);
            assert_eq!(blame(status, Some(Outcome::ProviderRefusedGateway)), Blame::Gateway);
            assert_eq!(blame(status, Some(Outcome::ContentFilter)), Blame::Request);
        }
        assert_eq!(blame(503, Some(Outcome::ContextLengthExceeded)), Blame::Provider);
        assert_eq!(blame_of_error(502, Some(Outcome::ContextLengthExceeded)), Blame::Context);
        assert_eq!(blame_of_error(502, Some(Outcome::ProviderRefusedGateway)), Blame::Gateway);
        assert_eq!(blame_of_error(404, None), Blame::Gateway);
        assert_eq!(blame_of_error(502, Some(Outcome::ContentFilter)), Blame::Provider);
        assert_eq!(blame(429, Some(Outcome::ProviderRateLimited)), Blame::Provider);
        let of = |blame, outcome| meaning(blame).map_or(outcome, |told| recorded(told, outcome));
        assert_eq!(of(Blame::Gateway, Outcome::Status(404)), Outcome::Status(404));
        assert_eq!(of(Blame::Gateway, Outcome::Status(400)), Outcome::ProviderRefusedGateway);
        assert_eq!(of(Blame::Gateway, Outcome::ErrorEvent), Outcome::ProviderRefusedGateway);
        assert_eq!(of(Blame::Context, Outcome::Status(413)), Outcome::ContextLengthExceeded);
        assert_eq!(of(Blame::Request, Outcome::Status(400)), Outcome::Status(400));
        assert_eq!(recorded(Outcome::ProviderRejectedRequest, Outcome::Status(400)), Outcome::Status(400));
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
        let at_exit = "downstream_local_disconnect(purging_socket_that_have_not_progressed_to_connections)";
        assert_eq!(cause(at_exit), Some(Outcome::GatewayShutdown));
        let unread = "downstream_local_disconnect(buffer_high_watermark_timeout_reached)";
        assert_eq!(cause(unread), Some(Outcome::ClientSlow));
        assert_eq!(cause("upstream_reset_after_response_started{remote_reset}"), Some(Outcome::StreamReset));
    }

    #[test]
    fn the_caller_is_told_when_waiting_will_not_help() {
        assert!(may_retry(&words(429, None, b"")) && may_retry(&words(503, None, b"")));
        assert!(!may_retry(&words(400, None, b"")) && !may_retry(&words(401, None, b"")));
    }
}
