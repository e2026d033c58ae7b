//! Which requests are answered from the cache, and which answers are stored: complete ones of the plan's first model.

use crate::cache::{POLICY, assert_cache, cache, certain, gateways, in_redis};
use crate::metrics::value;
use crate::standard::{ask, scripted};
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, cluster};
use pointsman_integration::redis::Redis;
use serde_json::{Value, json};

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

/// No request has used Redis before, so there is no connection yet to send the answer over, and the request that it
/// answers ends at the same moment.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_first_answer_of_all_is_kept_in_redis_as_well() {
    for stream in [false, true] {
        let redis = Redis::start();
        let gateway =
            Gateway::start_over(&in_redis(POLICY), &[], |_| vec![("redis", cluster("redis", redis.bridge, ""))]);
        let mut request = certain("hosted", "the first of all");
        request["stream"] = stream.into();
        let call = Call::chat_json(&request).key("sk-acme").header("cache-control", "no-cache");
        assert_eq!(gateway.send(call).status, 200);
        await_true("the answer to be in Redis", || redis.keys() == 1);
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
        let refusal = json!({"choices": [{"index": 0, "message": {"role": "assistant", "content": null,
            "refusal": "no"}, "finish_reason": "stop"}]});
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
        // The first model fails once and the second serves. Then the first is asked again.
        gateway
            .simulator
            .add_rule(&json!({"when": {"body_contains": "fallback-once"}, "times": 1, "respond": {"status": 503}}));
        let request = certain("chain", "fallback-once");
        let answer = gateway.chat("sk-acme", &request);
        assert_eq!(answer.header("x-pointsman-fallback"), Some("true"), "{}", answer.text());
        assert_cache(&gateway.chat("sk-acme", &request), "miss");
        assert_cache(&gateway.chat("sk-acme", &request), "hit");
        // Longer than a cache entry may be.
        twice("long", json!({"content": "x".repeat(20_000)}), false);
        twice("long", json!({"content": "x".repeat(20_000), "chunk_bytes": 1000}), true);
    }
}

/// As OpenAI's clients do: they disconnect after `[DONE]`, and the end of the body comes a little later.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_stream_is_whole_and_kept_as_soon_as_its_end_marker_has_come() {
    for (_, gateway) in gateways() {
        for leaves in [true, false] {
            let mut request =
                scripted("hosted", &json!({"content": "a b c", "end_ms": if leaves { 5000 } else { 300 }}));
            request["temperature"] = 0.into();
            request["stream"] = true.into();
            request["user"] = format!("leaves-{leaves}").into();
            let mut open = Call::chat_json(&request).key("sk-acme").open(gateway.address);
            let trace_id = open.trace_id();
            open.read_until("[DONE]");
            if !leaves {
                // The same question, before the end has come.
                assert_cache(&gateway.chat("sk-acme", &request), "hit");
                while open.next_piece().is_some() {}
            }
            drop(open);
            let audit = gateway.audit(&trace_id);
            let told = ["cache", "error_code", "usage_estimated", "status"].map(|field| &audit[field]);
            assert_eq!(told, [&json!("miss"), &Value::Null, &json!(false), &json!(200)], "{audit}");
            assert_cache(&gateway.chat("sk-acme", &request), "hit");
        }
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
