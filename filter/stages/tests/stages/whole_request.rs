//! One request from its first header to its audit record, and what is refused on the way.

use crate::envoy::Envoy;
use crate::policy;
use crate::request::Event;
use pointsman_core::routing::dispatch::{ROUTED, STATE_PROVIDER, STATE_ROUTED};
use serde_json::json;

#[test]
fn a_request_goes_through_both_stages_and_leaves_nothing_behind() {
    let mut envoy = Envoy::new(&policy::document());
    let body = json!({"messages": [{"role": "user", "content": "Hello"}], "model": "auto", "user": "ann"});
    let headers = [("cookie", "session=1"), ("x-forwarded-for", "10.0.0.1"), ("x-pointsman-plan", "forged")];
    let mut request = envoy.chat_with("sk-acme", &headers, &body);

    let sent = request.sent.clone().unwrap();
    sent.check_length();
    assert_eq!(sent.header("x-pointsman-cluster"), Some("plan.vllm+openai"));
    assert_eq!(sent.header("user-agent"), Some("pointsman"));
    for gone in ["authorization", "cookie", "x-forwarded-for", "x-pointsman-plan"] {
        assert_eq!(sent.header(gone), None, "{gone}");
    }
    assert_eq!(sent.json()["messages"], body["messages"]);

    let mut attempt = request.attempt(&mut envoy, "vllm");
    attempt.sent.check_length();
    assert_eq!(attempt.sent.header(":path"), Some("/v1/chat/completions"));
    assert_eq!(attempt.sent.json()["model"], "qwen");
    assert_eq!(attempt.sent.json()["max_tokens"], 100);
    envoy.host.state().now_ms += 250;
    attempt.respond(Event::answer(
        200,
        &json!({"object": "chat.completion", "model": "qwen", "choices": [{"message": {"content": "Hi"}}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}}),
    ));
    assert_eq!(attempt.status(), Some(200));
    request.relay(&mut attempt);
    attempt.end();
    assert!(request.client.is_whole);
    assert_eq!(request.client.status(), 200);
    assert_eq!(request.client.json()["choices"][0]["message"]["content"], "Hi");
    assert_eq!(request.client.header("x-pointsman-model"), Some("small"));
    assert_eq!(request.client.header("x-pointsman-attempts"), Some("1"));
    assert_eq!(request.client.header("x-ratelimit-limit-tokens"), Some("100000000"));
    let audit = request.end();
    let expected = json!({
        "trace_id": "trace-1", "tenant_id": "acme", "tier": "metered", "endpoint": "chat", "task": "chat",
        "provider": "vllm", "model": "small", "plan": ["small", "big"], "left_out": [], "stream": false,
        "status": 200, "input_tokens": 9, "output_tokens": 3, "usage_estimated": false, "latency_ms": 250,
        "estimated_cost_usd": 0.000012, "retry_count": 0, "failed_attempts": [], "fallback_used": false,
        "policy_decision": "allow", "error_code": null,
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&audit[name], value, "{name} in {audit}");
    }
    assert!(audit["user_id_hash"].is_string(), "{audit}");
    assert_eq!(envoy.metric("llm_requests_total|"), 1);
    assert_eq!(envoy.metric("llm_input_tokens_total|"), 9);
    assert_eq!(envoy.metric("llm_latency_ms|"), 250);
    assert_eq!(envoy.metric("llm_quota_remaining|"), 100_000_000 - 12);
    assert_eq!(envoy.tokens_today("sk-acme"), 12);
    // The tenant has room for one request at a time, and so has the model.
    let next = envoy.chat("sk-acme", &body);
    assert_eq!(next.end_without_answer()["plan"], json!(["small", "big"]));
    assert!(envoy.host.state().logs.is_empty(), "{:?}", envoy.host.state().logs);
}

#[test]
fn what_fills_the_tenants_room_is_refused_until_it_has_ended() {
    let mut envoy = Envoy::new(&policy::document());
    let body = json!({"messages": [{"role": "user", "content": "Hello"}]});
    let first = envoy.chat("sk-acme", &body);
    let second = envoy.chat("sk-acme", &body);
    assert!(first.sent.is_some() && second.sent.is_none());
    assert_eq!(second.client.status(), 429);
    let audit = second.end();
    assert_eq!((&audit["policy_decision"], &audit["quota_window"]), (&json!("deny"), &json!("concurrent")));
    first.end_without_answer();
    assert!(envoy.chat("sk-acme", &body).sent.is_some());
}

