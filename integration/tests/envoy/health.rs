//! A model that is known to be unhealthy is skipped without an attempt, and used again once it has recovered.

use crate::unsteady::{call, gateway, is_served, request};
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::Gateway;
use pointsman_integration::response::Response;
use serde_json::json;

fn await_healthy(gateway: &Gateway, cluster: &str, hosts: u64) {
    let gauge = format!("cluster.{cluster}.membership_healthy");
    await_true(&format!("{gauge} to be {hosts}"), || gateway.stats().get(&gauge) == Some(&hosts));
}

fn ask(gateway: &Gateway, task: &str, stream: bool) -> Response {
    gateway.send(call(&request(task, "health", stream)))
}

/// Waits until both workers send the task's requests to `model`. Each learns of a change a moment after the gauge.
fn await_served(gateway: &Gateway, task: &str, model: &str) {
    await_true(&format!("{task} to be served by {model}"), || {
        (0..6).all(|_| ask(gateway, task, false).header("x-pointsman-model") == Some(model))
    });
}

/// Checks that the fallback serves and that the unhealthy provider is not even asked.
fn check_skipped(gateway: &Gateway, task: &str) {
    await_served(gateway, task, "local");
    for stream in [false, true, false, true] {
        let answer = ask(gateway, task, stream);
        assert!(is_served(&answer, stream), "{answer:?}");
        let said =
            ["x-pointsman-model", "x-pointsman-attempts", "x-pointsman-fallback"].map(|name| answer.header(name));
        assert_eq!(said, [Some("local"), Some("1"), Some("true")]);
        assert_eq!(gateway.upstream(&answer).provider, "vllm");
        let audit = gateway.audit(answer.trace_id());
        assert_eq!((&audit["retry_count"], &audit["fallback_used"]), (&json!(0), &json!(true)), "{audit}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_model_whose_health_check_fails_is_skipped_until_it_is_well() {
    let gateway = gateway();
    await_served(&gateway, "checked-first", "checked");
    gateway.simulator.health("azure", 503);
    await_healthy(&gateway, "checked", 0);
    check_skipped(&gateway, "checked-first");
    // No other model can serve: the gateway refuses immediately, without Envoy's own text.
    ask(&gateway, "checked", false).assert_refusal(503, "no_healthy_provider");
    ask(&gateway, "checked", true).assert_refusal(503, "no_healthy_provider");
    let audit = gateway.audit(ask(&gateway, "checked", false).trace_id());
    assert_eq!((&audit["model"], &audit["failed_attempts"]), (&json!(null), &json!([])), "nobody was asked: {audit}");
    // If a model was asked first, its error is passed on.
    gateway.simulator.rule("openai", "before-the-ill", &json!({"status": 429}));
    for stream in [false, true] {
        let answer = gateway.send(call(&request("then-checked", "before-the-ill", stream)));
        answer.assert_refusal(429, "provider_rate_limited");
        let audit = gateway.audit(answer.trace_id());
        assert_eq!(
            (&audit["model"], &audit["error_code"]),
            (&json!("first"), &json!("provider_rate_limited")),
            "{audit}"
        );
        assert_eq!(audit["failed_attempts"][0], json!({"model": "first", "reason": "status_429"}), "{audit}");
        // Before 1.40, Envoy returns to the first model if it finds no other.
        let asked = gateway.simulator.of(answer.trace_id()).len();
        assert_eq!(audit["retry_count"], json!(asked - 1), "{audit}");
        assert_eq!(answer.header("x-pointsman-attempts"), Some(asked.to_string().as_str()));
    }
    gateway.simulator.health("azure", 200);
    await_served(&gateway, "checked-first", "checked");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_model_that_fails_again_and_again_is_left_alone_for_a_while() {
    let gateway = gateway();
    gateway.simulator.rule("azure", "judged-fails", &json!({"status": 500}));
    for _ in 0..2 {
        let answer = gateway.send(call(&request("judged-first", "judged-fails", true)));
        assert_eq!(answer.header("x-pointsman-attempts"), Some("2"), "{answer:?}");
    }
    await_healthy(&gateway, "judged", 0);
    check_skipped(&gateway, "judged-first");
    await_served(&gateway, "judged-first", "judged");
}
