//! An attempt that fails, and the next one, which must not see any trace of it.

use crate::envoy::Envoy;
use crate::fake_host::Headers;
use crate::policy;
use crate::request::{Event, Request};
use serde_json::{Value, json};

fn question(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "Hello"}], "stream": stream})
}

fn completion() -> Value {
    json!({"choices": [{"message": {"content": "Hi"}}],
           "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}})
}

/// The second attempt, at another provider, serves the request. Returns the audit record.
fn second_serves(envoy: &mut Envoy, mut request: Request, events: Vec<Event>) -> Value {
    let first = request.sent.clone().unwrap();
    let mut second = request.attempt(envoy, "openai");
    second.sent.check_length();
    assert_eq!(second.sent.header(":path"), Some("/hosted/v1/chat/completions"));
    assert_eq!(second.sent.json()["model"], "gpt-4.1-long-name");
    assert_eq!(second.sent.json()["messages"], first.json()["messages"]);
    for credential in ["x-vllm-key", "authorization"] {
        assert_eq!(second.sent.header(credential), None, "{credential}");
    }
    second.respond(events);
    assert_eq!(second.status(), Some(200));
    request.relay(&mut second);
    second.end();
    assert!(request.client.is_whole);
    assert_eq!(request.client.status(), 200);
    assert_eq!(request.client.header("x-pointsman-model"), Some("big"));
    assert_eq!(request.client.header("x-pointsman-attempts"), Some("2"));
    assert_eq!(request.client.header("x-pointsman-fallback"), Some("true"));
    let audit = request.end();
    assert_eq!(audit["fallback_used"], true, "{audit}");
    assert_eq!((&audit["model"], &audit["fallback_from"]), (&json!("big"), &json!("small")), "{audit}");
    assert_eq!((&audit["retry_count"], &audit["error_code"]), (&json!(1), &json!(null)), "{audit}");
    audit
}

#[track_caller]
fn nothing_is_held(envoy: &mut Envoy) {
    // The tenant has one place, and so has each model.
    let next = envoy.chat("sk-acme", &question(false));
    assert_eq!(next.end_without_answer()["plan"], json!(["small", "big"]));
}

#[test]
fn a_status_leads_to_the_next_model() {
    for status in [429, 500, 503] {
        let mut envoy = Envoy::new(&policy::document());
        let mut request = envoy.chat("sk-acme", &question(false));
        let mut first = request.attempt(&mut envoy, "vllm");
        // Like the credential injector, which runs after the model stage.
        add_credential(&mut request, "x-vllm-key", "Bearer secret");
        first.respond(Event::answer(status, &json!({"error": {"message": "busy"}})));
        assert_eq!(first.status(), Some(status));
        first.end();
        let audit = second_serves(&mut envoy, request, Event::answer(200, &completion()));
        assert_eq!(audit["failed_attempts"], json!([{"model": "small", "reason": format!("status_{status}")}]));
        assert_eq!(envoy.tokens_today("sk-acme"), 12);
        assert_eq!(envoy.metric("llm_fallbacks_total|"), 1);
        nothing_is_held(&mut envoy);
    }
}

fn add_credential(request: &mut Request, name: &str, value: &str) {
    request.sent.as_mut().unwrap().headers.0.push((name.into(), value.into()));
}

#[test]
fn a_stream_that_begins_with_an_error_leads_to_the_next_model() {
    // Outlier detection counts none below 500, so failures that may concern this request alone have such a status.
    let first_events: [(&str, u16, &[u8]); 4] = [
        ("error_event", 503, b"data: {\"error\": {\"message\": \"out of memory\", \"code\": 503}}\n\n"),
        ("error_event", 424, b"data: {\"error\": {\"message\": \"flagged by moderator\"}}\n\n"),
        ("malformed_event", 502, b"data: {\"choices\n\n"),
        ("empty_stream", 424, b"data: [DONE]\n\n"),
    ];
    for (reason, status, event) in first_events {
        let mut envoy = Envoy::new(&policy::document());
        let mut request = envoy.chat("sk-acme", &question(true));
        let mut first = request.attempt(&mut envoy, "vllm");
        add_credential(&mut request, "x-vllm-key", "Bearer secret");
        first.respond([Event::head(200, "text/event-stream")]);
        assert_eq!(first.status(), None, "held until its first event");
        first.respond([Event::Body(event.to_vec(), false)]);
        assert_eq!((first.status(), first.header("x-pointsman-next")), (Some(status), Some("1")), "{reason}");
        // None of its body goes on.
        assert!(first.out.iter().all(|event| !matches!(event, Event::Body(bytes, _) if !bytes.is_empty())));
        first.end();
        let chunk = "data: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"Hi\"}}]}\n\n";
        let usage = "data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 9, \"completion_tokens\": 3}}\n\n";
        let stream = [chunk, usage, "data: [DONE]\n\n"].concat().into_bytes();
        let events = vec![Event::head(200, "text/event-stream"), Event::Body(stream, true)];
        let audit = second_serves(&mut envoy, request, events);
        assert_eq!(audit["failed_attempts"], json!([{"model": "small", "reason": reason}]), "{audit}");
        assert_eq!(envoy.tokens_today("sk-acme"), 12);
        nothing_is_held(&mut envoy);
    }
}

#[test]
fn an_attempt_that_never_answered_is_recorded_by_the_next() {
    let mut envoy = Envoy::new(&policy::document());
    let mut request = envoy.chat("sk-acme", &question(false));
    request.attempt(&mut envoy, "vllm").end();
    let audit = second_serves(&mut envoy, request, Event::answer(200, &completion()));
    assert_eq!(audit["failed_attempts"], json!([{"model": "small", "reason": "no_response"}]), "{audit}");
    nothing_is_held(&mut envoy);
}

#[test]
fn when_the_last_attempt_fails_the_caller_is_told_and_charged_nothing() {
    let mut envoy = Envoy::new(&policy::document());
    let mut request = envoy.chat("sk-acme", &question(false));
    request.attempt(&mut envoy, "vllm").end();
    let mut second = request.attempt(&mut envoy, "openai");
    let headers = Headers::of(&[(":status", "529"), ("content-type", "application/json"), ("retry-after", "7")]);
    let body = json!({"error": {"message": "sk-secret is overloaded", "type": "overloaded_error"}});
    second.respond([Event::Headers(headers, false), Event::Body(body.to_string().into_bytes(), true)]);
    assert_eq!(second.status(), Some(529));
    request.relay(&mut second);
    second.end();
    assert!(request.client.is_whole);
    assert!(request.client.status() >= 500, "{}", request.client.status());
    assert_eq!(request.client.header("retry-after"), Some("7"));
    assert!(request.client.json()["error"]["code"].is_string(), "{}", request.client.text());
    let audit = request.end();
    assert_eq!(audit["failed_attempts"].as_array().unwrap().len(), 2, "{audit}");
    assert!(audit["error_code"].is_string(), "{audit}");
    assert_eq!(envoy.tokens_today("sk-acme"), 0);
    nothing_is_held(&mut envoy);
}

#[test]
fn a_refusal_of_the_request_is_the_callers() {
    let mut envoy = Envoy::new(&policy::document());
    let mut request = envoy.chat("sk-acme", &question(false));
    let mut first = request.attempt(&mut envoy, "vllm");
    first.respond(Event::answer(400, &json!({"error": {"message": "no such tool", "type": "invalid_request_error"}})));
    assert_eq!(first.status(), Some(400));
    request.relay(&mut first);
    first.end();
    assert_eq!((request.client.status(), request.client.header("x-should-retry")), (400, Some("false")));
    assert_eq!(request.client.json()["error"]["message"], "no such tool");
    request.end();
    nothing_is_held(&mut envoy);
}
