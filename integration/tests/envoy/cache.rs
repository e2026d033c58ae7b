//! A cached answer is served whole, in the form that its caller asks for, and costs nothing.

use crate::metrics::value;
use crate::standard::{ask, scripted};
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, Shared, cluster};
use pointsman_integration::redis::Redis;
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// The policy of the cache tests.
pub const POLICY: &str = include_str!("cache.yaml");

/// Where answers are stored. Every test holds for both stores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Store {
    Local,
    Redis,
}

/// Starts a gateway with this policy and store.
pub fn start(policy: &str, store: Store) -> Gateway {
    static REDIS: LazyLock<Redis> = LazyLock::new(Redis::start);
    match store {
        Store::Local => Gateway::start(policy),
        Store::Redis => {
            Gateway::start_over(&in_redis(policy), &[], |_| vec![("redis", cluster("redis", REDIS.bridge, ""))])
        }
    }
}

/// Returns the policy with its answers stored in Redis. The timeout is no promise of speed: machines that run tests are
/// sometimes slow.
pub fn in_redis(policy: &str) -> String {
    format!("redis: {{timeout: 2s}}\n{}", policy.replacen("cache: {", "cache: {store: redis, ", 1))
}

/// Returns the gateways that tests share, one per store.
pub fn gateways() -> [(Store, Shared); 2] {
    static LOCAL: LazyLock<Gateway> = LazyLock::new(|| start(POLICY, Store::Local));
    static REDIS: LazyLock<Gateway> = LazyLock::new(|| start(POLICY, Store::Redis));
    [(Store::Local, Shared::of(&LOCAL)), (Store::Redis, Shared::of(&REDIS))]
}

/// Returns a request with temperature 0, whose answer may be cached.
pub fn certain(model: &str, prompt: &str) -> Value {
    let mut request = ask(model, prompt);
    request["temperature"] = 0.into();
    request
}

/// Returns what the response says about the cache.
pub fn cache(response: &Response) -> &str {
    response.header("x-pointsman-cache").unwrap_or("none")
}

