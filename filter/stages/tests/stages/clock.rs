//! Clock steps, and gauges that are set by the timer.

use crate::envoy::Envoy;
use crate::policy;
use crate::redis;
use crate::request::Event;
use serde_json::{Value, json};

const DAY_MS: u64 = 86_400_000;

fn question() -> Value {
    json!({"messages": [{"role": "user", "content": "Hello"}]})
}

fn answered(envoy: &mut Envoy) -> Value {
    let mut request = envoy.chat("sk-acme", &question());
    let mut attempt = request.attempt(envoy, "vllm");
    attempt.respond(Event::answer(
        200,
        &json!({"choices": [{"message": {"content": "Hi"}}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}}),
    ));
    request.relay(&mut attempt);
    attempt.end();
    request.end()
}

#[test]
fn a_clock_that_steps_while_a_request_runs_loses_no_place_and_no_charge() {
    for (back, forth) in [(0, 1), (1, 0), (90_000, 0), (0, 90_000), (3_600_000, 0), (0, 3_600_000)] {
        let mut envoy = Envoy::new(&policy::document());
        let mut request = envoy.chat("sk-acme", &question());
        let mut attempt = request.attempt(&mut envoy, "vllm");
        {
            let now = &mut envoy.host.state().now_ms;
            *now = *now + forth - back;
        }
        attempt.respond(Event::answer(
            200,
            &json!({"choices": [{"message": {"content": "Hi"}}],
                    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}}),
        ));
        request.relay(&mut attempt);
        attempt.end();
        let audit = request.end();
        assert_eq!((&audit["latency_ms"], &audit["output_tokens"]), (&json!(forth), &json!(3)), "{audit}");
        assert_eq!(envoy.tokens_today("sk-acme"), 12, "{back} back, {forth} on");
        let next = envoy.chat("sk-acme", &question()).end_without_answer();
        assert_eq!((&next["plan"], &next["quota_window"]), (&json!(["small", "big"]), &json!(null)), "{next}");
    }
}

#[test]
fn what_a_worker_that_crashed_had_taken_is_free_after_a_while() {
    let mut envoy = Envoy::new(&policy::document());
    let lost = envoy.chat("sk-other", &question());
    // Its worker is gone and never releases the model's place.
    std::mem::forget(lost);
    let mut beside = envoy.beside(&policy::document());
    assert_eq!(beside.chat("sk-other", &question()).end_without_answer()["plan"], json!(["big"]));
    beside.host.state().now_ms += 3_600_000;
    assert_eq!(beside.chat("sk-other", &question()).end_without_answer()["plan"], json!(["small", "big"]));
}

#[test]
fn gauges_are_set_at_once_then_once_in_a_while_and_are_full_when_the_day_is_new() {
    const LIMIT: u64 = 100_000_000;
    let mut envoy = Envoy::new(&policy::document());
    let left = |envoy: &Envoy| envoy.metric("llm_quota_remaining|");
    answered(&mut envoy);
    assert_eq!(left(&envoy), LIMIT - 12, "at once");
    envoy.host.state().now_ms += 1;
    answered(&mut envoy);
    assert_eq!(left(&envoy), LIMIT - 12, "not with each");
    envoy.pass(1500);
    assert_eq!(left(&envoy), LIMIT - 24, "by the timer");
    envoy.tick();
    envoy.pass(DAY_MS);
    assert_eq!(left(&envoy), LIMIT, "while nobody asks");
}

#[test]
fn a_clock_that_is_set_back_does_not_hold_settlements_up() {
    let mut envoy = Envoy::new(&policy::with_redis_quota());
    let request = envoy.chat("sk-acme", &question());
    envoy.host.take_calls();
    request.end_without_answer();
    envoy.pass(20);
    let call = envoy.host.take_calls().remove(0);
    envoy.end_call(&call, 503, b"");
    // Sending is paused now, by a clock that was an hour fast.
    envoy.host.state().now_ms -= 3_600_000;
    envoy.pass(20);
    let again = envoy.host.take_calls();
    assert_eq!(again.len(), 1);
    assert_eq!(redis::step(&again[0]), redis::step(&call));
}
