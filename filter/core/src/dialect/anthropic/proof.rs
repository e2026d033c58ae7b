//! Checks that an upstream answer really is an answer in Anthropic's format, before the caller sees any of it.

use crate::dialect::answer::WholeAnswer;
use crate::dialect::anthropic::read::{self, Read, Type};
use crate::dialect::anthropic::stream::long_event;
use crate::dialect::anthropic::usage::Counts;
use crate::dialect::first_event::Rules;
use crate::outcome::outcome::Outcome;
use crate::routing::attempt::Failure;
use crate::tokens::TokenCounter;
use crate::wire::sse;

/// How the start of a stream is judged. `message_start` comes long before the first token, so it proves nothing.
pub const FIRST_EVENT: Rules = Rules { event: judge_event, long: long_event, rest: judge_rest };

fn judge_event(event: &[u8]) -> Option<Result<(), Failure>> {
    let data = sse::data(event);
    let read = read::read(&data, &mut Counts::default());
    match &read {
        Ok(read) if is_error(read) => return Some(Err(reported(read, Outcome::ErrorEvent))),
        _ if sse::is_error(event) || sse::has_foreign_line(event) => {
            return Some(Err(Failure::bad_gateway(Outcome::ErrorEvent)));
        }
        _ if data.is_empty() => return None,
        Err(_) => return Some(Err(Failure::bad_gateway(Outcome::MalformedEvent))),
        Ok(_) => {}
    }
    match read.map(|read| (read.kind, read.has_content)) {
        Ok((Type::MessageStop, _)) => Some(Err(Failure::of_request(Outcome::EmptyStream))),
        Ok((Type::Missing | Type::Message, _)) => Some(Err(Failure::bad_gateway(Outcome::MalformedEvent))),
        Ok((_, has_content)) => has_content.then_some(Ok(())),
        Err(_) => None,
    }
}

fn judge_rest(rest: &[u8]) -> Option<Result<(), Failure>> {
    let text = rest.strip_prefix(b"\xef\xbb\xbf").unwrap_or(rest).trim_ascii();
    text.starts_with(b"{").then(|| {
        Err(match read::read(text, &mut Counts::default()) {
            Ok(read) if is_error(&read) => reported(&read, Outcome::ErrorEvent),
            _ => Failure::bad_gateway(Outcome::WrongContentType),
        })
    })
}

/// Returns whether a document is an error, or one of OpenAI's form, as some servers send it.
fn is_error(read: &Read) -> bool {
    read.kind == Type::Error || read.has_error
}

/// Returns the failure that an error reports. An overload is one of 503, which Envoy retries by default.
fn reported(read: &Read, code: Outcome) -> Failure {
    Failure::reported(read.error_status.map(|status| if status == 529 { 503 } else { status }), code)
}

/// Checks the beginning of a body that is too long to hold: it may be a long error.
///
/// # Errors
/// If its first member says that it is an error.
pub fn beginning(body: &[u8]) -> Result<(), Failure> {
    let compact: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).take(32).collect();
    let compact = compact.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&compact);
    let is_error =
        [&b"{\"type\":\"error\""[..], b"{\"error\":{", b"{\"error\":\""].iter().any(|e| compact.starts_with(e));
    if is_error { Err(Failure::reported(None, Outcome::ErrorBody)) } else { Ok(()) }
}

