//! A kept answer is given only to whom it belongs, whole, and for as long as the policy says.

use crate::metrics::value;
use crate::standard::{ask, scripted};
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, Shared, cluster};
use pointsman_integration::redis::Redis;
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// The policy of the tests of the cache.
pub const POLICY: &str = include_str!("cache.yaml");

/// Where answers are kept; every test holds for both.
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

/// The policy with its answers in Redis. The timeout is no promise of speed: machines that run tests are slow now and then.
pub fn in_redis(policy: &str) -> String {
    format!("redis: {{timeout: 2s}}\n{}", policy.replacen("cache: {", "cache: {store: redis, ", 1))
}

/// A gateway of each kind, which tests share.
fn gateways() -> [(Store, Shared); 2] {
    static LOCAL: LazyLock<Gateway> = LazyLock::new(|| start(POLICY, Store::Local));
    static REDIS: LazyLock<Gateway> = LazyLock::new(|| start(POLICY, Store::Redis));
    [(Store::Local, Shared::of(&LOCAL)), (Store::Redis, Shared::of(&REDIS))]
}

/// A request that asks for one certain answer.
fn certain(model: &str, prompt: &str) -> Value {
    let mut request = ask(model, prompt);
    request["temperature"] = 0.into();
    request
}

/// How the response says it came about.
fn cache(response: &Response) -> &str {
    response.header("x-pointsman-cache").unwrap_or("none")
}

