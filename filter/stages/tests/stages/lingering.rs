//! Streams whose provider goes on after their end.

use crate::envoy::Envoy;
use crate::policy;
use crate::request::{Attempt, Event, Request};
use serde_json::{Value, json};

const CHUNK: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3}}\n\n";
const PING: &[u8] = b": ping\n\n";

/// Asks for a stream, which goes to the plan's first model.
fn begin(envoy: &mut Envoy) -> (Request, Attempt) {
    let question = json!({"messages": [{"role": "user", "content": "Tell"}], "stream": true});
    let mut request = envoy.chat("sk-acme", &question);
    let attempt = request.attempt(envoy, "vllm");
    (request, attempt)
}

/// The tenant's and the model's only places are free: another request of the tenant goes to the plan's first model.
#[track_caller]
fn is_free(envoy: &mut Envoy) -> Value {
    let next = envoy.chat("sk-acme", &json!({"messages": [{"role": "user", "content": "Next"}]}));
    let audit = next.end_without_answer();
    assert_eq!((&audit["plan"], &audit["quota_window"]), (&json!(["small", "big"]), &json!(null)), "{audit}");
    audit
}

#[test]
fn the_places_are_free_at_the_end_marker_and_the_body_may_end_later() {
    let mut envoy = Envoy::new(&policy::document());
    let (mut request, mut attempt) = begin(&mut envoy);
    let stream = [CHUNK, USAGE, "data: [DONE]\n\n"].concat().into_bytes();
    attempt.respond([Event::head(200, "text/event-stream"), Event::Body(stream, false)]);
    request.relay(&mut attempt);
    assert!(request.client.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(envoy.tokens_today("sk-acme"), 12);
    assert!(is_free(&mut envoy)["input_tokens"].is_null(), "it never reached a provider");
    attempt.respond([Event::Body(PING.to_vec(), false), Event::Body(Vec::new(), true)]);
    request.relay(&mut attempt);
    attempt.end();
    assert!(request.client.is_whole && !request.client.is_reset);
    let audit = request.end();
    assert_eq!((&audit["error_code"], &audit["output_tokens"]), (&json!(null), &json!(3)), "{audit}");
    // Charged once.
    assert_eq!(envoy.tokens_today("sk-acme"), 12);
}

#[test]
fn a_provider_that_goes_on_after_an_error_is_cut_off() {
    let mut envoy = Envoy::new(&policy::document());
    let (mut request, mut attempt) = begin(&mut envoy);
    let stream = [CHUNK, "data: {\"error\":{\"message\":\"out of memory\"}}\n\n"].concat().into_bytes();
    attempt.respond([Event::head(200, "text/event-stream"), Event::Body(stream, false)]);
    request.relay(&mut attempt);
    assert!(request.client.text().contains("stream_error"));
    is_free(&mut envoy);
    assert!(!request.client.is_reset);
    // The end marker that many servers still send is no reason.
    attempt.respond([Event::Body(b"data: [DONE]\n\n".to_vec(), false)]);
    request.relay(&mut attempt);
    assert!(!request.client.is_reset);
    attempt.respond([Event::Body(PING.repeat(200), false)]);
    request.relay(&mut attempt);
    attempt.end();
    assert!(request.client.is_reset);
    assert_eq!(request.end()["error_code"], "stream_error");
}

#[test]
fn a_response_that_stays_open_after_its_end_is_reset_once_the_caller_has_the_end() {
    for (last, open_ms, code) in [
        ("data: {\"error\":{\"message\":\"out of memory\"}}\n\n", 90, json!("stream_error")),
        ("data: {oops\n\n", 90, json!("stream_malformed")),
        ("data: [DONE]\n\n", 9_000, json!(null)),
    ] {
        let mut envoy = Envoy::new(&policy::document());
        let idle_ms = envoy.tick_ms();
        let (mut request, mut attempt) = begin(&mut envoy);
        let stream = [CHUNK, USAGE, last].concat().into_bytes();
        attempt.respond([Event::head(200, "text/event-stream"), Event::Body(stream, false)]);
        request.relay(&mut attempt);
        // Pings do not keep it open.
        envoy.pass(open_ms);
        attempt.respond([Event::Body(PING.to_vec(), false)]);
        request.relay(&mut attempt);
        assert!(!request.is_reset(), "{last}");
        envoy.pass(open_ms);
        assert!(request.is_reset(), "{last}");
        attempt.end();
        assert_eq!(request.end()["error_code"], code);
        envoy.pass(2000);
        assert_eq!(envoy.tick_ms(), idle_ms, "nothing lingers any more");
    }
}

#[test]
fn a_response_that_ends_in_time_is_not_reset() {
    let mut envoy = Envoy::new(&policy::document());
    let (mut request, mut attempt) = begin(&mut envoy);
    let stream = [CHUNK, USAGE, "data: [DONE]\n\n"].concat().into_bytes();
    attempt.respond([Event::head(200, "text/event-stream"), Event::Body(stream, false)]);
    request.relay(&mut attempt);
    envoy.pass(5000);
    attempt.respond([Event::Body(Vec::new(), true)]);
    request.relay(&mut attempt);
    attempt.end();
    assert!(request.client.is_whole && !request.is_reset());
    request.end();
    envoy.pass(60_000);
}

#[test]
fn a_place_at_a_fallback_model_is_free_at_the_end_marker() {
    let mut envoy = Envoy::new(&policy::document());
    let question = json!({"messages": [{"role": "user", "content": "Tell"}], "stream": true});
    let mut request = envoy.chat("sk-acme", &question);
    let mut first = request.attempt(&mut envoy, "vllm");
    first.respond(Event::answer(503, &json!({})));
    first.end();
    let mut second = request.attempt(&mut envoy, "openai");
    let others_plan = |envoy: &mut Envoy| {
        let other = envoy.chat("sk-other", &json!({"messages": [{"role": "user", "content": "Next"}]}));
        other.end_without_answer()["plan"].clone()
    };
    let stream = [CHUNK, USAGE, "data: [DONE]\n\n"].concat().into_bytes();
    second.respond([Event::head(200, "text/event-stream"), Event::Body(stream, false)]);
    second.respond([Event::Body(PING.to_vec(), false)]);
    // The model's only place is taken, so the plan has the other model alone.
    request.relay_head(&mut second);
    assert_eq!(others_plan(&mut envoy), json!(["small"]));
    request.relay(&mut second);
    assert_eq!(others_plan(&mut envoy), json!(["small", "big"]));
    // It is released once: another attempt still counts when this one ends.
    let mut next = envoy.chat("sk-other", &question);
    let mut refused = next.attempt(&mut envoy, "vllm");
    refused.respond(Event::answer(503, &json!({})));
    refused.end();
    let third = next.attempt(&mut envoy, "openai");
    second.end();
    request.end();
    let plan = others_plan(&mut envoy);
    assert!(plan == json!(["small"]) || plan == json!([]), "{plan}");
    third.end();
    next.end_without_answer();
    assert_eq!(others_plan(&mut envoy), json!(["small", "big"]));
}

#[test]
fn a_provider_that_sends_much_after_the_end_marker_is_cut_off() {
    let mut envoy = Envoy::new(&policy::document());
    let (mut request, mut attempt) = begin(&mut envoy);
    let stream = [CHUNK, USAGE, "data: [DONE]\n\n"].concat().into_bytes();
    let more = || Event::Body(vec![b'x'; 40 << 10], false);
    attempt.respond([Event::head(200, "text/event-stream"), Event::Body(stream, false), more(), more()]);
    request.relay(&mut attempt);
    attempt.end();
    assert!(request.client.is_reset && request.client.text().ends_with("[DONE]\n\n"));
    assert_eq!(request.end()["error_code"], json!(null));
}