pub fn assert_cache(response: &Response, expected: &str) {
    assert_eq!((response.status, cache(response)), (200, expected), "{}", response.text());
    if expected == "miss" {
        // The gateway does not wait until Redis has stored the answer.
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_second_answer_is_the_first_ones_with_a_new_identity_and_costs_nothing() {
    for (store, gateway) in gateways() {
        let request = certain("hosted", "the second answer");
        let first = gateway.chat("sk-acme", &request);
        assert_cache(&first, "miss");
        let second = gateway.chat("sk-acme", &request);
        assert_cache(&second, "hit");
        assert_eq!(gateway.simulator.with("the second answer").len(), 1);
        assert_eq!(second.header("content-type"), Some("application/json"));
        assert!(second.header("x-request-id").is_some(), "Envoy gives it: {:?}", second.headers);
        assert!(second.header("age").is_some_and(|age| age.parse::<u64>().is_ok()), "{:?}", second.headers);
        assert_eq!(
            (second.header("x-pointsman-model"), second.header("x-pointsman-attempts")),
            (Some("big"), Some("0"))
        );
        assert_eq!(second.header("x-pointsman-cost-usd"), Some("0.000000"));
        let (a, b) = (first.json(), second.json());
        assert_ne!(a["id"], b["id"]);
        assert!(b["created"].as_u64() >= a["created"].as_u64());
        assert_eq!(first.content(), second.content());
        for member in ["object", "model", "usage", "system_fingerprint"] {
            assert_eq!(a[member], b[member], "{member}");
        }
        let paid = gateway.audit(first.trace_id());
        assert_eq!(
            (&paid["cache"], &paid["cache_reason"], &paid["cache_hit"]),
            (&json!("miss"), &json!("absent"), &json!(false))
        );
        let audit = gateway.audit(second.trace_id());
        assert_eq!((&audit["cache_hit"], &audit["cache"]), (&json!(true), &json!("hit")), "{audit}");
        assert_eq!(audit["saved_usd"], paid["estimated_cost_usd"]);
        assert!(audit["saved_usd"].as_f64().is_some_and(|usd| usd > 0.0));
        assert_eq!(audit["saved_input_tokens"], paid["input_tokens"]);
        assert_eq!(audit["saved_output_tokens"], paid["output_tokens"]);
        assert_eq!(
            (&audit["estimated_cost_usd"], &audit["input_tokens"], &audit["output_tokens"]),
            (&json!(0.0), &json!(0), &json!(0))
        );
        assert_eq!(
            (&audit["model"], &audit["provider"], &audit["task"]),
            (&json!("big"), &json!("openai"), &json!("hosted"))
        );
        let cache_type = if store == Store::Local { "local" } else { "redis" };
        let metrics = gateway.metrics();
        for (name, label) in [("hits", ("cache_type", cache_type)), ("misses", ("reason", "absent"))] {
            let metric = format!("llm_cache_{name}_total");
            assert!(value(&metrics, &metric, &[("task", "hosted"), label]) >= Some(1), "{metric}: {metrics:?}");
        }
        let saved =
            value(&metrics, "llm_cache_saved_microusd_total", &[("task", "hosted"), ("cache_type", cache_type)]);
        assert!(saved > Some(0), "{metrics:?}");
        let held = value(&metrics, "llm_cache_bytes", &[]);
        assert!(store == Store::Redis || held > Some(0), "{metrics:?}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn one_entry_answers_stream_and_whole_whichever_came_first() {
    for (_, gateway) in gateways() {
        for (number, first_streams) in [true, false].into_iter().enumerate() {
            let mut request = scripted("hosted", &json!({"content": "Grüezi 😀 \"x\"\n", "chunk_bytes": 3}));
            request["temperature"] = 0.into();
            request["seed"] = number.into();
            let mut streamed = request.clone();
            streamed["stream"] = true.into();
            let (first, second) = if first_streams { (&streamed, &request) } else { (&request, &streamed) };
            assert_cache(&gateway.chat("sk-acme", first), "miss");
            assert_cache(&gateway.chat("sk-acme", second), "hit");
            let whole = gateway.chat("sk-acme", &request);
            assert_cache(&whole, "hit");
            assert_eq!(whole.content(), "Grüezi 😀 \"x\"\n");
            assert!(whole.json()["usage"]["completion_tokens"].as_u64() > Some(0));
            let stream = gateway.chat("sk-acme", &streamed);
            assert_cache(&stream, "hit");
            assert_eq!(stream.header("content-type"), Some("text/event-stream; charset=utf-8"));
            assert_eq!(stream.streamed_text(), "Grüezi 😀 \"x\"\n");
            assert_eq!(stream.events().last().map(String::as_str), Some("[DONE]"));
            assert!(!stream.text().contains("usage"), "{}", stream.text());
            streamed["stream_options"] = json!({"include_usage": true});
            let with_usage = gateway.chat("sk-acme", &streamed);
            assert_cache(&with_usage, "hit");
            let events = with_usage.events();
            let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
            assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole.json()["usage"]));
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn tool_calls_and_several_choices_come_back_in_both_forms() {
    for (_, gateway) in gateways() {
        let calls = json!([{"name": "look_up", "arguments": {"city": "Bern"}}, {"name": "send", "arguments": {}}]);
        let mut request = scripted("hosted", &json!({"tool_calls": calls}));
        request["temperature"] = 0.into();
        request["tools"] =
            json!([{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]);
        let mut streamed = request.clone();
        streamed["stream"] = true.into();
        let original = gateway.chat("sk-acme", &streamed);
        assert_cache(&original, "miss");
        let whole = gateway.chat("sk-acme", &request);
        assert_cache(&whole, "hit");
        let message = &whole.json()["choices"][0];
        assert_eq!(message["finish_reason"], "tool_calls");
        assert_eq!(message["message"]["tool_calls"][0]["function"]["name"], "look_up");
        let arguments = message["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(arguments).unwrap(), json!({"city": "Bern"}));
        let stream = gateway.chat("sk-acme", &streamed);
        assert_cache(&stream, "hit");
        let deltas: Vec<Value> = stream.events().iter().filter_map(|e| serde_json::from_str(e).ok()).collect();
        assert_eq!(deltas[0]["choices"][0]["delta"]["tool_calls"][1]["index"], 1);

        let mut several = scripted("hosted", &json!({"content": "a b"}));
        several["n"] = 3.into();
        several["seed"] = 1.into();
        assert_cache(&gateway.chat("sk-acme", &several), "miss");
        several["stream"] = true.into();
        let stream = gateway.chat("sk-acme", &several);
        assert_cache(&stream, "hit");
        for index in 0..3 {
            assert!(stream.text().contains(&format!("\"index\":{index},\"delta\"")), "{}", stream.text());
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_hit_is_a_request_of_the_quota_but_takes_no_tokens() {
    for store in [Store::Local, Store::Redis] {
        let policy = POLICY.replace(
            "acme: {tier: pro,",
            "acme: {tier: pro, limits: {requests_per_minute: 3, tokens_per_day: 1000000},",
        );
        let gateway = start(&policy, store);
        let request = certain("hosted", "counted");
        let used = || {
            let usage = gateway.send(Call::new("GET", "/v1/usage").key("sk-acme")).json();
            usage.to_string()
        };
        assert_cache(&gateway.chat("sk-acme", &request), "miss");
        await_true("the first to be settled", || !used().contains("\"reserved\":1"));
        assert_cache(&gateway.chat("sk-acme", &request), "hit");
        assert_cache(&gateway.chat("sk-acme", &request), "hit");
        gateway.chat("sk-acme", &request).assert_refusal(429, "rate_limit_exceeded");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn both_workers_share_what_is_kept() {
    for (_, gateway) in gateways() {
        let request = certain("hosted", "both workers");
        assert_cache(&gateway.chat("sk-acme", &request), "miss");
        for _ in 0..30 {
            assert_cache(&gateway.chat("sk-acme", &request), "hit");
        }
    }
}
