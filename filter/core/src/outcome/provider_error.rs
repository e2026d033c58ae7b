//! A provider's failure in the caller's words: the right status, and nothing of the provider's internals.
//!
//! Only what the caller itself can mend (a bad request) quotes the provider's message, with whatever looks like a key,
//! an organisation, a project, a host or an address taken out. Everything else gets words of our own.

use crate::outcome::refusal::{OVERLOADED_RETRY_AFTER, Refusal, Words};
use crate::wire::header::HeaderLine;
use crate::wire::json::{Kind, Scanner, unquote};

mod redaction;
use redaction::{is_field_path, redact};

/// Why Envoy answered itself or cut an answer off, by its `response.code_details`; `None` where it did neither.
pub fn cause(details: &str) -> Option<&'static str> {
    let starts = |prefix: &str| details.starts_with(prefix);
    if starts("upstream_per_try_timeout") {
        Some("first_token_timeout")
    } else if starts("upstream_response_timeout") || starts("response_timeout") {
        Some("deadline_exceeded")
    } else if starts("upstream_per_try_idle_timeout") || starts("stream_idle_timeout") {
        Some("chunk_timeout")
    } else if starts("downstream_") || starts("codec_error") || starts("http1.") || starts("http2.") {
        Some("client_disconnected")
    } else if starts("upstream_reset") && details.contains("overflow") {
        Some("model_overloaded")
    } else if starts("upstream_reset_after_response_started") {
        Some("stream_reset")
    } else if starts("upstream_reset_before_response_started") {
        Some("provider_unreachable")
    } else if starts("no_healthy_upstream") || starts("cluster_not_found") || starts("maintenance_mode") {
        Some("no_healthy_provider")
    } else if starts("route_not_found") || starts("no_cluster") {
        Some("no_such_plan")
    } else if starts("response_payload_too_large") || starts("upstream_response_headers_too_large") {
        Some("response_too_large")
    } else {
        None
    }
}

/// Whether Envoy answered before it had asked any provider, by its `response.code_details`.
pub fn is_unasked(details: &str) -> bool {
    matches!(cause(details), Some("no_healthy_provider" | "no_such_plan" | "model_overloaded"))
}

/// A status that a provider answered, as the reason of a failed attempt.
pub fn status_reason(status: u16) -> &'static str {
    match status {
        400 => "status_400",
        401 => "status_401",
        403 => "status_403",
        404 => "status_404",
        408 => "status_408",
        409 => "status_409",
        413 => "status_413",
        422 => "status_422",
        429 => "status_429",
        500 => "status_500",
        502 => "status_502",
        503 => "status_503",
        504 => "status_504",
        529 => "status_529",
        _ => match status / 100 {
            4 => "status_4xx",
            5 => "status_5xx",
            _ => "status_unexpected",
        },
    }
}

/// What kind of failure an outcome is, for a metric's label: one of few words.
pub fn error_type(outcome: &str) -> &'static str {
    match outcome {
        "status_429" | "provider_rate_limited" => "rate_limited",
        "status_408"
        | "status_504"
        | "first_token_timeout"
        | "attempt_timeout"
        | "chunk_timeout"
        | "deadline_exceeded"
        | "hedged" => "timeout",
        "status_401" | "status_403" => "refused_gateway",
        "no_response" | "stream_reset" | "provider_unreachable" | "no_healthy_provider" => "unreachable",
        "model_overloaded" => "overloaded",
        "error_event" | "error_body" | "stream_error" => "error_event",
        other if other.starts_with("status_5") => "server_error",
        other if other.starts_with("status_4") => "rejected_request",
        _ => "invalid_response",
    }
}

/// Whether the caller may try again: not where the same request would be refused again.
pub fn may_retry(words: &Words) -> bool {
    !is_final(words.status, words.code) && words.code != "deadline_exceeded"
}

/// Whether anybody's same request would be refused again.
pub fn is_final(status: u16, code: &str) -> bool {
    !matches!(status, 408 | 409 | 429 | 500..=599) || code == "provider_refused_gateway"
}

/// `retry-after`, where it is the gateway that knows: a circuit breaker refuses in the same words as the policy's limit.
pub fn retry_after(words: &Words) -> Option<HeaderLine> {
    (words.code == "model_overloaded").then(|| ("retry-after", OVERLOADED_RETRY_AFTER.into()))
}

