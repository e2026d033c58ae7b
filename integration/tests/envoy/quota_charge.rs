//! What was used is charged exactly once, no matter who disconnects when, and nothing else is charged.

use crate::quota_gateways::{await_used, gateways, hanging, open, used, window, with_usage};
use crate::standard::ask;
use crate::unsteady::at_once;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::raw::Connection;
use serde_json::{Value, json};

/// Two workers change the same records at the same time, and each learns of the other's changes only from the records.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn of_hundreds_of_requests_over_two_workers_each_is_charged_once() {
    for gateway in gateways() {
        let key = "sk-charged0";
        at_once(40, |_| {
            for _ in 0..10 {
                let answer = gateway.chat(key, &with_usage("paid", 7, 3));
                assert_eq!(answer.status, 200, "{}", answer.text());
            }
        });
        let windows = || {
            let usage = gateway.send(Call::new("GET", "/v1/usage").key(key)).json();
            usage["windows"].as_array().expect("a list").clone()
        };
        // The windows of the tenant, the model and the user, which are in two records.
        await_true("everything to be settled", || windows().iter().all(|window| window["reserved"] == 0));
        let tokens = |window: &&Value| window["window"] == "tokens_per_day";
        let used: Vec<_> = windows().iter().filter(tokens).map(|window| window["used"].clone()).collect();
        assert_eq!(used, [4000, 4000, 4000]);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_callers_disconnect_at_every_chunk_is_charged_for_what_was_seen() {
    for gateway in gateways() {
        let key = "sk-metered0";
        let mut charged = used(&gateway, key, "tokens_per_day");
        let mut outputs = Vec::new();
        for chunks in 1..=12 {
            let mut stream = open(&gateway, key, &hanging("paid", chunks));
            let trace_id = stream.trace_id();
            let mut seen = 0;
            while seen < chunks {
                let piece = stream.next_piece().expect("goes on");
                seen += String::from_utf8_lossy(&piece).matches("\"content\":\"").count().min(chunks as usize) as u32;
            }
            // The gateway has counted everything that it forwarded.
            drop(stream);
            let audit = gateway.audit(&trace_id);
            assert_eq!(audit["usage_estimated"], true, "{audit}");
            let tokens = audit["input_tokens"].as_u64().unwrap() + audit["output_tokens"].as_u64().unwrap();
            await_used(&gateway, key, "tokens_per_day", charged + tokens);
            charged += tokens;
            outputs.push(audit["output_tokens"].as_u64().unwrap());
        }
        // Forty bytes of English per chunk are some ten tokens. The estimate is rather too high than too low.
        let steps: Vec<_> = outputs.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(steps.iter().all(|step| (8..=30).contains(step)), "{outputs:?}");
        await_true("everything to be settled", || window(&gateway, key, "concurrent")["reserved"] == 0);
    }
}

/// A caller cannot make a model read prompts for free by not waiting for the answer.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_caller_that_does_not_wait_for_the_answer_is_charged_all_the_same() {
    for gateway in gateways() {
        let key = "sk-metered3";
        let charged = used(&gateway, key, "tokens_per_day");
        let mark = "does-not-wait";
        let mut request = ask("paid", "[[sim:{\"delay_headers_ms\": 60000}]]");
        request["user"] = mark.into();
        let body = request.to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut connection = Connection::to(gateway.address);
        connection.send(head).send(&body);
        let seen = gateway.simulator.await_request(mark, "the request to reach the provider", |_| true);
        drop(connection);
        let audit = gateway.audit(seen.header("x-request-id").expect("has an id"));
        let tokens = |audit: &Value| {
            ["input_tokens", "output_tokens"].map(|name| audit[name].as_u64().expect("a charge")).iter().sum::<u64>()
        };
        let left = tokens(&audit);
        assert!(left > 0 && audit["error_code"] == "client_disconnected", "{audit}");
        await_used(&gateway, key, "tokens_per_day", charged + left);
        let late = gateway.send(Call::chat_json(&request).key(key).header("x-pointsman-deadline-ms", "200"));
        late.assert_refusal(504, "deadline_exceeded");
        let late = tokens(&gateway.audit(late.trace_id()));
        await_used(&gateway, key, "tokens_per_day", charged + left + late);
        await_true("everything to be settled", || window(&gateway, key, "concurrent")["reserved"] == 0);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_providers_usage_is_charged_and_failures_are_not() {
    for gateway in gateways() {
        let key = "sk-metered1";
        let answer = gateway.chat(key, &with_usage("paid", 1000, 234));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.header("x-ratelimit-remaining-tokens").is_some(), "{answer:?}");
        gateway.audit(answer.trace_id());
        await_used(&gateway, key, "tokens_per_day", 1234);
        assert_eq!(window(&gateway, key, "budget_usd_per_day")["used"].as_f64(), Some(0.001234));
        // An error of the provider, and a request of which every attempt fails, cost nothing.
        for behavior in [json!({"status": 500}), json!({"status": 400}), json!({"fault": "reset_before_headers"})] {
            let failed = gateway.chat(key, &ask("paid", &format!("[[sim:{behavior}]]")));
            assert_ne!(failed.status, 200);
            gateway.audit(failed.trace_id());
            await_used(&gateway, key, "tokens_per_day", 1234);
        }
        // Of a fallback, only the attempt that answered counts, at its own price.
        gateway.simulator.rule("vllm", "fall-back-now", &json!({"status": 503}));
        let usage = json!({"usage": {"prompt_tokens": 10, "completion_tokens": 10}, "content": "x"});
        let answer = gateway.chat(key, &ask("chat", &format!("fall-back-now [[sim:{usage}]]")));
        assert_eq!(answer.header("x-pointsman-model"), Some("dear"), "{}", answer.text());
        gateway.audit(answer.trace_id());
        await_used(&gateway, key, "tokens_per_day", 1254);
        assert_eq!(window(&gateway, key, "budget_usd_per_day")["used"].as_f64(), Some(0.001434));
        // Absurd counts are clamped, and do not wrap around.
        let absurd = json!({"usage": {"prompt_tokens": -5, "completion_tokens": 1e30}, "content": "x"});
        let answer = gateway.chat("sk-metered2", &ask("free", &format!("[[sim:{absurd}]]")));
        // What cannot be the prompt's tokens is estimated, and of the output no more than the request could use counts.
        let audit = gateway.audit(answer.trace_id());
        let [input, output] = ["input_tokens", "output_tokens"].map(|name| audit[name].as_u64().unwrap());
        assert!((1..100).contains(&input), "{audit}");
        assert!((1..100_000).contains(&output) && audit["usage_estimated"] == true, "{audit}");
        await_used(&gateway, "sk-metered2", "tokens_per_day", input + output);
        // Money is bounded as tokens are, and the windows say what the record and the header say.
        let absurd = json!({"usage": {"prompt_tokens": 10, "completion_tokens": 1_000_000_000}, "content": "x"});
        let mut request = ask("paid", &format!("{} [[sim:{absurd}]]", "a word or two ".repeat(1000)));
        request["max_tokens"] = json!(100);
        let answer = gateway.chat(key, &request);
        let audit = gateway.audit(answer.trace_id());
        assert_eq!((&audit["input_tokens"], &audit["output_tokens"]), (&json!(10), &json!(100)), "{audit}");
        await_used(&gateway, key, "tokens_per_day", 1254 + 110);
        let cost = audit["estimated_cost_usd"].as_f64().unwrap();
        assert_eq!(answer.header("x-pointsman-cost-usd").and_then(|usd| usd.parse().ok()), Some(cost));
        let used = window(&gateway, key, "budget_usd_per_day")["used"].as_f64().unwrap();
        assert!((used - cost - 0.001434).abs() < 1e-9, "{used} {audit}");
    }
}
