//! One attempt's answer at the model stage: may the caller see it, or is it one more failed attempt?
//!
//! A server sends a stream's headers long before its first token, and a 200 says nothing of the body. So the headers are
//! held until the first event of a stream, or the whole body of anything else, has come. Envoy's retry logic sees the
//! status that is set here; nothing was sent downstream yet, so the next model can still serve.

use crate::outcome::outcome::Outcome;
use crate::usage::{self, Completion};
use crate::wire::json::{InvalidJson, Kind, Scanner};
use crate::wire::sse::{self, EventCutter};

/// So many bytes of an answer are held at the most; Envoy's buffers take 1 MiB by default.
pub const HOLD_LIMIT: usize = 512 << 10;

/// What to do with an attempt's response headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnHead {
    /// Let everything pass: a failure that the status tells already.
    Pass,
    /// Hold until the first event of the stream has come.
    HoldEvent,
    /// Hold until the whole body has come.
    HoldWhole,
    /// Fail the attempt now.
    Fail(Failure),
}

/// Why an attempt failed although its status said 2xx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The status that Envoy's retry logic sees instead.
    pub status: u16,
    /// The attempt's outcome in the audit record.
    pub code: Outcome,
}

const fn failure(code: Outcome) -> Failure {
    Failure { status: 502, code }
}

/// Judges the response headers. `stream`: whether a stream was asked for.
pub fn head(stream: bool, status: u16, content_type: &[u8], is_encoded: bool, end_of_stream: bool) -> OnHead {
    if !(200..300).contains(&status) {
        return OnHead::Pass;
    }
    let is = |wanted: &[u8]| content_type.get(..wanted.len()).is_some_and(|start| start.eq_ignore_ascii_case(wanted));
    if end_of_stream {
        OnHead::Fail(failure(Outcome::EmptyBody))
    } else if is_encoded {
        // It was not asked for, and could not be metered.
        OnHead::Fail(failure(Outcome::EncodedBody))
    } else if stream && is(b"text/event-stream") {
        OnHead::HoldEvent
    } else if !stream && is(b"application/json") {
        OnHead::HoldWhole
    } else {
        OnHead::Fail(failure(Outcome::WrongContentType))
    }
}

/// Whether a `content-encoding` says that a body is not as it is to be read.
pub fn is_encoding(value: &[u8]) -> bool {
    !value.is_empty() && !value.eq_ignore_ascii_case(b"identity")
}

/// Judges the start of a stream, all of it that has come. `None`: the first event is not complete.
pub fn first_event(so_far: &[u8], end_of_stream: bool) -> Option<Result<(), Failure>> {
    let mut verdict = None;
    let mut cutter = EventCutter::default();
    cutter.push(so_far, |event| {
        let data = sse::data(event);
        if verdict.is_none() && !data.is_empty() {
            verdict = Some(if sse::is_error(event) { Err(error_event(&data)) } else { judge(&data) });
        }
    });
    match verdict {
        None if end_of_stream || so_far.len() > HOLD_LIMIT => Some(Err(failure(Outcome::NoFirstEvent))),
        verdict => verdict,
    }
}

fn error_event(data: &[u8]) -> Failure {
    Failure { status: error_status(data).unwrap_or(502), code: Outcome::ErrorEvent }
}

fn judge(data: &[u8]) -> Result<(), Failure> {
    if data.trim_ascii() == b"[DONE]" {
        return Err(failure(Outcome::EmptyStream));
    }
    match usage::read(data) {
        Err(_) => Err(failure(Outcome::MalformedEvent)),
        Ok(completion) if completion.is_error => Err(error_event(data)),
        Ok(completion) if completion.has_choices || completion.usage.is_some() => Ok(()),
        Ok(_) => Err(failure(Outcome::NotAChunk)),
    }
}

/// Judges a whole body.
///
/// # Errors
/// Why it is no completion.
pub fn whole(body: &[u8]) -> Result<(), Failure> {
    completion(body, usage::read_whole(body)).map(drop)
}

/// Judges the beginning of a body that is too long to hold: an error is one, however long.
///
/// # Errors
/// If the first that it says is an error.
pub fn beginning(body: &[u8]) -> Result<(), Failure> {
    let body = body.trim_ascii_start();
    let value =
        body.strip_prefix(b"{").map(|rest| rest.trim_ascii_start()).and_then(|rest| rest.strip_prefix(b"\"error\""));
    let value = value.and_then(|rest| rest.trim_ascii_start().strip_prefix(b":")).map(<[u8]>::trim_ascii_start);
    match value {
        Some(value) if !value.starts_with(b"null") => Err(failure(Outcome::ErrorBody)),
        _ => Ok(()),
    }
}

