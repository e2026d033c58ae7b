//! Checks that an upstream answer really is an answer in OpenAI's format, before the caller sees any of it.

use crate::dialect::first_event::Rules;
use crate::dialect::openai::read::{self, ReadAnswer};
use crate::dialect::openai::stream::{is_end, long_event};
use crate::outcome::outcome::Outcome;
use crate::routing::attempt::Failure;
use crate::wire::json::{InvalidJson, Kind, Scanner, Span, names};
use crate::wire::sse;

/// How the start of a stream is judged.
pub const FIRST_EVENT: Rules = Rules { event: judge_event, long: long_event, rest: judge_rest };

/// Checks one event. Returns `None` if a later one decides.
fn judge_event(event: &[u8]) -> Option<Result<(), Failure>> {
    let data = sse::data(event);
    if sse::is_error(event) || sse::has_foreign_line(event) {
        return Some(Err(error_event(if data.is_empty() { event } else { &data })));
    }
    if data.is_empty() {
        return None;
    }
    if is_end(&data) {
        return Some(Err(Failure::of_request(Outcome::EmptyStream)));
    }
    match read::chunk(&data, None) {
        Err(_) => Some(Err(Failure::bad_gateway(Outcome::MalformedEvent))),
        Ok(read) if read.is_error => Some(Err(error_event(&data))),
        Ok(read) => read.has_content.then_some(Ok(())),
    }
}

/// Checks what remains of a stream that ends without an empty line: it may be JSON in place of a stream.
fn judge_rest(rest: &[u8]) -> Option<Result<(), Failure>> {
    let text = rest.strip_prefix(b"\xef\xbb\xbf").unwrap_or(rest).trim_ascii();
    text.starts_with(b"{").then(|| {
        Err(match read::chunk(text, None) {
            Ok(read) if !read.is_error => Failure::bad_gateway(Outcome::WrongContentType),
            _ => error_event(text),
        })
    })
}

/// Returns the failure of an event that reports an error. In a text that is not an event, the first object counts.
fn error_event(text: &[u8]) -> Failure {
    let json = memchr::memchr(b'{', text).and_then(|start| text.get(start..)).unwrap_or_default();
    match json {
        [] => Failure::bad_gateway(Outcome::ErrorEvent),
        json => Failure::reported(error_status(json), Outcome::ErrorEvent),
    }
}

/// Checks the beginning of a body that is too long to hold: it may be a long error.
///
/// # Errors
/// If its first member is a non-null `error`.
pub fn beginning(body: &[u8]) -> Result<(), Failure> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    let value =
        body.strip_prefix(b"{").map(|rest| rest.trim_ascii_start()).and_then(|rest| rest.strip_prefix(b"\"error\""));
    let value = value.and_then(|rest| rest.trim_ascii_start().strip_prefix(b":")).map(<[u8]>::trim_ascii_start);
    match value {
        Some(value) if ![&b"null"[..], b"false", b"\"\"", b"{}", b"[]"].iter().any(|none| value.starts_with(none)) => {
            Err(Failure::reported(None, Outcome::ErrorBody))
        }
        _ => Ok(()),
    }
}

/// Reads a whole body.
///
/// # Errors
/// Why the body is not a completion.
pub fn completion(body: &[u8]) -> Result<ReadAnswer, Failure> {
    match read::whole(body) {
        Ok(completion) if completion.is_error => Err(Failure::reported(error_status(body), Outcome::ErrorBody)),
        // Nothing was said, and nothing says that this is all: the server broke off.
        Ok(read) if !read.has_content && read.usage.is_none_or(|usage| usage.output == 0) && read.choices > 0 => {
            Err(Failure::of_request(Outcome::NotACompletion))
        }
        Ok(completion) if completion.has_choices && !completion.choices_empty => Ok(completion),
        Ok(completion) if completion.has_choices => Err(Failure::of_request(Outcome::NotACompletion)),
        Ok(_) => Err(Failure::bad_gateway(Outcome::NotACompletion)),
        Err(_) => Err(Failure::bad_gateway(Outcome::MalformedBody)),
    }
}

