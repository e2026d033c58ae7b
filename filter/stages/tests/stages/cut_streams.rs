//! A stream that breaks off after any of its bytes: whatever the cause, the output seen is charged once and nothing
//! stays held.

use crate::envoy::Envoy;
use crate::policy;
use crate::request::{Event, Request};
use serde_json::{Value, json};

const EVENTS: [&str; 5] = [
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Once upon a time\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\" there was\"},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":9,\"total_tokens\":18}}\n\n",
    "data: [DONE]\n\n",
];

/// How a stream ends early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The provider ends the body, as if it were complete.
    Ended,
    /// The provider ends the body with trailers.
    Trailers,
    /// The provider resets the stream.
    Reset,
    /// The caller disconnects.
    Left,
}

/// Sends the first `at` bytes of the stream through both stages, in pieces of `piece` bytes, then cuts it. Returns the
/// request, and whether the attempt failed.
fn cut_at(envoy: &mut Envoy, at: usize, piece: usize, cut: Cut) -> (Request, bool) {
    let stream = EVENTS.concat();
    let question = json!({"messages": [{"role": "user", "content": "Tell"}], "stream": true,
                          "stream_options": {"include_usage": true}});
    let mut request = envoy.chat("sk-acme", &question);
    let mut attempt = request.attempt(envoy, "vllm");
    let pieces = stream.as_bytes()[..at].chunks(piece).map(|piece| Event::Body(piece.to_vec(), false));
    attempt.respond([Event::head(200, "text/event-stream")].into_iter().chain(pieces));
    match cut {
        Cut::Ended => attempt.respond([Event::Body(Vec::new(), true)]),
        Cut::Trailers => attempt.respond([Event::Trailers]),
        Cut::Reset | Cut::Left => {}
    }
    let failed = attempt.status().is_none_or(|status| status != 200);
    if !failed {
        request.relay(&mut attempt);
    }
    attempt.end();
    match cut {
        Cut::Reset if !failed => request.cut("upstream_reset_after_response_started{remote_reset}", 200),
        Cut::Left => request.cut("downstream_remote_disconnect", 0),
        _ => {}
    }
    (request, failed)
}

/// The second attempt answers.
fn second_serves(envoy: &mut Envoy, request: &mut Request) {
    let mut second = request.attempt(envoy, "openai");
    let stream = EVENTS.concat().into_bytes();
    second.respond([Event::head(200, "text/event-stream"), Event::Body(stream, true)]);
    request.relay(&mut second);
    second.end();
}

fn check(cut: Cut, piece: usize) {
    let length = EVENTS.concat().len();
    // The role alone is nothing that the caller reads.
    let first_event = EVENTS[..2].concat().len();
    // At the end of a body, the marker needs no empty line after it.
    let done = if matches!(cut, Cut::Ended | Cut::Trailers) { length - "\n\n".len() } else { length };
    let usage_at = EVENTS[..4].concat().len();
    // After the end of its only choice an answer is complete, even without usage and the end marker.
    let ends = [EVENTS[..3].concat().len(), usage_at];
    let mut envoy = Envoy::new(&policy::document());
    let (mut charged, mut output_before) = (0, 0);
    for at in 0..=length {
        let place = format!("{cut:?} after {at} of {length} bytes, in pieces of {piece}");
        let (mut request, failed) = cut_at(&mut envoy, at, piece, cut);
        assert_eq!(failed, at < first_event, "{place}");
        if failed && cut != Cut::Left {
            // Nothing has reached the caller, so another model may answer.
            assert!(request.client.headers.is_none(), "{place}");
            second_serves(&mut envoy, &mut request);
            assert!(request.client.is_whole, "{place}");
        }
        let (body, is_reset) = (request.client.text(), request.client.is_reset);
        let is_answered = request.client.headers.is_some();
        let audit = request.end();
        let tokens = |name: &str| audit[name].as_u64().unwrap_or(0);
        charged += tokens("input_tokens") + tokens("output_tokens");
        assert_eq!(envoy.tokens_today("sk-acme"), charged, "{place}: {audit}");
        let code = audit["error_code"].as_str();
        let status = if code == Some("client_disconnected") { 499 } else { 200 };
        assert_eq!(audit["status"], status, "{place}: {audit}");
        if failed {
            match cut {
                Cut::Left => assert_eq!((code, is_answered), (Some("client_disconnected"), false), "{place}: {audit}"),
                _ => {
                    assert_eq!((code, &audit["model"]), (None, &json!("big")), "{place}: {audit}");
                    let reason = &audit["failed_attempts"][0]["reason"];
                    let expected = if cut == Cut::Reset { "no_response" } else { "no_first_event" };
                    assert_eq!(reason, expected, "{place}: {audit}");
                }
            }
        } else {
            let is_complete = matches!(cut, Cut::Ended | Cut::Trailers) && ends.contains(&at);
            // The gateway adds the missing marker, unless trailers end the body.
            let body = match body.strip_suffix(EVENTS[4]) {
                Some(body) if is_complete && cut == Cut::Ended => body,
                _ => {
                    assert!(!is_complete || cut == Cut::Trailers, "{place}: {body}");
                    &body
                }
            };
            // The caller has received whole events, as the provider sent them.
            let told: Vec<&str> = body.split_inclusive("\n\n").collect();
            let sent = EVENTS.concat();
            let whole = told.iter().take_while(|event| sent.contains(**event)).map(|event| event.len()).sum::<usize>();
            assert!(sent.starts_with(&body[..whole]), "{place}: {body}");
            check_end(cut, &body[whole..], is_reset, at >= done || is_complete, code, &place);
            // More bytes never cost less, and the provider's own count wins.
            let output = tokens("output_tokens");
            assert!(output >= output_before, "{place}: {output} after {output_before}");
            output_before = output;
            if at >= usage_at {
                assert_eq!((tokens("input_tokens"), output), (9, 9), "{place}: {audit}");
                assert_eq!(audit["usage_estimated"], false, "{place}: {audit}");
            } else {
                assert_eq!(audit["usage_estimated"], true, "{place}: {audit}");
            }
        }
        nothing_is_held(&mut envoy, &place);
    }
}

