//! The access log records of every request who asked, which model answered, what it used and what it cost. It also has
//! a line for every attempt.

use crate::standard::{ask, gateway, scripted, streamed};
use pointsman_integration::call::Call;
use serde_json::{Value, json};

/// Every member of the record, in alphabetical order.
const MEMBERS: [&str; 38] = [
    "cache_hit",
    "cache_write_tokens",
    "cached_input_tokens",
    "data_class",
    "endpoint",
    "error_code",
    "estimated_cost_usd",
    "failed_attempts",
    "fallback_from",
    "fallback_to",
    "fallback_used",
    "input_tokens",
    "latency_ms",
    "left_out",
    "model",
    "output_tokens",
    "plan",
    "policy_decision",
    "price_estimated",
    "prompt_id",
    "prompt_version",
    "provider",
    "quota_window",
    "retry_count",
    "route_reason",
    "schema_version",
    "service_tier",
    "start_time",
    "status",
    "stream",
    "task",
    "tenant_id",
    "tier",
    "time_to_first_token_ms",
    "tool_names",
    "trace_id",
    "usage_estimated",
    "user_id_hash",
];

/// Checks the members in `expected`, and that the record has all members and no others.
#[track_caller]
fn check(audit: &Value, expected: &Value) {
    let names: Vec<_> = audit.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, MEMBERS, "{audit}");
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&audit[name], value, "{name} in {audit}");
    }
    for number in ["latency_ms", "retry_count", "status"] {
        assert!(audit[number].is_u64(), "{number} in {audit}");
    }
    assert!(audit["start_time"].as_str().unwrap().starts_with("20"), "{audit}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_completion_is_recorded_with_numbers_as_numbers() {
    let gateway = gateway();
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100,
        "prompt_tokens_details": {"cached_tokens": 400}});
    let mut request = scripted("reasoning", &json!({"content": "fine", "usage": usage}));
    request["user"] = "user-7".into();
    let answer = gateway.chat("sk-acme", &request);
    assert_eq!(answer.status, 200);
    let audit = gateway.audit(answer.trace_id());
    // 600 tokens at $2.00, 400 at $0.50 and 100 at $8.00 per million.
    check(
        &audit,
        &json!({
            "trace_id": answer.trace_id(), "tenant_id": "acme", "tier": "pro", "endpoint": "chat", "task": "reasoning",
            "prompt_id": null, "prompt_version": null, "schema_version": null, "data_class": "internal",
            "provider": "openai", "model": "big", "plan": ["big", "regional", "small"], "route_reason": "task",
            "stream": false, "status": 200, "input_tokens": 1000, "cached_input_tokens": 400, "cache_write_tokens": 0,
            "output_tokens": 100,
            "usage_estimated": false, "estimated_cost_usd": 0.0022, "time_to_first_token_ms": null, "cache_hit": false,
            "retry_count": 0, "failed_attempts": [], "fallback_used": false, "tool_names": [],
            "policy_decision": "allow", "error_code": null,
        }),
    );
    assert_eq!(audit["user_id_hash"].as_str().map(str::len), Some(16));

    assert_eq!(answer.header("x-pointsman-model"), Some("big"));
    assert_eq!(answer.header("x-pointsman-provider"), Some("openai"));
    assert_eq!(answer.header("x-pointsman-attempts"), Some("1"));
    assert_eq!(answer.header("x-pointsman-fallback"), Some("false"));
    assert_eq!(answer.header("x-pointsman-cache"), Some("bypass"));
    assert_eq!(answer.header("x-pointsman-cost-usd").and_then(|cost| cost.parse().ok()), Some(0.0022));
    assert_eq!(answer.content(), "fine");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_stream_is_recorded_with_its_time_to_first_token() {
    let gateway = gateway();
    let usage = json!({"prompt_tokens": 10, "completion_tokens": 2});
    let answer = gateway.chat("sk-acme", &streamed("regional", &json!({"content": "a b", "usage": usage})));
    let audit = gateway.audit(answer.trace_id());
    // 10 tokens at $2.20 and 2 at $8.80 per million: 22 + 17.6 micro-USD, rounded to a whole number.
    let cost = audit["estimated_cost_usd"].as_f64().unwrap();
    assert!((0.000_039..=0.000_040).contains(&cost), "{audit}");
    check(
        &audit,
        &json!({
            "task": null, "model": "regional", "plan": ["regional"], "route_reason": "model", "stream": true,
            "status": 200, "input_tokens": 10, "cached_input_tokens": 0, "cache_write_tokens": 0,
            "output_tokens": 2, "error_code": null,
        }),
    );
    assert!(audit["time_to_first_token_ms"].is_u64(), "{audit}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_model_without_a_price_costs_an_unknown_amount_and_a_free_one_nothing() {
    let gateway = gateway();
    for (model, cost) in [("spare", Value::Null), ("small", json!(0.0))] {
        let answer = gateway.chat("sk-acme", &ask(model, "price"));
        let audit = gateway.audit(answer.trace_id());
        assert_eq!(audit["estimated_cost_usd"].as_f64(), cost.as_f64(), "{audit}");
        assert!(audit["output_tokens"].as_u64().is_some_and(|tokens| tokens > 0));
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_refusal_is_recorded_with_its_reason_and_without_a_charge() {
    let gateway = gateway();
    let nothing = json!({"provider": null, "model": null, "input_tokens": null, "output_tokens": null,
        "estimated_cost_usd": null,
        "policy_decision": "deny", "retry_count": 0, "failed_attempts": []});
    let refused = |call: Call, status: u16, code: &str, tenant: Value, endpoint: &str| {
        let answer = gateway.send(call);
        assert_eq!(answer.status, status);
        let audit = gateway.audit(answer.trace_id());
        check(&audit, &nothing);
        check(&audit, &json!({"status": status, "error_code": code, "tenant_id": tenant, "endpoint": endpoint}));
        assert!(gateway.attempts(answer.trace_id()).is_empty());
    };
    refused(Call::chat_json(&ask("small", "a")), 401, "invalid_api_key", Value::Null, "chat");
    refused(Call::chat_json(&ask("big", "a")).key("sk-frugal"), 403, "model_not_allowed", json!("frugal"), "chat");
    refused(Call::chat_json(&ask("nothing", "a")).key("sk-acme"), 404, "model_not_found", json!("acme"), "chat");
    refused(Call::chat("{").key("sk-acme"), 400, "invalid_json", json!("acme"), "chat");
    refused(Call::new("GET", "/v1/models"), 401, "invalid_api_key", Value::Null, "models");
    refused(Call::new("GET", "/nothing").key("sk-acme"), 404, "unknown_url", Value::Null, "unknown");
    let models = gateway.send(Call::new("GET", "/v1/models").key("sk-acme"));
    let audit = gateway.audit(models.trace_id());
    check(
        &audit,
        &json!({"policy_decision": "allow", "endpoint": "models", "tenant_id": "acme", "status": 200,
            "error_code": null}),
    );
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn every_attempt_has_its_line_with_the_same_trace_id() {
    let gateway = gateway();
    let mark = "one-line-per-attempt";
    gateway.simulator.rule("openai", mark, &json!({"status": 503}));
    gateway.simulator.rule("azure", mark, &json!({"status": 429}));
    let answer = gateway.chat("sk-acme", &ask("reasoning", mark));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let audit = gateway.audit(answer.trace_id());
    check(
        &audit,
        &json!({"retry_count": 2, "fallback_used": true, "fallback_from": "big", "fallback_to": "small",
            "model": "small", "provider": "vllm", "failed_attempts":
        [{"model": "big", "reason": "status_503"}, {"model": "regional", "reason": "status_429"}]}),
    );
    let lines = gateway.attempts(answer.trace_id());
    let said = |line: &Value| json!([line["attempt"], line["attempt_provider"], line["attempt_model"], line["status"]]);
    let lines: Vec<_> = lines.iter().map(said).collect();
    assert_eq!(
        lines,
        [
            json!(["1", "openai", "big", 503]),
            json!(["2", "azure", "regional", 429]),
            json!(["3", "vllm", "small", 200])
        ]
    );
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_user_is_recorded_as_a_hash_of_its_own_tenant() {
    let gateway = gateway();
    let hash = |key: &str, member: &str| {
        let mut request = ask("small", "who");
        request[member] = "user-8".into();
        gateway.audit(gateway.chat(key, &request).trace_id())["user_id_hash"].as_str().unwrap().to_owned()
    };
    assert_eq!(hash("sk-acme", "user"), hash("sk-acme-second", "user"));
    assert_eq!(hash("sk-acme", "user"), hash("sk-acme", "safety_identifier"));
    assert_ne!(hash("sk-acme", "user"), hash("sk-frugal", "user"));
    assert!(gateway.audit(gateway.chat("sk-acme", &ask("small", "who")).trace_id())["user_id_hash"].is_null());
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_is_recorded_cannot_be_forged() {
    let gateway = gateway();
    // Text from outside that would end the line or the object.
    let nasty = "a\"},{\"x\":\"\\\n\u{2028}\u{0}é";
    let mut request = ask("small", "forger");
    request["tools"] = json!([{"type": "function", "function": {"name": nasty}}]);
    request["user"] = nasty.into();
    let answer = gateway
        .send(Call::chat_json(&request).key("sk-acme").header("x-request-id", "forged\",\"tenant_id\":\"clinic"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let audit = gateway.audit(answer.trace_id());
    assert_eq!(audit["tenant_id"], "acme");
    assert!(audit["tool_names"][0].as_str().unwrap().starts_with("sha256:"), "{audit}");
    assert!(!answer.trace_id().contains("forged"));
    assert!(!gateway.access_log().lines().is_empty());
}