/// Returns the status of an error, if it is 400 to 599: that of its `error` object, which vLLM and others set, or else
/// its own.
fn error_status(text: &[u8]) -> Option<u16> {
    let (mut own, mut inner) = (None, None);
    let mut scanner = Scanner::lenient(text, 64);
    let _ = scanner.object(|s, key| match &*names::quoted(s, &key) {
        b"\"error\"" if s.peek()? == Kind::Object => s.object(|s, key| read_status(s, &key, &mut inner)),
        _ => read_status(s, &key, &mut own),
    });
    inner.or(own)
}

fn read_status(s: &mut Scanner, key: &Span, status: &mut Option<u16>) -> Result<(), InvalidJson> {
    let is_status = matches!(
        &*names::quoted(s, key),
        b"\"code\"" | b"\"status\"" | b"\"status_code\"" | b"\"error_code\"" | b"\"http_code\""
    );
    let value = s.value()?.span;
    if is_status {
        let number = std::str::from_utf8(s.bytes(&value)).ok().and_then(|text| text.trim_matches('"').parse().ok());
        *status = number.filter(|number| (400..600).contains(number)).or(*status);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Judges the whole of it at once, and in two steps.
    fn first_event(so_far: &[u8], end_of_stream: bool) -> Option<Result<(), Failure>> {
        let at_once = FIRST_EVENT.judge(so_far, &mut 0, end_of_stream);
        for at in [so_far.len() / 3, so_far.len() / 2, so_far.len().saturating_sub(2)] {
            let mut judged = 0;
            let early = FIRST_EVENT.judge(&so_far[..at], &mut judged, false);
            assert_eq!(early.or_else(|| FIRST_EVENT.judge(so_far, &mut judged, end_of_stream)), at_once);
        }
        at_once
    }

    #[test]
    fn an_error_is_one_however_long_it_is() {
        for error in [&br#"{"error":{"mess"#[..], b" \n{ \"error\" : \"x", br#"{"error":"#] {
            assert_eq!(beginning(error), Err(Failure::reported(None, Outcome::ErrorBody)));
        }
        for other in [
            &br#"{"error":null,"id":"x"#[..],
            br#"{"error": {}, "id":"#,
            br#"{"error":false"#,
            br#"{"errors":1"#,
            br#"{"id":"x","error"#,
            b"[",
            b"",
        ] {
            assert_eq!(beginning(other), Ok(()));
        }
    }

    fn failed(code: Outcome) -> Option<Result<(), Failure>> {
        Some(Err(Failure::bad_gateway(code)))
    }

    #[test]
    fn the_first_event_with_content_decides() {
        let good = b"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
        assert_eq!(first_event(good, false), Some(Ok(())));
        assert_eq!(first_event(&good[..good.len() - 1], false), None);
        for silent in [
            ": keep-alive\n\n",
            "data: {\"type\":\"ping\"}\n\n",
            "data: {}\n\n",
            "data: {\"sources\":[{}]}\n\n",
            "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\"}\n\n",
            "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\n",
            // Azure's first chunk has only what its filter made of the prompt.
            "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
        ] {
            assert_eq!(first_event(silent.as_bytes(), false), None, "{silent}");
            assert_eq!(first_event(silent.as_bytes(), true), failed(Outcome::NoFirstEvent), "{silent}");
            assert_eq!(first_event(&[silent.as_bytes(), good].concat(), false), Some(Ok(())), "{silent}");
        }
        assert_eq!(first_event(b"", true), failed(Outcome::NoFirstEvent));
        assert_eq!(first_event(b"data: [DONE]\n\n", false), Some(Err(Failure::of_request(Outcome::EmptyStream))));
        assert_eq!(first_event(b"data: {oops\n\n", false), failed(Outcome::MalformedEvent));
        let end = b"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        assert_eq!(first_event(end, false), Some(Ok(())));
    }

    #[test]
    fn an_error_before_the_first_text_fails_the_attempt_with_its_status() {
        // An error without a status may concern the request alone. Text that is no JSON is no provider's.
        let of_request = Failure::reported(None, Outcome::ErrorEvent);
        let of_provider = Failure::bad_gateway(Outcome::ErrorEvent);
        let says = |status| Failure::reported(Some(status), Outcome::ErrorEvent);
        let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
        for (error, failure) in [
            ("data: {\"error\":{\"message\":\"x\"}}\n\n", of_request),
            ("data: {\"error\":{\"code\":429}}\n\n", says(429)),
            ("data: {\"error\":{\"code\":502}}\n\n", says(502)),
            ("data: {\"error\":{\"code\":\"x\",\"status\":200}}\n\n", of_request),
            ("data: {\"detail\":\"dead\"}\n\n", of_request),
            ("data: {\"status\":503,\"title\":\"x\"}\n\n", says(503)),
            ("data: {\"code\":1302,\"msg\":\"rate limit\"}\n\n", of_request),
            ("data: {\"choices\":null,\"base_resp\":{\"status_code\":1008}}\n\n", of_request),
            ("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n", of_request),
            ("error: {\"code\":500}\n\n", says(500)),
            ("event: error\n\n", of_provider),
            ("Service Unavailable\n\n", of_provider),
        ] {
            for before in ["", role] {
                let text = format!("{before}{error}data: [DONE]\n\n");
                assert_eq!(first_event(text.as_bytes(), false), Some(Err(failure)), "{text}");
            }
        }
        // JSON in place of a stream, which may have been labelled as one.
        assert_eq!(
            first_event(b"{\"error\":{\"code\":503}}", true),
            Some(Err(Failure::reported(Some(503), Outcome::ErrorEvent)))
        );
        assert_eq!(first_event(b"{\n \"choices\":[{}]\n}", true), failed(Outcome::WrongContentType));
    }

    #[test]
    fn a_long_first_event_is_judged_by_its_start() {
        let event = |start: &str| format!("data: {start}{}", "x".repeat(sse::MAX_HELD));
        let image = event("{\"id\":\"x\",\"choices\":[{\"delta\":{\"images\":[{\"url\":\"data:image/png;base64,");
        assert_eq!(first_event(&image.as_bytes()[..sse::MAX_HELD], false), None);
        assert_eq!(first_event(image.as_bytes(), false), Some(Ok(())));
        let other = event("{\"error\":\"");
        assert_eq!(first_event(other.as_bytes(), false), failed(Outcome::MalformedEvent));
    }

    #[test]
    fn a_whole_body_must_be_a_completion() {
        let whole = |body: &[u8]| completion(body).map(drop);
        assert_eq!(whole(b"{\"choices\":[{\"message\":{\"content\":\"a\"}}]}"), Ok(()));
        assert_eq!(whole(b"{\"choices\":[{}],\"usage\":{\"completion_tokens\":1}}"), Ok(()));
        let nothing = b"{\"choices\":[{\"message\":{\"content\":null},\"finish_reason\":null}]}";
        assert_eq!(whole(nothing), Err(Failure::of_request(Outcome::NotACompletion)));
        assert_eq!(
            whole(
                "\u{feff}{\"error\":[],\"choices\":[{\"logprobs\":[NaN,-Infinity],\"finish_reason\":\"stop\"}]}"
                    .as_bytes()
            ),
            Ok(())
        );
        let error = Err(Failure::reported(None, Outcome::ErrorBody));
        assert_eq!(whole(b"{\"choices\":[{\"finish_reason\":\"error\"}]}"), error);
        assert_eq!(whole(b"{\"choices\":[]}"), Err(Failure::of_request(Outcome::NotACompletion)));
        assert_eq!(whole(b"{\"choices\":[]"), Err(Failure::bad_gateway(Outcome::MalformedBody)));
        assert_eq!(whole(b"{}"), Err(Failure::bad_gateway(Outcome::NotACompletion)));
        assert_eq!(whole(b""), Err(Failure::bad_gateway(Outcome::MalformedBody)));
        assert_eq!(whole(b"{\"error\":{\"code\":503}}"), Err(Failure::reported(Some(503), Outcome::ErrorBody)));
    }
}
