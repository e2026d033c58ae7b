//! Checks that an upstream answer really is an answer in OpenAI's format, before the caller sees any of it.

use crate::dialect::openai::read::{self, ReadAnswer};
use crate::outcome::outcome::Outcome;
use crate::routing::attempt::{Failure, HOLD_LIMIT};
use crate::wire::json::{InvalidJson, Kind, Scanner};
use crate::wire::sse::{self, EventCutter};

/// Checks the start of a stream. `so_far`: everything that has arrived. Returns `None` while no event with data is
/// complete, unless the stream has ended or exceeds `HOLD_LIMIT`: then it fails.
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
        None if end_of_stream || so_far.len() > HOLD_LIMIT => Some(Err(Failure::bad_gateway(Outcome::NoFirstEvent))),
        verdict => verdict,
    }
}

fn error_event(data: &[u8]) -> Failure {
    Failure { status: error_status(data).unwrap_or(502), code: Outcome::ErrorEvent }
}

fn judge(data: &[u8]) -> Result<(), Failure> {
    if data.trim_ascii() == b"[DONE]" {
        return Err(Failure::bad_gateway(Outcome::EmptyStream));
    }
    match read::chunk(data, None) {
        Err(_) => Err(Failure::bad_gateway(Outcome::MalformedEvent)),
        Ok(completion) if completion.is_error => Err(error_event(data)),
        Ok(completion) if completion.has_choices || completion.usage.is_some() => Ok(()),
        Ok(_) => Err(Failure::bad_gateway(Outcome::NotAChunk)),
    }
}

/// Checks the beginning of a body that is too long to hold: it may be a long error.
///
/// # Errors
/// If its first member is a non-null `error`.
pub fn beginning(body: &[u8]) -> Result<(), Failure> {
    let body = body.trim_ascii_start();
    let value =
        body.strip_prefix(b"{").map(|rest| rest.trim_ascii_start()).and_then(|rest| rest.strip_prefix(b"\"error\""));
    let value = value.and_then(|rest| rest.trim_ascii_start().strip_prefix(b":")).map(<[u8]>::trim_ascii_start);
    match value {
        Some(value) if !value.starts_with(b"null") => Err(Failure::bad_gateway(Outcome::ErrorBody)),
        _ => Ok(()),
    }
}

/// Reads a whole body.
///
/// # Errors
/// Why the body is not a completion.
pub fn completion(body: &[u8]) -> Result<ReadAnswer, Failure> {
    match read::whole(body) {
        Ok(completion) if completion.is_error => {
            Err(Failure { status: error_status(body).unwrap_or(502), code: Outcome::ErrorBody })
        }
        Ok(completion) if completion.has_choices && !completion.choices_empty => Ok(completion),
        Ok(_) => Err(Failure::bad_gateway(Outcome::NotACompletion)),
        Err(_) => Err(Failure::bad_gateway(Outcome::MalformedBody)),
    }
}

/// Returns the status in `error.code` or `error.status`, which vLLM and others set, if it is 400 to 599.
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
            Ok::<_, InvalidJson>(())
        }),
        _ => s.value().map(drop),
    });
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_however_long_it_is() {
        for error in [&br#"{"error":{"mess"#[..], b" \n{ \"error\" : \"x", br#"{"error":"#] {
            assert_eq!(beginning(error), Err(Failure::bad_gateway(Outcome::ErrorBody)));
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
        assert_eq!(first_event(b": keep-alive\n\n", true), Some(Err(Failure::bad_gateway(Outcome::NoFirstEvent))));
        assert_eq!(first_event(b"", true), Some(Err(Failure::bad_gateway(Outcome::NoFirstEvent))));
        assert_eq!(first_event(b"data: [DONE]\n\n", false), Some(Err(Failure::bad_gateway(Outcome::EmptyStream))));
        assert_eq!(first_event(b"data: {oops\n\n", false), Some(Err(Failure::bad_gateway(Outcome::MalformedEvent))));
        for no_chunk in [&b"data: {}\n\n"[..], b"data: {\"detail\":\"dead\"}\n\n"] {
            assert_eq!(first_event(no_chunk, false), Some(Err(Failure::bad_gateway(Outcome::NotAChunk))));
        }
        // Azure's first chunk reports only its filter's results for the prompt.
        assert_eq!(first_event(b"data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n", false), Some(Ok(())));
        let error = |status| Some(Err(Failure { status, code: Outcome::ErrorEvent }));
        assert_eq!(first_event(b"data: {\"error\":{\"message\":\"x\"}}\n\n", false), error(502));
        assert_eq!(first_event(b"data: {\"error\":{\"code\":429}}\n\n", false), error(429));
        assert_eq!(first_event(b"data: {\"error\":{\"code\":\"x\",\"status\":200}}\n\n", false), error(502));
    }

    #[test]
    fn a_whole_body_must_be_a_completion() {
        let whole = |body: &[u8]| completion(body).map(drop);
        assert_eq!(whole(b"{\"choices\":[{}]}"), Ok(()));
        assert_eq!(whole(b"{\"choices\":[]}"), Err(Failure::bad_gateway(Outcome::NotACompletion)));
        assert_eq!(whole(b"{\"choices\":[]"), Err(Failure::bad_gateway(Outcome::MalformedBody)));
        assert_eq!(whole(b"{}"), Err(Failure::bad_gateway(Outcome::NotACompletion)));
        assert_eq!(whole(b""), Err(Failure::bad_gateway(Outcome::MalformedBody)));
        assert_eq!(whole(b"{\"error\":{\"code\":503}}"), Err(Failure { status: 503, code: Outcome::ErrorBody }));
    }
}