/// Judges what was read of a whole body.
///
/// # Errors
/// Why it is no completion.
pub fn completion(body: &[u8], read: Result<Completion, InvalidJson>) -> Result<Completion, Failure> {
    match read {
        Ok(completion) if completion.is_error => {
            Err(Failure { status: error_status(body).unwrap_or(502), code: Outcome::ErrorBody })
        }
        Ok(completion) if completion.has_choices && !completion.choices_empty => Ok(completion),
        Ok(_) => Err(failure(Outcome::NotACompletion)),
        Err(_) => Err(failure(Outcome::MalformedBody)),
    }
}

/// The status that an error object names in `error.code` or `error.status`, as vLLM and others do.
fn error_status(text: &[u8]) -> Option<u16> {
    let mut status = None;
    let mut scanner = Scanner::new(text, 64);
    let _ = scanner.object(|s, key| match s.bytes(&key) {
        b"\"error\"" if s.peek()? == Kind::Object => s.object(|s, key| {
            let named = matches!(s.bytes(&key), b"\"code\"" | b"\"status\"");
            let value = s.value()?;
            if named && value.kind == Kind::Number {
                let number = std::str::from_utf8(s.bytes(&value.span)).ok().and_then(|n| n.parse::<u16>().ok());
                status = number.filter(|n| (400..600).contains(n)).or(status);
            }
            Ok::<_, crate::wire::json::InvalidJson>(())
        }),
        _ => s.value().map(drop),
    });
    status
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
            let (wanted, other) = match stream {
                true => (&b"text/event-stream"[..], &b"application/json"[..]),
                false => (&b"application/json"[..], &b"text/event-stream"[..]),
            };
            assert_eq!(failed(wanted, false, true), Outcome::EmptyBody);
            assert_eq!(failed(wanted, true, false), Outcome::EncodedBody);
            for no in [other, b"text/html", b""] {
                assert_eq!(failed(no, false, false), Outcome::WrongContentType);
            }
        }
        assert_eq!(head(true, 200, b"text/event-stream; charset=utf-8", false, false), OnHead::HoldEvent);
        assert_eq!(head(false, 200, b"Application/JSON", false, false), OnHead::HoldWhole);
    }

    #[test]
    fn an_error_is_one_however_long_it_is() {
        for error in [&br#"{"error":{"mess"#[..], b" \n{ \"error\" : \"x", br#"{"error":"#] {
            assert_eq!(beginning(error), Err(failure(Outcome::ErrorBody)));
        }
        for other in [&br#"{"error":null,"id":"x"#[..], br#"{"errors":1"#, br#"{"id":"x","error"#, b"[", b""] {
            assert_eq!(beginning(other), Ok(()));
        }
    }

    #[test]
    fn the_first_event_decides() {
        let good = b"data: {\"choices\":[{\"delta\":{\"role\":\"assistant\"}}]}\n\n";
        assert_eq!(first_event(good, false), Some(Ok(())));
        assert_eq!(first_event(&good[..good.len() - 1], false), None);
        assert_eq!(first_event(b": keep-alive\n\n", false), None);
        assert_eq!(first_event(b": keep-alive\n\n", true), Some(Err(failure(Outcome::NoFirstEvent))));
        assert_eq!(first_event(b"", true), Some(Err(failure(Outcome::NoFirstEvent))));
        assert_eq!(first_event(b"data: [DONE]\n\n", false), Some(Err(failure(Outcome::EmptyStream))));
        assert_eq!(first_event(b"data: {oops\n\n", false), Some(Err(failure(Outcome::MalformedEvent))));
        for no_chunk in [&b"data: {}\n\n"[..], b"data: {\"detail\":\"dead\"}\n\n"] {
            assert_eq!(first_event(no_chunk, false), Some(Err(failure(Outcome::NotAChunk))));
        }
        // Azure's first chunk says only what its filter made of the prompt.
        assert_eq!(first_event(b"data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n", false), Some(Ok(())));
        let error = |status| Some(Err(Failure { status, code: Outcome::ErrorEvent }));
        assert_eq!(first_event(b"data: {\"error\":{\"message\":\"x\"}}\n\n", false), error(502));
        assert_eq!(first_event(b"data: {\"error\":{\"code\":429}}\n\n", false), error(429));
        assert_eq!(first_event(b"data: {\"error\":{\"code\":\"x\",\"status\":200}}\n\n", false), error(502));
    }

    #[test]
    fn a_whole_body_must_be_a_completion() {
        assert_eq!(whole(b"{\"choices\":[{}]}"), Ok(()));
        assert_eq!(whole(b"{\"choices\":[]}"), Err(failure(Outcome::NotACompletion)));
        assert_eq!(whole(b"{\"choices\":[]"), Err(failure(Outcome::MalformedBody)));
        assert_eq!(whole(b"{}"), Err(failure(Outcome::NotACompletion)));
        assert_eq!(whole(b""), Err(failure(Outcome::MalformedBody)));
        assert_eq!(whole(b"{\"error\":{\"code\":503}}"), Err(Failure { status: 503, code: Outcome::ErrorBody }));
    }
}