/// Reads a whole body.
///
/// # Errors
/// Why the body is not an answer.
pub fn answer(body: &[u8]) -> Result<WholeAnswer, Failure> {
    let mut counts = Counts::default();
    let read = read::read(body, &mut counts).map_err(|_| Failure::bad_gateway(Outcome::MalformedBody))?;
    let usage = counts.reported();
    let has_output = usage.is_some_and(|usage| usage.output > 0);
    match read {
        read if is_error(&read) => Err(reported(&read, Outcome::ErrorBody)),
        // Nothing was said, and nothing says that this is all: the server broke off.
        read if read.has_list && !read.has_content && !has_output => Err(Failure::of_request(Outcome::NotACompletion)),
        read if read.has_list && matches!(read.kind, Type::Message | Type::Missing) => Ok(WholeAnswer {
            usage,
            service_tier: counts.tier,
            text: if has_output { TokenCounter::default() } else { read.generated },
        }),
        _ => Err(Failure::bad_gateway(Outcome::NotACompletion)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Judges the whole of it at once, and in two steps.
    fn first_event(so_far: &str, end_of_stream: bool) -> Option<Result<(), Failure>> {
        let so_far = so_far.as_bytes();
        let at_once = FIRST_EVENT.judge(so_far, &mut 0, end_of_stream);
        for at in [so_far.len() / 3, so_far.len() / 2, so_far.len().saturating_sub(2)] {
            let mut judged = 0;
            let early = FIRST_EVENT.judge(&so_far[..at], &mut judged, false);
            assert_eq!(early.or_else(|| FIRST_EVENT.judge(so_far, &mut judged, end_of_stream)), at_once);
        }
        at_once
    }

    const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[]}}\n\n";
    const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
    const TEXT: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":\
                        {\"type\":\"text_delta\",\"text\":\"a\"}}\n\n";

    #[test]
    fn the_first_content_decides_and_a_start_proves_nothing() {
        assert_eq!(first_event(START, false), None);
        assert_eq!(first_event(&[START, PING, ": c\n\n"].concat(), false), None);
        assert_eq!(first_event(&[START, PING, TEXT].concat(), false), Some(Ok(())));
        let failed = |code| Some(Err(Failure::bad_gateway(code)));
        assert_eq!(first_event(START, true), failed(Outcome::NoFirstEvent));
        assert_eq!(first_event("", true), failed(Outcome::NoFirstEvent));
        assert_eq!(first_event("data: {\"choices\":[]}\n\n", false), failed(Outcome::MalformedEvent));
        assert_eq!(first_event("data: x\n\n", false), failed(Outcome::MalformedEvent));
        let stop = format!("{START}event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n");
        assert_eq!(first_event(&stop, false), Some(Err(Failure::of_request(Outcome::EmptyStream))));
    }

    #[test]
    fn an_error_in_place_of_the_first_event_has_the_status_of_its_kind() {
        let error = |kind: &str| {
            let error = json!({"type": "error", "error": {"type": kind, "message": "m"}});
            first_event(&format!("{START}event: error\ndata: {error}\n\n"), false)
        };
        let reported = |status| Some(Err(Failure::reported(status, Outcome::ErrorEvent)));
        assert_eq!(error("overloaded_error"), reported(Some(503)));
        assert_eq!(error("rate_limit_error"), reported(Some(429)));
        assert_eq!(error("invalid_request_error"), reported(Some(400)));
        assert_eq!(error("odd"), reported(None));
        assert_eq!(first_event("{\"type\":\"error\",\"error\":{\"type\":\"api_error\"}}", true), reported(Some(500)));
        assert_eq!(
            first_event("{\"type\":\"message\"}", true),
            Some(Err(Failure::bad_gateway(Outcome::WrongContentType)))
        );
    }

    #[test]
    fn a_whole_answer_is_a_message_with_something_in_it() {
        let read = |document: serde_json::Value| answer(document.to_string().as_bytes());
        let text = json!([{"type": "text", "text": "hello"}]);
        let usage = json!({"input_tokens": 3, "output_tokens": 5});
        let good =
            read(json!({"type": "message", "content": text, "stop_reason": "end_turn", "usage": usage})).unwrap();
        assert_eq!((good.usage.map(|usage| usage.output), good.text.is_empty()), (Some(5), true));
        assert!(!read(json!({"content": text})).unwrap().text.is_empty());
        // An empty turn is an answer if it says that it is one.
        assert!(read(json!({"type": "message", "content": [], "stop_reason": "end_turn", "usage": usage})).is_ok());
        for (document, failure) in [
            (json!({"type": "message", "content": []}), Failure::of_request(Outcome::NotACompletion)),
            (json!({"choices": []}), Failure::bad_gateway(Outcome::NotACompletion)),
            (json!({"error": {"message": "x"}}), Failure::reported(None, Outcome::ErrorBody)),
            (
                json!({"type": "error", "error": {"type": "overloaded_error"}}),
                Failure::reported(Some(503), Outcome::ErrorBody),
            ),
        ] {
            assert_eq!(read(document.clone()).unwrap_err(), failure, "{document}");
        }
        assert_eq!(answer(b"<html>").unwrap_err(), Failure::bad_gateway(Outcome::MalformedBody));
    }

    #[test]
    fn an_error_is_one_however_long_it_is() {
        for error in [&b"{\"type\": \"error\", \"err"[..], b" \n{ \"error\" : { \"x"] {
            assert!(beginning(error).is_err());
        }
        for other in [&b"{\"type\":\"message\",\"id"[..], b"{\"error\":null,", b"", b"["] {
            assert!(beginning(other).is_ok());
        }
    }
}
