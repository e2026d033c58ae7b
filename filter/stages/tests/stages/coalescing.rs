//! Requests that wait for an identical one and are woken by the plugin's timer.

use crate::envoy::Envoy;
use crate::policy;
use crate::redis;
use crate::request::{Event, Request};
use serde_json::{Value, json};

fn question() -> Value {
    json!({"messages": [{"role": "user", "content": "Why is the sky blue?"}]})
}

fn completion() -> Value {
    json!({"object": "chat.completion", "model": "qwen",
           "choices": [{"index": 0, "message": {"role": "assistant", "content": "Because."}, "finish_reason": "stop"}],
           "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}})
}

fn is_held(request: &mut Request) -> bool {
    request.look();
    request.sent.is_none() && request.client.headers.is_none()
}

fn answer(envoy: &mut Envoy, request: &mut Request, events: Vec<Event>) {
    let mut attempt = request.attempt(envoy, "vllm");
    attempt.respond(events);
    request.relay(&mut attempt);
    attempt.end();
}

#[test]
fn of_many_who_ask_the_same_one_goes_and_all_are_answered() {
    let mut envoy = Envoy::new(&policy::with_cache("local"));
    let mut first = envoy.chat("sk-other", &question());
    assert!(first.sent.is_some());
    assert_eq!(envoy.tick_ms(), 1000, "nobody waits: only the gauges' timer");
    let mut others: Vec<Request> = (0..40).map(|_| envoy.chat("sk-other", &question())).collect();
    assert!(others.iter_mut().all(is_held));
    assert!(envoy.tick_ms() < 1000, "somebody waits");
    envoy.pass(100);
    assert!(others.iter_mut().all(is_held));

    answer(&mut envoy, &mut first, Event::answer(200, &completion()));
    first.end();
    // As many as Envoy's stack has room for go on first, the rest a little later, in order.
    envoy.tick();
    let at_once = others.iter_mut().position(is_held).unwrap();
    assert!((1..40).contains(&at_once), "{at_once}");
    assert!(others[at_once..].iter_mut().all(is_held), "in their order");
    envoy.pass(20);
    for mut request in others {
        assert!(!is_held(&mut request));
        assert_eq!(request.client.header("x-pointsman-cache"), Some("hit"));
        assert_eq!(request.client.json()["choices"][0]["message"], completion()["choices"][0]["message"]);
        request.end();
    }
    envoy.pass(5);
    assert_eq!(envoy.tick_ms(), 1000, "nobody waits any more");
}

#[test]
fn when_the_first_fails_one_of_the_others_goes_and_the_rest_wait_for_it() {
    let mut envoy = Envoy::new(&policy::with_cache("local"));
    let first = envoy.chat("sk-other", &question());
    let mut others: Vec<Request> = (0..5).map(|_| envoy.chat("sk-other", &question())).collect();
    first.end_without_answer();
    envoy.pass(20);
    let gone: Vec<bool> = others.iter_mut().map(|request| !is_held(request)).collect();
    assert_eq!(gone, [true, false, false, false, false]);
    let mut leader = others.remove(0);
    answer(&mut envoy, &mut leader, Event::answer(200, &completion()));
    leader.end();
    envoy.pass(20);
    for mut request in others {
        assert!(!is_held(&mut request));
        assert_eq!(request.client.header("x-pointsman-cache"), Some("hit"));
        request.end();
    }
}

#[test]
fn who_waits_and_leaves_is_forgotten() {
    let mut envoy = Envoy::new(&policy::with_cache("local"));
    let mut first = envoy.chat("sk-other", &question());
    let mut waiting = envoy.chat("sk-other", &question());
    assert!(is_held(&mut waiting));
    let audit = waiting.end_without_answer();
    assert_eq!(audit["error_code"], "client_disconnected");
    envoy.pass(20);
    assert_eq!(envoy.tick_ms(), 1000, "nobody waits");
    answer(&mut envoy, &mut first, Event::answer(200, &completion()));
    first.end();
    let hit = envoy.chat("sk-other", &question());
    assert_eq!(hit.client.header("x-pointsman-cache"), Some("hit"));
    hit.end();
}

#[test]
fn nobody_waits_for_longer_than_the_policy_says() {
    let mut document = policy::with_cache("local");
    document["cache"]["wait"] = json!("3s");
    let mut envoy = Envoy::new(&document);
    let first = envoy.chat("sk-other", &question());
    let mut waiting = envoy.chat("sk-other", &question());
    envoy.pass(2900);
    assert!(is_held(&mut waiting));
    envoy.pass(200);
    assert!(!is_held(&mut waiting));
    assert!(waiting.sent.is_some(), "it asks for itself");
    waiting.end_without_answer();
    first.end_without_answer();
}

#[test]
fn each_plugin_looks_after_its_own_requests_across_a_reload() {
    let document = policy::with_cache("local");
    let mut envoy = Envoy::new(&document);
    let mut first = envoy.chat("sk-other", &question());
    let mut waiting = envoy.chat("sk-other", &question());
    let (id, mut old) = envoy.reload(&document);
    answer(&mut envoy, &mut first, Event::answer(200, &completion()));
    first.end();
    envoy.pass(20);
    assert!(is_held(&mut waiting), "the new plugin has no part in it");
    envoy.host.call_back(id, || old.on_tick());
    assert!(!is_held(&mut waiting));
    assert_eq!(waiting.client.header("x-pointsman-cache"), Some("hit"));
    waiting.end();
}

#[test]
fn a_call_that_a_request_makes_after_its_wait_ends_at_the_plugin_and_is_handed_over() {
    let mut document = policy::with_cache("local");
    document["redis"] = json!({"cluster": "webdis", "timeout": "250ms"});
    document["quota"] = json!({"store": "redis"});
    let mut envoy = Envoy::new(&document);
    let mut first = envoy.chat("sk-acme", &question());
    let reserve = envoy.host.take_calls().remove(0);
    let now = envoy.host.state().now_ms;
    first.end_call(&reserve, 200, &redis::done(&reserve, now));
    assert!(first.sent.is_some());
    let mut waiting = envoy.chat("sk-acme", &question());
    assert!(is_held(&mut waiting) && envoy.host.state().calls.is_empty());
    first.end_without_answer();
    // It is woken, and reserves in the plugin's callback.
    envoy.pass(20);
    let calls = envoy.host.take_calls();
    let reserve = calls.iter().find(|call| redis::step(call).0 == "reserve").unwrap();
    assert!(is_held(&mut waiting));
    let now = envoy.host.state().now_ms;
    envoy.end_call(reserve, 200, &redis::done(reserve, now));
    assert!(!is_held(&mut waiting) && waiting.sent.is_some());
    answer(&mut envoy, &mut waiting, Event::answer(200, &completion()));
    assert_eq!(waiting.client.status(), 200);
    waiting.end();
}