/// What the caller is told when a provider answered `status` with `body`, or Envoy did for want of an answer; then with
/// its [`cause`].
pub fn words(status: u16, cause: Option<&'static str>, body: &[u8]) -> Words {
    let told = |status, message: &str| {
        let code = cause.unwrap_or("provider_error");
        Words { status, kind: "server_error", code, param: None, message: message.to_owned() }
    };
    match cause {
        Some("first_token_timeout" | "attempt_timeout" | "chunk_timeout") => {
            told(504, "The model's provider did not answer in time.")
        }
        Some("deadline_exceeded") => told(504, "The request was not done by its deadline."),
        Some("model_overloaded") => Refusal::Overloaded.words(),
        Some("provider_unreachable" | "no_healthy_provider") => {
            told(503, "The model's provider is not available. Try again later.")
        }
        Some("no_such_plan") => told(503, "The gateway is being reconfigured. Try again in a moment."),
        Some("response_too_large") => told(502, "The model's provider answered more than the gateway takes."),
        _ => by_status(status, body),
    }
}

/// Whether the caller is told what the provider says of a failure, because it can mend it.
pub fn is_quoted(status: u16) -> bool {
    matches!(status, 400 | 404 | 405 | 413 | 415 | 422)
}

fn by_status(status: u16, body: &[u8]) -> Words {
    let server = |status, code, message: &str| Words {
        status,
        kind: "server_error",
        code,
        param: None,
        message: message.to_owned(),
    };
    match status {
        _ if is_quoted(status) => {
            let told = read(body);
            Words {
                status,
                kind: "invalid_request_error",
                code: "provider_rejected_request",
                param: told.param,
                message: told.message.map_or_else(|| "The provider refused the request.".to_owned(), |m| redact(&m)),
            }
        }
        // The provider's own 401 or 403 is about the gateway's credential, not the caller's.
        401..=403 => server(502, "provider_refused_gateway", "The model's provider refused the gateway."),
        408 | 504 => server(504, "provider_timeout", "The model's provider did not answer in time."),
        429 => Words {
            status: 429,
            kind: "rate_limit_error",
            code: "provider_rate_limited",
            param: None,
            message: "The model's provider is receiving too many requests. Try again later.".to_owned(),
        },
        503 | 529 => server(503, "provider_unavailable", "The model's provider is not available. Try again later."),
        500..=599 => server(502, "provider_error", "The model's provider failed."),
        _ => server(502, "provider_unexpected_status", "The model's provider answered in an unexpected way."),
    }
}

#[derive(Default)]
struct Told {
    message: Option<String>,
    param: Option<String>,
}

/// Reads `{"error":{"message":…,"param":…}}`, and vLLM's older `{"message":…}`.
fn read(body: &[u8]) -> Told {
    let mut told = Told::default();
    let mut scanner = Scanner::new(body, 64);
    let _ = scanner.object(|s, key| match s.bytes(&key) {
        b"\"error\"" if s.peek()? == Kind::Object => s.object(|s, key| field(s, &key, &mut told)),
        _ => field(s, &key, &mut told),
    });
    told
}

fn field(
    s: &mut Scanner,
    key: &crate::wire::json::Span,
    told: &mut Told,
) -> Result<(), crate::wire::json::InvalidJson> {
    let key = s.bytes(key);
    let value = s.value()?;
    let text = || unquote(s.bytes(&value.span)).map(std::borrow::Cow::into_owned);
    if value.kind == Kind::String {
        match key {
            b"\"message\"" => told.message = text(),
            b"\"param\"" => told.param = text().filter(|param| is_field_path(param)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(words(422, None, b"not json").message, "The provider refused the request.");
    }

    #[test]
    fn envoys_own_reasons_have_their_own_codes() {
        let told = |details| {
            let words = words(503, cause(details), b"");
            (words.status, words.code)
        };
        assert_eq!(told("upstream_per_try_timeout"), (504, "first_token_timeout"));
        assert_eq!(told("upstream_response_timeout"), (504, "deadline_exceeded"));
        assert_eq!(told("upstream_reset_before_response_started{overflow}"), (503, "model_overloaded"));
        assert!(retry_after(&words(503, Some("model_overloaded"), b"")).is_some());
        assert!(retry_after(&words(503, None, b"")).is_none());
        assert_eq!(
            told("upstream_reset_before_response_started{connection_termination}"),
            (503, "provider_unreachable")
        );
        assert_eq!(told("no_healthy_upstream"), (503, "no_healthy_provider"));
        assert_eq!(told("via_upstream"), (503, "provider_unavailable"));
        assert_eq!(cause("downstream_remote_disconnect"), Some("client_disconnected"));
        assert_eq!(cause("upstream_reset_after_response_started{remote_reset}"), Some("stream_reset"));
    }

    #[test]
    fn the_caller_is_told_when_waiting_will_not_help() {
        assert!(may_retry(&words(429, None, b"")) && may_retry(&words(503, None, b"")));
        assert!(!may_retry(&words(400, None, b"")) && !may_retry(&words(401, None, b"")));
    }
}
