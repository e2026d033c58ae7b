//! A provider that refuses: whether the model stage asks Envoy for the next attempt, and what the caller is told.

use crate::envoy::Envoy;
use crate::fake_host::Headers;
use crate::policy;
use crate::request::{Attempt, Event, Request};
use serde_json::{Value, json};

/// The policy, in which the second model has a larger context window.
fn document() -> Value {
    let mut document = policy::document();
    document["models"]["big"]["context"] = json!(200_000);
    document["tasks"]["shorter"] = json!({"primary": "big", "fallback": ["small"]});
    document["tasks"]["again"] = json!({"primary": "small", "fallback": ["small"]});
    document
}

fn question(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hello"}]})
}

fn too_long() -> Value {
    json!({"error": {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"}})
}

/// The first attempt, at this provider.
fn first(envoy: &mut Envoy, model: &str, provider: &str) -> (Request, Attempt) {
    let mut request = envoy.chat("sk-acme", &question(model));
    let attempt = request.attempt(envoy, provider);
    (request, attempt)
}

/// Whether the attempt asks for the next one.
fn leads_on(attempt: &Attempt) -> bool {
    attempt.header("x-pointsman-next").is_some()
}

/// The next attempt, at this provider, serves. Returns the audit record.
fn next_serves(envoy: &mut Envoy, mut request: Request, first: Attempt, provider: &str) -> Value {
    assert!(leads_on(&first));
    // Before Envoy 1.38, what was held would reach the caller.
    let is_refused = first.status().is_some_and(|status| matches!(status, 400 | 413 | 422));
    assert!(!is_refused || !first.out.iter().any(|event| matches!(event, Event::Body(body, _) if !body.is_empty())));
    first.end();
    let mut second = request.attempt(envoy, provider);
    second.respond(Event::answer(200, &json!({"choices": [{"message": {"content": "Hi"}}]})));
    request.relay(&mut second);
    second.end();
    assert_eq!((request.client.status(), request.client.header("x-pointsman-next")), (200, None));
    request.end()
}

/// The attempt is the last one. Returns the client's status and error, and the audit record.
fn is_told(mut request: Request, mut attempt: Attempt) -> (u16, Value, Value) {
    assert!(!leads_on(&attempt));
    request.relay(&mut attempt);
    attempt.end();
    assert!(request.client.is_whole);
    assert_eq!(request.client.header("x-should-retry"), Some("false"));
    let (status, error) = (request.client.status(), request.client.json()["error"].clone());
    (status, error, request.end())
}

#[test]
fn a_refusal_of_the_gateway_asks_for_another_provider_and_is_logged_once() {
    for status in [302, 401, 402, 403, 404, 410, 424, 499] {
        let mut envoy = Envoy::new(&document());
        for count in 1..=2 {
            let (request, mut attempt) = first(&mut envoy, "chat", "vllm");
            attempt.respond(Event::answer(status, &json!({"error": {"message": "sk-secret"}})));
            assert_eq!(attempt.status(), Some(status), "the router's log has the provider's status");
            let audit = next_serves(&mut envoy, request, attempt, "openai");
            let reason = format!("status_{status}");
            assert_eq!(audit["failed_attempts"], json!([{"model": "small", "reason": reason}]));
            assert_eq!(envoy.metric("llm_provider_refused_gateway_total|provider=vllm"), count);
        }
        let logs = envoy.logs();
        let said = logs.iter().filter(|line| line.contains("provider vllm refused the gateway"));
        assert_eq!(said.count(), 1, "{logs:?}");
        // No other provider.
        let (request, mut attempt) = first(&mut envoy, "again", "vllm");
        attempt.respond(Event::answer(status, &json!({"error": {"message": "sk-secret"}})));
        let (told, error, audit) = is_told(request, attempt);
        assert_eq!((told, &error["code"]), (502, &json!("provider_refused_gateway")));
        assert!(!error["message"].as_str().unwrap().contains("sk-"), "{error}");
        assert_eq!(audit["retry_count"], 0);
    }
}

#[test]
fn a_refusal_of_the_request_is_read_before_it_is_decided() {
    // In pieces and with its length, so that the end of the body need not be awaited.
    let body = too_long().to_string().into_bytes();
    let length = body.len().to_string();
    let mut envoy = Envoy::new(&document());
    let (request, mut attempt) = first(&mut envoy, "chat", "vllm");
    let headers = Headers::of(&[(":status", "400"), ("content-type", "application/json"), ("content-length", &length)]);
    attempt.respond([Event::Headers(headers, false), Event::Body(body[..20].to_vec(), false)]);
    assert_eq!(attempt.status(), None, "held");
    attempt.respond([Event::Body(body[20..].to_vec(), false)]);
    assert_eq!(attempt.status(), Some(400));
    let audit = next_serves(&mut envoy, request, attempt, "openai");
    assert_eq!(audit["failed_attempts"], json!([{"model": "small", "reason": "context_length_exceeded"}]));
    // Without, and ended by trailers.
    let (request, mut attempt) = first(&mut envoy, "chat", "vllm");
    attempt.respond([Event::head(413, "application/json"), Event::Body(body.clone(), false)]);
    assert_eq!(attempt.status(), None, "held");
    attempt.respond([Event::Trailers]);
    next_serves(&mut envoy, request, attempt, "openai");
    // To a smaller window it does not lead.
    let (request, mut attempt) = first(&mut envoy, "shorter", "openai");
    attempt.respond(Event::answer(422, &too_long()));
    let (status, error, audit) = is_told(request, attempt);
    assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")));
    assert_eq!(error["message"], "the request exceeds the available context size");
    assert_eq!((&audit["status"], &audit["error_code"]), (&json!(400), &json!("context_length_exceeded")));
}

#[test]
fn any_other_refusal_of_the_request_is_the_callers() {
    let refusal = json!({"detail": [{"loc": ["body", "messages", 0, "content"], "msg": "Field required"}]});
    for (model, provider) in [("chat", "vllm"), ("again", "vllm"), ("shorter", "openai")] {
        let mut envoy = Envoy::new(&document());
        let (request, mut attempt) = first(&mut envoy, model, provider);
        attempt.respond(Event::answer(422, &refusal));
        let (status, error, audit) = is_told(request, attempt);
        assert_eq!((status, &error["code"]), (422, &json!("provider_rejected_request")));
        assert_eq!(error["message"], "messages.0.content: Field required");
        assert_eq!(error["param"], "messages.0.content");
        assert_eq!(audit["failed_attempts"][0]["reason"], "status_422");
        assert_eq!(envoy.metric("llm_provider_refused_gateway_total"), 0);
    }
    // Nor is one that is too long to be read, or has no body.
    for body in [vec![b'x'; 600 << 10], Vec::new()] {
        let mut envoy = Envoy::new(&document());
        let (request, mut attempt) = first(&mut envoy, "chat", "vllm");
        let is_empty = body.is_empty();
        let headers = Headers::of(&[(":status", "400"), ("content-type", "application/json")]);
        attempt.respond([Event::Headers(headers, is_empty)]);
        if !is_empty {
            attempt.respond([Event::Body(body, false), Event::Body(Vec::new(), true)]);
        }
        assert_eq!(is_told(request, attempt).0, 400);
    }
}

#[test]
fn a_refusal_in_place_of_an_answer_asks_for_the_model_that_may_serve() {
    for (error, model, provider, next, reason) in [
        (json!({"code": 401}), "chat", "vllm", Some("openai"), "provider_refused_gateway"),
        (json!({"code": 404}), "again", "vllm", None, "provider_refused_gateway"),
        (
            json!({"code": 400, "message": "prompt is too long"}),
            "chat",
            "vllm",
            Some("openai"),
            "context_length_exceeded",
        ),
        (json!({"code": 400, "message": "prompt is too long"}), "shorter", "openai", None, "context_length_exceeded"),
        (json!({"code": 400, "message": "No."}), "chat", "vllm", None, "error_"),
        (json!({"code": "model_not_found"}), "again", "vllm", None, "provider_refused_gateway"),
        (json!({"type": "exceed_context_size_error"}), "shorter", "openai", None, "context_length_exceeded"),
        (json!({"code": 503}), "chat", "vllm", Some("openai"), "error_"),
        (json!({"message": "No."}), "chat", "vllm", Some("openai"), "error_"),
    ] {
        for stream in [false, true] {
            let mut envoy = Envoy::new(&document());
            let mut asked = question(model);
            asked["stream"] = stream.into();
            let mut request = envoy.chat("sk-acme", &asked);
            let mut attempt = request.attempt(&mut envoy, provider);
            let document = json!({"error": error});
            match stream {
                false => attempt.respond(Event::answer(200, &document)),
                true => attempt.respond([
                    Event::head(200, "text/event-stream"),
                    Event::Body(format!("data: {document}\n\n").into_bytes(), false),
                ]),
            }
            assert_eq!(leads_on(&attempt), next.is_some(), "{document} {model}");
            if next.is_none() {
                let code = match reason {
                    "error_" => "provider_rejected_request",
                    code => code,
                };
                let (status, told, _) = is_told(request, attempt);
                assert_eq!(
                    (status, &told["code"]),
                    (if code.starts_with("provider_ref") { 502 } else { 400 }, &json!(code))
                );
                continue;
            }
            attempt.end();
            request.attempt(&mut envoy, "openai").end();
            let failed = request.end_without_answer()["failed_attempts"].clone();
            assert!(failed[0]["reason"].as_str().unwrap().starts_with(reason), "{document} {failed}");
        }
    }
}

#[test]
fn a_wait_is_for_envoy_if_the_same_provider_is_next_else_for_the_caller() {
    let told = |model: &str, headers: &[(&str, &str)]| {
        let mut envoy = Envoy::new(&document());
        let (_, mut attempt) = first(&mut envoy, model, "vllm");
        let headers = [&[(":status", "429"), ("content-type", "application/json")], headers].concat();
        attempt.respond([Event::Headers(Headers::of(&headers), false)]);
        let one = |name| attempt.header(name).map(str::to_owned);
        (one("retry-after"), one("retry-after-ms"))
    };
    let some = |text: &str| Some(text.to_owned());
    // Envoy reads whole seconds.
    assert_eq!(told("again", &[("retry-after", "7")]), (some("7"), None));
    assert_eq!(told("again", &[("retry-after", "0.5")]), (some("1"), None));
    assert_eq!(told("again", &[("retry-after-ms", "1500")]), (some("2"), some("1500")));
    assert_eq!(told("again", &[("retry-after", "99999")]), (None, None));
    assert_eq!(told("chat", &[("retry-after", "0.5"), ("retry-after-ms", "500")]), (None, None));
    // Nothing follows.
    for wait in ["0.5", "7", "Sun, 06 Nov 1994 08:49:37 GMT"] {
        let ms: &[(&str, &str)] = &[("retry-after", wait), ("retry-after-ms", "500.5")];
        for model in ["small", "alone"] {
            let mut asked = question(model);
            asked["stream"] = true.into();
            let mut envoy = Envoy::new(&document());
            let mut request = envoy.chat("sk-acme", &asked);
            let mut attempt = request.attempt(&mut envoy, "vllm");
            let headers = [&[(":status", "429"), ("content-type", "application/json"), ("content-length", "2")], ms];
            attempt.respond([Event::Headers(Headers::of(&headers.concat()), false), Event::Body(b"{}".to_vec(), true)]);
            request.relay(&mut attempt);
            attempt.end();
            let said = ["retry-after", "retry-after-ms"].map(|name| request.client.header(name).map(str::to_owned));
            assert_eq!((request.client.status(), said), (429, [some(wait), some("500.5")]));
            request.end();
        }
    }
}
