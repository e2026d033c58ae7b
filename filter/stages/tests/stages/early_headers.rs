//! Where the policy wants a stream's headers early, the model stage holds nothing that is labelled as a stream.

use crate::envoy::Envoy;
use crate::policy;
use crate::request::{Event, Request};
use serde_json::{Value, json};

fn early() -> Envoy {
    let mut document = policy::document();
    document["tasks"]["chat"]["resilience"] = json!({"early_headers": true});
    Envoy::new(&document)
}

fn question(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "Hello"}], "stream": stream})
}

/// Lets the first model answer with these events, which go on to the caller. Returns the request.
fn answered(envoy: &mut Envoy, events: Vec<Event>) -> Request {
    let mut request = envoy.chat("sk-acme", &question(true));
    let mut first = request.attempt(envoy, "vllm");
    first.respond([Event::head(200, "text/event-stream")]);
    assert_eq!(first.status(), Some(200), "nothing is held");
    first.respond(events);
    request.relay(&mut first);
    first.end();
    request
}

#[test]
fn an_error_after_the_headers_is_an_event_and_costs_nothing() {
    for (text, code) in [
        (": wait\n\ndata: {\"error\": {\"message\": \"busy\", \"code\": 503}}\n\n", "stream_error"),
        (": wait\n\ndata: {\"choices\n\n", "stream_malformed"),
        (": wait\n\ndata: [DONE]\n\n", "stream_truncated"),
        (": wait\n\n", "stream_truncated"),
    ] {
        let mut envoy = early();
        let request = answered(&mut envoy, vec![Event::Body(text.into(), true)]);
        assert_eq!((request.client.status(), request.client.header("x-pointsman-model")), (200, Some("small")));
        let told = request.client.text().to_owned();
        assert!(told.starts_with(": wait\n\n") && told.contains(code) && !told.contains("[DONE]"), "{told}");
        let audit = request.end();
        assert_eq!((&audit["error_code"], &audit["fallback_used"]), (&json!(code), &json!(false)), "{audit}");
        assert_eq!(envoy.tokens_today("sk-acme"), 0);
    }
}

#[test]
fn an_answer_after_comments_is_an_answer() {
    let chunk = "data: {\"choices\": [{\"index\": 0, \"delta\": {\"content\": \"Hi\"}}]}\n\n";
    let usage = "data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 9, \"completion_tokens\": 3}}\n\n";
    let mut envoy = early();
    let body = [": wait\n\n", chunk, usage, "data: [DONE]\n\n"].map(|part| Event::Body(part.into(), false));
    let end = Event::Body(Vec::new(), true);
    let request = answered(&mut envoy, body.into_iter().chain([end]).collect());
    assert!(request.client.text().starts_with(": wait\n\n") && request.client.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(request.end()["error_code"], Value::Null);
    assert_eq!(envoy.tokens_today("sk-acme"), 12);
}

#[test]
fn what_is_no_stream_by_its_label_and_a_status_lead_to_the_next_model() {
    let error = json!({"error": {"message": "busy"}});
    for (status, content_type) in [(200, "application/json"), (200, ""), (503, "application/json")] {
        let mut envoy = early();
        let mut request = envoy.chat("sk-acme", &question(true));
        let mut first = request.attempt(&mut envoy, "vllm");
        first.respond([Event::head(status, content_type), Event::Body(error.to_string().into(), true)]);
        assert!(first.status().is_some_and(|status| status >= 424), "{content_type}");
        first.end();
        request.end_without_answer();
    }
    // Without a stream, the body is held as ever.
    let mut envoy = early();
    let mut request = envoy.chat("sk-acme", &question(false));
    let mut first = request.attempt(&mut envoy, "vllm");
    first.respond([Event::head(200, "application/json")]);
    assert_eq!(first.status(), None);
    first.end();
    request.end_without_answer();
}