/// Checks what the caller and the audit record learn of the end.
#[track_caller]
fn check_end(cut: Cut, rest: &str, is_reset: bool, is_done: bool, code: Option<&str>, place: &str) {
    match cut {
        _ if is_done => assert_eq!((rest, is_reset, code), ("", false, None), "{place}"),
        // An event reports the error, and the record has the same code.
        Cut::Ended => {
            assert!(rest.contains("\"error\""), "{place}: {rest:?}");
            assert_eq!((is_reset, code), (false, Some("stream_truncated")), "{place}");
        }
        // No event can follow trailers, so the stream must not look complete.
        Cut::Trailers => assert_eq!((rest, is_reset, code), ("", true, Some("stream_truncated")), "{place}"),
        Cut::Reset => assert_eq!((rest, code), ("", Some("stream_reset")), "{place}"),
        Cut::Left => assert_eq!((rest, code), ("", Some("client_disconnected")), "{place}"),
    }
}

/// Checks that the tenant's and the model's places are free for the next request. It costs nothing: its caller
/// disconnects before it reaches a provider.
#[track_caller]
fn nothing_is_held(envoy: &mut Envoy, place: &str) {
    let next = envoy.chat("sk-acme", &json!({"messages": [{"role": "user", "content": "Next"}]}));
    let audit: Value = next.end_without_answer();
    assert_eq!((&audit["plan"], &audit["quota_window"]), (&json!(["small", "big"]), &json!(null)), "{place}: {audit}");
    assert!(audit["input_tokens"].is_null(), "{place}: {audit}");
}

/// The sizes of the pieces in which the stream arrives.
const AT_ONCE: usize = usize::MAX;
const BYTES: usize = 1;

#[test]
fn a_provider_that_ends_early_at_any_byte() {
    check(Cut::Ended, AT_ONCE);
}

#[test]
fn a_provider_that_ends_early_at_any_byte_of_a_stream_of_bytes() {
    check(Cut::Ended, BYTES);
}

#[test]
fn a_provider_that_ends_early_by_trailers_at_any_byte() {
    check(Cut::Trailers, AT_ONCE);
}

#[test]
fn a_provider_that_ends_early_by_trailers_at_any_byte_of_a_stream_of_bytes() {
    check(Cut::Trailers, BYTES);
}

#[test]
fn a_provider_that_breaks_off_at_any_byte() {
    check(Cut::Reset, AT_ONCE);
}

#[test]
fn a_provider_that_breaks_off_at_any_byte_of_a_stream_of_bytes() {
    check(Cut::Reset, BYTES);
}

#[test]
fn a_caller_that_leaves_at_any_byte() {
    check(Cut::Left, AT_ONCE);
}

#[test]
fn a_caller_that_leaves_at_any_byte_of_a_stream_of_bytes() {
    check(Cut::Left, BYTES);
}
