//! Agents that ask for more output than is left get what still fits, and no window is passed.

use crate::quota_gateways::{EACH, assert_exhausted, gateways, hanging, open, window};
use crate::standard::ask;
use crate::unsteady::at_once;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::Gateway;
use serde_json::{Value, json};

/// The output limit that the provider got.
fn limit_of(gateway: &Gateway, trace_id: &str) -> u64 {
    gateway.simulator.only(trace_id).json()["max_tokens"].as_u64().expect("a limit")
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn agents_that_ask_for_much_get_what_is_left_and_never_more() {
    for gateway in gateways() {
        for round in 0..EACH - 1 {
            let key = format!("sk-tight{round}");
            let mut request = hanging("paid", 1);
            request["max_tokens"] = json!(32_000);
            let answers = at_once(20, |_| open(&gateway, &key, &request));
            let (passed, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
            let limits: Vec<u64> = passed.iter().map(|open| limit_of(&gateway, &open.trace_id())).collect();
            let told: Vec<Option<u64>> =
                passed.iter().map(|open| open.header("x-pointsman-output-limit")?.parse().ok()).collect();
            // Two have all that the model allows. The third has the rest, without the prompts.
            assert_eq!(limits.len(), 3, "{limits:?}");
            assert_eq!(limits.iter().filter(|limit| **limit == 10_000).count(), 2, "{limits:?}");
            let sum: u64 = limits.iter().sum();
            assert!((24_000..25_000).contains(&sum), "{limits:?}");
            for (limit, told) in limits.iter().zip(told) {
                assert_eq!(told, Some(*limit).filter(|limit| *limit < 10_000), "{limits:?}");
            }
            let refused = refused.into_iter().next().expect("the others").finish();
            assert_exhausted(&refused, "rate_limit_exceeded", "budget_usd_per_day");
            drop(passed);
            await_true("everything to be settled", || {
                window(&gateway, &key, "budget_usd_per_day")["reserved"].as_f64() == Some(0.0)
            });
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_clamped_request_is_recorded_as_one() {
    for gateway in gateways() {
        let key = format!("sk-tight{}", EACH - 1);
        let usage = json!({"usage": {"prompt_tokens": 1000, "completion_tokens": 19_000}, "content": "done"});
        gateway.audit(gateway.chat(&key, &ask("paid", &format!("[[sim:{usage}]]"))).trace_id());
        await_true("the charge", || window(&gateway, &key, "budget_usd_per_day")["used"].as_f64() == Some(0.02));
        let mut request = ask("paid", "x");
        request["max_tokens"] = json!(32_000);
        let answer = gateway.chat(&key, &request);
        let limit = limit_of(&gateway, answer.trace_id());
        assert!(answer.status == 200 && (4000..5000).contains(&limit), "{answer:?}");
        assert_eq!(answer.header("x-pointsman-output-limit"), Some(&*limit.to_string()));
        let audit = gateway.audit(answer.trace_id());
        let said = ["output_limit", "policy_decision", "quota_window"].map(|name| audit[name].clone());
        assert_eq!(Value::from(said.to_vec()), json!([limit, "clamp", "budget_usd_per_day"]), "{audit}");
        // Less than the lowest limit is left.
        let usage = json!({"usage": {"prompt_tokens": 1000, "completion_tokens": 3500}, "content": "done"});
        gateway.audit(gateway.chat(&key, &ask("paid", &format!("[[sim:{usage}]]"))).trace_id());
        await_true("the charge", || window(&gateway, &key, "budget_usd_per_day")["used"].as_f64() > Some(0.0241));
        let refused = gateway.chat(&key, &request);
        assert_exhausted(&refused, "insufficient_quota", "budget_usd_per_day");
        assert!(refused.text().contains("Ask for fewer output tokens"), "{}", refused.text());
    }
}