fn assert_cache(response: &Response, expected: &str) {
    assert_eq!((response.status, cache(response)), (200, expected), "{}", response.text());
    if expected == "miss" {
        // Nobody waits for Redis to have taken it.
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
fn only_requests_for_one_certain_answer_of_a_task_with_a_cache() {
    for (_, gateway) in gateways() {
        let twice = |request: &Value, expected: [&str; 2]| {
            for expected in expected {
                assert_cache(&gateway.chat("sk-acme", request), expected);
            }
        };
        twice(&ask("hosted", "open question"), ["bypass", "bypass"]);
        twice(&ask("any", "open question"), ["miss", "hit"]);
        twice(&certain("plain", "no cache here"), ["bypass", "bypass"]);
        let mut seeded = ask("hosted", "seeded");
        seeded["seed"] = 5.into();
        twice(&seeded, ["miss", "hit"]);
        let refused = gateway.chat("sk-acme", &ask("hosted", "why not"));
        assert_eq!(gateway.audit(refused.trace_id())["cache_reason"], "not_deterministic");
        let labels = [("task", "hosted"), ("reason", "not_deterministic")];
        assert!(value(&gateway.metrics(), "llm_cache_bypasses_total", &labels) >= Some(1), "{:?}", gateway.metrics());
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_callers_cache_control_is_obeyed() {
    for (_, gateway) in gateways() {
        let request = certain("hosted", "cache control");
        let with =
            |control: &str| gateway.send(Call::chat_json(&request).key("sk-acme").header("cache-control", control));
        assert_cache(&with("no-store"), "bypass");
        assert_cache(&with("no-cache"), "miss");
        assert_cache(&with("max-age=1000"), "hit");
        assert_cache(&with("no-cache"), "miss");
        assert_cache(&with("no-store, max-age=100"), "bypass");
        assert_eq!(gateway.simulator.with("cache control").len(), 4);
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert_cache(&with("max-age=0"), "miss");
        assert_cache(&with(""), "hit");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_answer_is_good_for_its_time_and_no_longer() {
    for (_, gateway) in gateways() {
        let request = certain("brief", "for a second");
        assert_cache(&gateway.chat("sk-acme", &request), "miss");
        assert_cache(&gateway.chat("sk-acme", &request), "hit");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert_cache(&gateway.chat("sk-acme", &request), "miss");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn nobody_gets_another_tenants_answer_nor_one_above_its_class_or_tier() {
    for (_, gateway) in gateways() {
        let request = certain("hosted", "whose is it");
        assert_cache(&gateway.chat("sk-acme", &request), "miss");
        assert_cache(&gateway.chat("sk-other", &request), "miss");
        assert_cache(&gateway.chat("sk-acme-second", &request), "hit");
        // The tier has no such model, the class no such provider: an answer that is there changes nothing.
        gateway.chat("sk-frugal", &request).assert_refusal(403, "model_not_allowed");
        let classed = |class: &str| {
            gateway.send(Call::chat_json(&request).key("sk-acme").header("x-pointsman-data-class", class))
        };
        classed("regulated").assert_refusal(403, "data_class_not_allowed");
        let local = certain("local", "classes");
        for (class, expected) in [("internal", ["miss", "hit"]), ("confidential", ["bypass", "bypass"])] {
            for expected in expected {
                let answer =
                    gateway.send(Call::chat_json(&local).key("sk-acme").header("x-pointsman-data-class", class));
                assert_cache(&answer, expected);
            }
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn nothing_partial_refused_filtered_failed_or_of_a_fallback_is_kept() {
    for (_, gateway) in gateways() {
        let twice = |name: &str, behavior: Value, streams: bool| {
            let mut request = scripted("hosted", &behavior);
            request["temperature"] = 0.into();
            request["stream"] = streams.into();
            for time in 1..=2 {
                let answer = gateway.chat("sk-acme", &request);
                assert_ne!(cache(&answer), "hit", "{name}, time {time}: {}", answer.text());
            }
        };
        for streams in [false, true] {
            twice("filtered", json!({"content": "a b", "finish_reason": "content_filter"}), streams);
            twice("failed", json!({"status": 500}), streams);
            twice("refused by provider", json!({"status": 400}), streams);
        }
        let refusal = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": null, "refusal": "no"}, "finish_reason": "stop"}]});
        twice("refused", json!({"json": refusal}), false);
        twice("no choice", json!({"json": {"choices": []}}), false);
        twice(
            "unfinished",
            json!({"json": {"choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}}]}}),
            false,
        );
        for fault in [
            json!("no_done"),
            json!({"reset_mid_stream": {"after_chunks": 2}}),
            json!({"close_mid_stream": {"after_chunks": 2}}),
            json!({"truncate_event": {"after_chunks": 2}}),
            json!({"error_event": {"after_chunks": 2}}),
            json!({"malformed_json": {"after_chunks": 2}}),
        ] {
            twice("broken", json!({"content": "a b c d e f", "fault": fault}), true);
        }
        // The first model fails once, the second serves, and the first is asked again.
        gateway
            .simulator
            .add_rule(&json!({"when": {"body_contains": "fallback-once"}, "times": 1, "respond": {"status": 503}}));
        let request = certain("chain", "fallback-once");
        let answer = gateway.chat("sk-acme", &request);
        assert_eq!(answer.header("x-pointsman-fallback"), Some("true"), "{}", answer.text());
        assert_cache(&gateway.chat("sk-acme", &request), "miss");
        assert_cache(&gateway.chat("sk-acme", &request), "hit");
        // Longer than an entry may be.
        twice("long", json!({"content": "x".repeat(20_000)}), false);
        twice("long", json!({"content": "x".repeat(20_000), "chunk_bytes": 1000}), true);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_abandoned_stream_is_not_kept() {
    for (_, gateway) in gateways() {
        let mut request = scripted("hosted", &json!({"chunks": 2000, "chunk_bytes": 4, "chunk_ms": 20}));
        request["temperature"] = 0.into();
        request["stream"] = true.into();
        let mut open = Call::chat_json(&request).key("sk-acme").open(gateway.address);
        let trace_id = open.trace_id();
        assert!(open.next_piece().is_some());
        drop(open);
        assert_eq!(gateway.audit(&trace_id)["error_code"], "client_disconnected");
        let mut again = Call::chat_json(&request).key("sk-acme").open(gateway.address);
        assert_eq!(again.header("x-pointsman-cache"), Some("miss"));
        assert!(again.next_piece().is_some());
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_same_meaning_hits_and_hostile_spellings_do_not() {
    for (_, gateway) in gateways() {
        let send = |body: &str| gateway.send(Call::chat(body).key("sk-acme"));
        let first = r#"{"model":"hosted","messages":[{"role":"user","content":"spelling é 1"}],"temperature":0,"top_p":1,"x":{"a":1,"b":[]}}"#;
        assert_cache(&send(first), "miss");
        for same in [
        first.to_owned(),
        r#" { "x" : { "b" : [ ] , "a" : 1.0 }, "top_p" : 1e0, "temperature":-0.0, "messages":[ { "content" : "spelling \u00e9 1", "role":"user"}], "model":"hosted" } "#.to_owned(),
        first.replace("\"top_p\":1", "\"top_p\":10E-1"),
        first.replace("\"temperature\"", "\"temp\\u0065rature\""),
    ] {
        assert_cache(&send(&same), "hit");
    }
        for other in [
            first.replace("é", "e\u{301}"),
            first.replace("spelling", "sp\u{435}lling"),
            first.replace("1\"}]", "1 \"}]"),
            first.replace("\"a\":1", "\"a\":\"1\""),
            first.replace("\"b\":[]", "\"b\":{}"),
            first.replace("\"x\":", "\"y\":"),
            first.replace("\"top_p\":1", "\"top_p\":1.0000001"),
            first.replace("\"user\"", "\"system\""),
            first.replace("\"temperature\":0", "\"temperature\":0,\"user\":\"u\""),
        ] {
            assert_cache(&send(&other), "miss");
        }
        // Read one way by some, and the other way by others: never kept, never answered from what is.
        let twice = first.replace("\"content\"", "\"content\":\"other\",\"content\"");
        assert_cache(&send(&twice), "bypass");
        assert_cache(&send(&first.replace("\"a\":1", "\"a\":1,\"\\u0061\":2")), "bypass");
        assert_eq!(send(&first.replace("\"top_p\":1", "\"top_p\":1,\"top_p\":2")).status, 400);
        let surrogate = send(&first.replace("spelling", "\\ud800"));
        assert_ne!(cache(&surrogate), "hit");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn scopes_of_users_and_permissions_by_trusted_headers() {
    for store in [Store::Local, Store::Redis] {
        let policy = POLICY.replacen(
            "identity: {source: api_key}",
            "identity: {source: header, tenant: x-jwt-tenant, user: x-jwt-sub, permissions: x-jwt-scope}",
            1,
        );
        assert_ne!(policy, POLICY);
        let policy = policy.replace(
            "  # permission scope\n",
            "  shared: {primary: big, cache: {ttl: 1h, scope: permission, requests: any}}\n",
        );
        let gateway = start(&policy, store);
        let send = |task: &str, tenant: &str, user: &str, scope: &str| {
            let mut call = Call::chat_json(&ask(task, "who may see it")).header("x-jwt-tenant", tenant);
            for (name, value) in [("x-jwt-sub", user), ("x-jwt-scope", scope)] {
                if !value.is_empty() {
                    call = call.header(name, value);
                }
            }
            let answer = gateway.send(call);
            assert_eq!(answer.status, 200, "{}", answer.text());
            cache(&answer).to_owned()
        };
        assert_eq!(send("mine", "acme", "ann", ""), "miss");
        assert_eq!(send("mine", "acme", "ann", "other"), "hit");
        assert_eq!(send("mine", "acme", "bob", ""), "miss");
        assert_eq!(send("mine", "other", "ann", ""), "miss");
        assert_eq!(send("mine", "acme", "", ""), "bypass");
        assert_eq!(send("shared", "acme", "ann", "r1"), "miss");
        assert_eq!(send("shared", "acme", "bob", "r1"), "hit");
        assert_eq!(send("shared", "acme", "ann", "r2"), "miss");
        assert_eq!(send("shared", "acme", "ann", ""), "bypass");
        assert_eq!(send("shared", "other", "ann", "r1"), "miss");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_raised_revision_forgets_hot() {
    for store in [Store::Local, Store::Redis] {
        let gateway = start(POLICY, store);
        let mut request = certain("hosted", "to be forgotten");
        request["metadata"] = json!({"prompt_id": "invoice", "prompt_version": "3"});
        // What has other forms, under which a raised revision would not be found, is not kept at all.
        let mut odd = request.clone();
        odd["metadata"]["prompt_version"] = json!(3.0);
        assert_cache(&gateway.chat("sk-acme", &odd), "bypass");
        let other = certain("any", "another task");
        let mut policy = POLICY.to_owned();
        for (from, to, forgets_other) in [
            ("acme: {tier: pro,", "acme: {tier: pro, cache_revision: 1,", true),
            ("hosted: {primary: big, cache: {ttl: 1h", "hosted: {primary: big, cache: {revision: 7, ttl: 1h", false),
            (
                "cache: {max_entry_bytes: 16384",
                "cache: {prompt_revisions: {invoice@3: 2}, max_entry_bytes: 16384",
                false,
            ),
            ("cache: {prompt", "cache: {revision: 1, prompt", true),
        ] {
            for request in [&request, &other] {
                // Redis is told of an answer, not asked, so the next request may be faster.
                await_true("the answer to be kept", || {
                    gateway.chat("sk-acme", request).header("x-pointsman-cache") == Some("hit")
                });
            }
            let next = policy.replacen(from, to, 1);
            assert_ne!(next, policy);
            policy = next;
            let seen = gateway.process.lines().len();
            match store {
                Store::Local => gateway.replace_policy(&policy),
                Store::Redis => gateway.replace_policy(&in_redis(&policy)),
            }
            gateway
                .process
                .await_line_after(seen, "policy applied", |line| line.starts_with("policy applied").then_some(()));
            // Each worker takes the new policy by itself, within moments: with another prompt, a request cannot tell.
            let mut number = 0;
            await_true("both workers to forget", || {
                number += 1;
                (0..20).all(|_| {
                    let call = Call::chat_json(&request).key("sk-acme").header("cache-control", "no-store");
                    gateway.send(call).status == 200
                }) && number > 3
            });
            assert_cache(&gateway.chat("sk-acme", &request), "miss");
            assert_cache(&gateway.chat("sk-acme", &other), if forgets_other { "miss" } else { "hit" });
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_hit_is_a_request_of_the_quota_but_takes_no_tokens() {
    for store in [Store::Local, Store::Redis] {
        let policy =
            POLICY.replace("acme: {tier: pro,", "acme: {tier: pro, requests_per_minute: 3, tokens_per_day: 1000000,");
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

#[test]
#[ignore = "needs a real Envoy: make test"]
fn thousands_of_distinct_answers_stay_below_the_memory_limit() {
    use pointsman_integration::raw::Connection;
    let limit = 1 << 20;
    let policy = POLICY.replacen("memory_bytes: 16777216", "memory_bytes: 1048576", 1);
    assert_ne!(policy, POLICY);
    let gateway = start(&policy, Store::Local);
    gateway.simulator.add_rule(&json!({"when": {"body_contains": "fill"}, "respond": {"content": "x".repeat(2000)}}));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut connection = Connection::to(gateway.address);
                for number in 0..750 {
                    let body = certain("hosted", &format!("fill {thread} {number}")).to_string();
                    let head =
                        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\ncontent-length: ";
                    let answer = connection.send(format!("{head}{}\r\n\r\n{body}", body.len())).response();
                    assert_eq!((answer.status, answer.header("x-pointsman-cache")), (200, Some("miss")));
                }
            });
        }
    });
    let bytes = || value(&gateway.metrics(), "llm_cache_bytes", &[]);
    assert!(bytes().is_some_and(|bytes| bytes <= limit && bytes > limit / 2), "{:?}", bytes());
    // A full table takes what comes next.
    let next = certain("hosted", "fill at last");
    assert_cache(&gateway.chat("sk-acme", &next), "miss");
    assert_cache(&gateway.chat("sk-acme", &next), "hit");
}

/// The clients' programs name models; here those are tasks whose every answer is kept, so that the second run is answered
/// from the cache.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn openais_own_clients_take_answers_of_the_cache() {
    let policy = "
default_task: small
cache: {max_entry_bytes: 65536}
providers:
  vllm: {dialect: openai, local: true, data: regulated}
models:
  m-small: {provider: vllm, model: qwen, tier: local, context: 32768, max_output_tokens: 512}
  m-big: {provider: vllm, model: gpt, tier: flagship, context: 32768, max_output_tokens: 512}
tasks:
  small: {primary: m-small, cache: {ttl: 1h, requests: any}}
  extract: {primary: m-small, cache: {ttl: 1h, requests: any}}
  big: {primary: m-big, cache: {ttl: 1h, requests: any}}
tiers:
  free: {models: [m-small]}
  pro: {models: [m-small, m-big]}
tenants:
  acme: {tier: pro, keys: [<sk-acme>]}
  frugal: {tier: free, keys: [<sk-frugal>]}
";
    for (program, script) in [
        (pointsman_integration::environment::path("POINTSMAN_PYTHON"), "python/chat.py"),
        ("node".into(), "node/chat.mjs"),
    ] {
        let gateway = Gateway::start(policy);
        let hits = || -> u64 {
            let of =
                |line: &String| line.strip_prefix("llm_cache_hits_total{")?.rsplit(' ').next()?.parse::<u64>().ok();
            gateway.metrics().iter().filter_map(of).sum()
        };
        crate::clients::say(&gateway, &program, script);
        let before = hits();
        let (_, said) = crate::clients::say(&gateway, &program, script);
        for case in ["chat", "stream", "stream_with_usage", "tools_round_trip", "tools_streamed", "json_schema"] {
            assert!(said.lines().any(|line| line == format!("ok {case}")), "{case}: {said}");
        }
        await_true("the hits to be counted", || hits() >= before + 7);
    }
}
