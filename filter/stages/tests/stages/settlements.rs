//! Settlements on their way to Redis, by the clock of the test.

use crate::envoy::Envoy;
use crate::fake_host::Call;
use crate::policy;
use crate::redis::{self, arguments, done, step};
use crate::request::Event;
use serde_json::{Value, json};

fn question() -> Value {
    json!({"messages": [{"role": "user", "content": "Hello"}]})
}

/// Runs a request that Redis admits and a model answers.
fn answered(envoy: &mut Envoy) -> Value {
    let mut request = envoy.chat("sk-acme", &question());
    let call = take_one(envoy, "reserve");
    let now = envoy.host.state().now_ms;
    request.end_call(&call, 200, &done(&call, now));
    let mut attempt = request.attempt(envoy, "vllm");
    attempt.respond(Event::answer(
        200,
        &json!({"choices": [{"message": {"content": "Hi"}}],
                "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}}),
    ));
    request.relay(&mut attempt);
    attempt.end();
    assert_eq!(request.client.status(), 200);
    request.end()
}

/// Takes the only call made since calls were last taken.
#[track_caller]
fn take_one(envoy: &Envoy, operation: &str) -> Call {
    let mut calls = envoy.host.take_calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(step(&calls[0]).0, operation);
    calls.remove(0)
}

/// Advances time until the queue sends again, for up to a second.
#[track_caller]
fn next_sent(envoy: &mut Envoy) -> Call {
    for _ in 0..1000 {
        envoy.pass(1);
        if !envoy.host.state().calls.is_empty() {
            return take_one(envoy, "settle");
        }
    }
    panic!("nothing is sent");
}

#[track_caller]
fn nothing_is_sent_within(envoy: &mut Envoy, ms: u64) {
    envoy.pass(ms);
    assert!(envoy.host.take_calls().is_empty());
}

fn confirm(envoy: &mut Envoy, call: &Call) {
    let now = envoy.host.state().now_ms;
    envoy.end_call(call, 200, &done(call, now));
}

#[test]
fn a_settlement_is_sent_by_the_plugin_until_redis_has_it() {
    let mut envoy = Envoy::new(&policy::with_redis_quota());
    assert!(envoy.tick_ms() > 0);
    answered(&mut envoy);
    let call = next_sent(&mut envoy);
    nothing_is_sent_within(&mut envoy, 1000);
    confirm(&mut envoy, &call);
    nothing_is_sent_within(&mut envoy, 60_000);
    assert_eq!(envoy.metric("llm_quota_remaining|"), 100_000_000);
    assert!(envoy.host.state().logs.is_empty());
}

#[test]
fn a_redis_that_forgot_the_script_gets_it_with_the_same_settlement() {
    let mut envoy = Envoy::new(&policy::with_redis_quota());
    answered(&mut envoy);
    let call = next_sent(&mut envoy);
    assert_eq!(arguments(&call)[0], "EVALSHA");
    envoy.end_call(&call, 200, redis::NO_SCRIPT);
    let again = take_one(&envoy, "settle");
    assert_eq!((&*arguments(&again)[0], step(&again)), ("EVAL", step(&call)));
    confirm(&mut envoy, &again);
    nothing_is_sent_within(&mut envoy, 60_000);
}

#[test]
fn while_redis_is_away_one_settlement_asks_and_when_it_is_back_all_are_sent_once() {
    let mut envoy = Envoy::new(&policy::with_redis_quota());
    for _ in 0..5 {
        answered(&mut envoy);
    }
    envoy.pass(20);
    let calls = envoy.host.take_calls();
    assert_eq!(calls.len(), 5);
    for call in &calls {
        envoy.end_call(call, 503, b"");
    }
    assert!(envoy.host.take_calls().is_empty(), "not at once");
    for _ in 0..3 {
        let probe = next_sent(&mut envoy);
        envoy.end_call(&probe, 503, b"");
    }
    let probe = next_sent(&mut envoy);
    confirm(&mut envoy, &probe);
    let rest = envoy.host.take_calls();
    assert_eq!(rest.len(), 4, "at once, because Redis is back");
    for call in &rest {
        confirm(&mut envoy, call);
    }
    let mut all: Vec<_> = rest.iter().chain([&probe]).map(|call| step(call).1).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 5);
    nothing_is_sent_within(&mut envoy, 60_000);
}

#[test]
fn an_answer_that_never_comes_is_given_up_by_the_clock_and_the_settlement_sent_again() {
    let mut envoy = Envoy::new(&policy::with_redis_quota());
    answered(&mut envoy);
    let lost = next_sent(&mut envoy);
    nothing_is_sent_within(&mut envoy, 10_000);
    envoy.pass(20_000);
    let again = take_one(&envoy, "settle");
    assert_eq!(step(&again), step(&lost));
    // A late answer to the first call is ignored.
    confirm(&mut envoy, &lost);
    confirm(&mut envoy, &again);
    nothing_is_sent_within(&mut envoy, 60_000);
}

#[test]
fn what_redis_may_have_forgotten_is_not_charged_a_second_time() {
    let mut envoy = Envoy::new(&policy::with_redis_quota());
    answered(&mut envoy);
    let call = next_sent(&mut envoy);
    envoy.end_call(&call, 503, b"");
    envoy.host.state().now_ms += 2 * 3_600_000;
    nothing_is_sent_within(&mut envoy, 1000);
    let logs = envoy.host.state().logs.clone();
    assert!(logs.iter().any(|line| line.contains("a settlement was dropped")), "{logs:?}");
}

#[test]
fn a_cluster_that_is_not_there_holds_no_other_settlement_up() {
    let mut envoy = Envoy::new(&policy::with_redis_quota());
    answered(&mut envoy);
    envoy.host.state().refuses_calls = true;
    nothing_is_sent_within(&mut envoy, 1000);
    envoy.host.state().refuses_calls = false;
    let call = next_sent(&mut envoy);
    confirm(&mut envoy, &call);
    nothing_is_sent_within(&mut envoy, 60_000);
}

#[test]
fn a_settlement_outlives_the_policy_of_its_request() {
    let mut envoy = Envoy::new(&policy::with_redis_quota());
    answered(&mut envoy);
    let mut without = policy::with_redis_quota();
    without["tenants"].as_object_mut().unwrap().remove("acme");
    envoy.reload(&without);
    let call = next_sent(&mut envoy);
    confirm(&mut envoy, &call);
    nothing_is_sent_within(&mut envoy, 60_000);
}