#[test]
fn a_full_model_is_left_out_until_its_request_has_ended() {
    let mut envoy = Envoy::new(&policy::document());
    let body = json!({"messages": [{"role": "user", "content": "Hello"}]});
    let first = envoy.chat("sk-other", &body);
    // The other worker of the same Envoy shares the count.
    let mut beside = envoy.beside(&policy::document());
    let second = beside.chat("sk-other", &body);
    let audit = second.end_without_answer();
    assert_eq!((&audit["plan"], &audit["left_out"][0]["model"]), (&json!(["big"]), &json!("small")), "{audit}");
    first.end_without_answer();
    assert_eq!(beside.chat("sk-other", &body).end_without_answer()["plan"], json!(["small", "big"]));
}

#[test]
fn who_has_no_key_gets_no_further_than_the_headers() {
    let mut envoy = Envoy::new(&policy::document());
    let request = envoy.chat("sk-unknown", &json!({"messages": []}));
    assert!(request.sent.is_none());
    assert_eq!((request.client.status(), request.client.header("www-authenticate")), (401, Some("Bearer")));
    let audit = request.end();
    assert_eq!((&audit["error_code"], &audit["tenant_id"]), (&json!("invalid_api_key"), &json!(null)), "{audit}");
}

#[test]
fn a_body_that_arrives_in_pieces_is_the_same() {
    let body = json!({"model": "small", "messages": [{"role": "user", "content": "x".repeat(20_000)}]}).to_string();
    let mut sent = Vec::new();
    for pieces in [1, 3] {
        let mut envoy = Envoy::new(&policy::document());
        let headers = [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            ("content-type", "application/json"),
            ("authorization", "Bearer sk-acme"),
        ];
        let mut request = envoy.request(&headers, false);
        let size = body.len().div_ceil(pieces);
        for (at, piece) in body.as_bytes().chunks(size).enumerate() {
            assert!(request.sent.is_none());
            request.body(piece, at + 1 == pieces);
        }
        sent.push(request.sent.clone().unwrap().body);
    }
    assert_eq!(sent[0], sent[1]);
}

#[test]
fn a_plan_of_one_goes_without_the_model_stage() {
    let mut envoy = Envoy::new(&policy::document());
    let body = json!({"messages": [{"role": "user", "content": "Hello"}]});
    let mut request = envoy.chat_with("sk-acme", &[("x-pointsman-task", "alone")], &body);
    let sent = request.sent.clone().unwrap();
    assert_eq!(sent.header("x-pointsman-cluster"), Some("direct.vllm"));
    let routed = envoy.host.context(request.id).state.borrow().get(STATE_ROUTED).cloned();
    assert_eq!(routed.as_deref(), Some(ROUTED.as_bytes()));
    let refused = envoy.chat("sk-nobody", &body);
    let routed = envoy.host.context(refused.id).state.borrow().get(STATE_ROUTED).cloned();
    assert_eq!((refused.client.status(), routed), (401, None));
    assert_eq!((sent.header(":path"), &sent.json()["model"]), (Some("/v1/chat/completions"), &json!("qwen")));
    let choices = json!([{"message": {"content": "Hi"}}]);
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12});
    request.respond(Event::answer(200, &json!({"choices": choices, "usage": usage})));
    assert_eq!(request.client.status(), 200);
    assert_eq!(request.end()["model"], "small");
    assert_eq!(envoy.tokens_today("sk-acme"), 12);
}

#[test]
fn the_model_stage_refuses_what_the_gateway_stage_has_not_sent() {
    let mut envoy = Envoy::new(&policy::document());
    let mut request = envoy.chat("sk-acme", &json!({"messages": [{"role": "user", "content": "Hello"}]}));
    let (status, log) = request.refused_attempt(&mut envoy, "elsewhere");
    assert_eq!(status, 500);
    assert!(log.contains("is not a provider of the plan"), "{log}");
    assert_eq!(envoy.host.context(request.id).state.borrow().get(STATE_PROVIDER), None);
}
