//! A request's service tier is charged at its own price, and under a budget none goes out that has no price.

use crate::standard::scripted;
use pointsman_integration::gateway::{Gateway, Shared};
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::sync::LazyLock;

fn gateway() -> Shared {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| Gateway::start(include_str!("service_tier.yaml")));
    Shared::of(&GATEWAY)
}

/// Returns a request of 1,000 input and 1,000 output tokens for this tier. `served`: the tier that the answer names, if
/// not the requested one.
fn request(model: &str, tier: Option<&str>, served: Option<&str>, stream: bool) -> Value {
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000});
    let mut behavior = json!({"content": "hello", "usage": usage});
    if let Some(served) = served {
        behavior["service_tier"] = served.into();
    }
    let mut request = scripted(model, &behavior);
    if let Some(tier) = tier {
        request["service_tier"] = tier.into();
    }
    request["stream"] = stream.into();
    request
}

/// Returns the answer's tier, cost and whether its price is a guess, in the audit record.
fn audited(gateway: &Gateway, answer: &Response) -> (Value, f64, bool) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let audit = gateway.audit(answer.trace_id());
    (
        audit["service_tier"].clone(),
        audit["estimated_cost_usd"].as_f64().expect("has a cost"),
        audit["price_estimated"] == true,
    )
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_tier_that_served_is_charged_streamed_or_not() {
    let gateway = gateway();
    for stream in [false, true] {
        for (tier, served, named, usd, guess) in [
            (None, None, json!("default"), 0.010, false),
            (None, Some(""), Value::Null, 0.010, false),
            (Some("auto"), Some("auto"), Value::Null, 0.010, false),
            (Some("priority"), None, json!("priority"), 0.020, false),
            (Some("priority"), Some("default"), json!("default"), 0.010, false),
            (Some("priority"), Some(""), json!("priority"), 0.020, false),
            (Some("flex"), None, json!("flex"), 0.005, false),
            // It may be cheaper only if the provider says so.
            (Some("flex"), Some(""), json!("flex"), 0.010, false),
            // A project's setting may turn `auto` into anything.
            (Some("auto"), Some("priority"), json!("priority"), 0.020, false),
            (None, Some("scale"), json!("scale"), 0.020, true),
        ] {
            let answer = gateway.chat("sk-acme", &request("tiered", tier, served, stream));
            assert_eq!(audited(&gateway, &answer), (named, usd, guess), "{tier:?} {served:?} {stream}");
            if !stream {
                assert_eq!(answer.header("x-pointsman-cost-usd"), Some(&*format!("{usd:.6}")));
            }
            assert_eq!(gateway.upstream(&answer).json().get("service_tier"), tier.map(Value::from).as_ref());
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_tier_without_a_price_is_refused_or_dropped_under_a_budget_and_passes_without_one() {
    let gateway = gateway();
    for stream in [false, true] {
        for (model, tier) in [("plain", "priority"), ("tiered", "scale"), ("tiered", "no tier")] {
            let answer = gateway.chat("sk-acme", &request(model, Some(tier), None, stream));
            answer.assert_refusal(400, "unsupported_parameter");
            assert_eq!(answer.json()["error"]["param"], "service_tier");
        }
        // Names of the base tier need no price of their own.
        for base in ["auto", "default"] {
            let answer = gateway.chat("sk-acme", &request("plain", Some(base), None, stream));
            assert_eq!(audited(&gateway, &answer), (json!("default"), 0.010, false));
        }
        let answer = gateway.chat("sk-acme", &request("lenient", Some("priority"), None, stream));
        assert_eq!(audited(&gateway, &answer), (json!("default"), 0.010, false));
        assert_eq!(gateway.upstream(&answer).json().get("service_tier"), None);
        // The next model of the chain has a price.
        let answer = gateway.chat("sk-acme", &request("chain", Some("priority"), None, stream));
        assert_eq!(answer.header("x-pointsman-model"), Some("tiered"));
        assert_eq!(audited(&gateway, &answer), (json!("priority"), 0.020, false));
        let answer = gateway.chat("sk-free", &request("plain", Some("priority"), None, stream));
        assert_eq!(audited(&gateway, &answer), (json!("priority"), 0.010, true));
        assert_eq!(gateway.upstream(&answer).json()["service_tier"], "priority");
    }
    // Servers in Go read any case of a name.
    let mut other_case = request("plain", None, None, false);
    other_case["Service_Tier"] = "priority".into();
    gateway.chat("sk-acme", &other_case).assert_refusal(400, "unknown_parameter");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_requested_tiers_price_is_reserved() {
    let gateway = gateway();
    let dear = gateway.chat("sk-poor", &request("tiered", Some("priority"), None, false));
    dear.assert_refusal(429, "insufficient_quota");
    // What is reserved is never below the base price.
    let cheap = gateway.chat("sk-poor", &request("tiered", Some("flex"), None, false));
    assert_eq!(audited(&gateway, &cheap).1, 0.005);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_cached_answer_keeps_its_tier_and_answers_no_other() {
    let gateway = gateway();
    let ask = |tier: Option<&str>, stream| gateway.chat("sk-acme", &request("kept", tier, None, stream));
    let first = ask(Some("priority"), false);
    assert_eq!(audited(&gateway, &first), (json!("priority"), 0.020, false));
    for stream in [false, true] {
        let hit = ask(Some("priority"), stream);
        assert_eq!(hit.header("x-pointsman-cache"), Some("hit"));
        let audit = gateway.audit(hit.trace_id());
        assert_eq!((&audit["service_tier"], &audit["estimated_cost_usd"]), (&Value::Null, &json!(0.0)), "{audit}");
        assert_eq!(audit["saved_usd"], 0.02);
        assert!(hit.text().contains(r#""service_tier":"priority""#), "{}", hit.text());
    }
    for (tier, usd) in [(None, 0.010), (Some("flex"), 0.005), (Some("default"), 0.010)] {
        let other = ask(tier, false);
        assert_eq!(other.header("x-pointsman-cache"), Some("miss"), "{tier:?}");
        assert_eq!(audited(&gateway, &other).1, usd);
    }
}
