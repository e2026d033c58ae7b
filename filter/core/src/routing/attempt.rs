//! The response to one attempt at the model stage: may the caller see it, or is it one more failed attempt?
//!
//! A server sends the headers of a stream long before its first token, and a 200 says nothing about the body. So the
//! headers are held until the first event of a stream, or the whole body of any other response, has arrived. Envoy's
//! retry logic sees the status that is set here. Nothing has been sent downstream yet, so the next model can still
//! serve.

use crate::outcome::outcome::Outcome;

/// Maximum bytes of a response that are held. Envoy's buffers hold 1 MiB by default.
pub const HOLD_LIMIT: usize = 512 << 10;

/// What to do with an attempt's response headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnHead {
    /// Let everything pass: the status already reports a failure.
    Pass,
    /// Hold until the first event of the stream has arrived.
    HoldEvent,
    /// Hold until the whole body has arrived.
    HoldWhole,
    /// Fail the attempt now.
    Fail(Failure),
}

/// Why an attempt failed although its status said 2xx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The status that it stands for.
    pub status: u16,
    /// The attempt's outcome in the audit record.
    pub code: Outcome,
    /// Whether it may concern this request alone, and so says nothing about the provider's health.
    pub is_of_request: bool,
}

/// The status that Envoy sees of an attempt whose failure may concern its request alone. Envoy's outlier detection
/// counts none below 500. The gateway stage never passes it on.
pub const OF_ONE_REQUEST: u16 = 424;

impl Failure {
    /// Creates the failure of a provider that sent something other than an answer.
    pub const fn bad_gateway(code: Outcome) -> Self {
        Self { status: 502, code, is_of_request: false }
    }

    /// Creates the failure of a provider that answered correctly in form, but for this request with nothing.
    pub const fn of_request(code: Outcome) -> Self {
        Self { status: 502, code, is_of_request: true }
    }

    /// Creates the failure of a provider that reported an error in place of an answer. `status`: what the error says.
    /// An error without one may be a moderator's, say.
    pub fn reported(status: Option<u16>, code: Outcome) -> Self {
        Self { status: status.unwrap_or(502), code, is_of_request: status.is_none() }
    }
}

/// Judges the response headers. `stream` says whether a stream was requested.
pub fn head(stream: bool, status: u16, content_type: &[u8], is_encoded: bool, end_of_stream: bool) -> OnHead {
    if !(200..300).contains(&status) {
        return OnHead::Pass;
    }
    if status == PARTIAL {
        OnHead::Fail(Failure::bad_gateway(Outcome::Status(status)))
    } else if end_of_stream {
        OnHead::Fail(Failure::bad_gateway(Outcome::EmptyBody))
    } else if is_encoded {
        // No encoding was requested, and an encoded body cannot be metered.
        OnHead::Fail(Failure::bad_gateway(Outcome::EncodedBody))
    } else if is_type(content_type, b"text/html") || !stream && is_type(content_type, EVENT_STREAM.as_bytes()) {
        OnHead::Fail(Failure::bad_gateway(Outcome::WrongContentType))
    } else if stream {
        OnHead::HoldEvent
    } else {
        OnHead::HoldWhole
    }
}

/// The status of a body that is only a part of an answer. Nobody asked for a part.
const PARTIAL: u16 = 206;

/// Media type of a stream.
const EVENT_STREAM: &str = "text/event-stream";
/// Media type of a whole answer.
pub const JSON: &str = "application/json";

/// Returns the media type of an answer whose provider labels it otherwise or not at all: clients read what the label
/// says. Returns `None` if the label is right. `stream`: whether the answer is a stream.
pub fn corrected_type(stream: bool, content_type: &[u8]) -> Option<&'static str> {
    let right = if stream { EVENT_STREAM } else { JSON };
    (!is_type(content_type, right.as_bytes())).then_some(right)
}

fn is_type(content_type: &[u8], wanted: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(wanted)
}

/// Returns whether a `content-encoding` means that the body is encoded.
pub fn is_encoding(value: &[u8]) -> bool {
    !value.is_empty() && !value.eq_ignore_ascii_case(b"identity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_tells_passes_and_a_200_must_prove_itself() {
        for stream in [false, true] {
            assert_eq!(head(stream, 503, b"text/html", false, true), OnHead::Pass);
            let failed = |content_type, is_encoded, end| match head(stream, 200, content_type, is_encoded, end) {
                OnHead::Fail(failure) => failure.code,
                other => panic!("{other:?}"),
            };
            let wanted = if stream { EVENT_STREAM } else { JSON }.as_bytes();
            assert_eq!(failed(wanted, false, true), Outcome::EmptyBody);
            assert_eq!(failed(wanted, true, false), Outcome::EncodedBody);
            assert_eq!(failed(b"text/html; charset=utf-8", false, false), Outcome::WrongContentType);
            // The body decides, whatever its label.
            let held = if stream { OnHead::HoldEvent } else { OnHead::HoldWhole };
            for label in [wanted, b"text/plain", b"application/octet-stream", b""] {
                assert_eq!(head(stream, 200, label, false, false), held);
                assert_eq!(corrected_type(stream, label).is_none(), label == wanted);
            }
        }
        // A part is no answer. Another success is.
        for stream in [false, true] {
            let partial = OnHead::Fail(Failure::bad_gateway(Outcome::Status(206)));
            assert_eq!(head(stream, 206, b"", false, false), partial);
            assert!(matches!(head(stream, 203, b"", false, false), OnHead::HoldEvent | OnHead::HoldWhole));
        }
        // What only begins like the label of a stream is not one.
        assert_eq!(corrected_type(true, b"text/event-streamx"), Some(EVENT_STREAM));
        assert_eq!(head(false, 200, b"text/event-streamx", false, false), OnHead::HoldWhole);
        let failed = OnHead::Fail(Failure::bad_gateway(Outcome::WrongContentType));
        assert_eq!(head(false, 200, b"text/event-stream", false, false), failed);
        assert_eq!(head(true, 200, b"text/event-stream; charset=utf-8", false, false), OnHead::HoldEvent);
        assert_eq!(head(false, 200, b"Application/JSON", false, false), OnHead::HoldWhole);
    }
}
