//! A call to Redis that is never answered: the end of the request releases everything, even if the caller disconnects.

use crate::envoy::Envoy;
use crate::policy;
use crate::redis::{self, step};
use crate::request::Event;
use pointsman_stages::host::Property;
use serde_json::{Value, json};

fn question() -> Value {
    json!({"messages": [{"role": "user", "content": "Hello"}]})
}

fn completion() -> Value {
    json!({"choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
           "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}})
}

#[test]
fn a_caller_that_leaves_while_redis_is_silent_has_its_reservation_given_back() {
    let mut envoy = Envoy::new(&policy::with_redis_quota());
    let mut request = envoy.chat("sk-acme", &question());
    let calls = envoy.host.take_calls();
    let [call] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!((call.context, step(call).0), (request.id, "reserve".to_owned()));
    assert!(request.sent.is_none() && request.client.headers.is_none(), "held");
    // Only its end wakes it.
    envoy.pass(60_000);
    request.look();
    assert!(request.sent.is_none() && request.client.headers.is_none());
    let audit = request.end_without_answer();
    assert_eq!((&audit["error_code"], &audit["input_tokens"]), (&json!("client_disconnected"), &json!(null)));
    // Redis may have received the reservation, so the plugin settles the same reservation.
    envoy.pass(20);
    let settlements = envoy.host.take_calls();
    let [settlement] = &settlements[..] else { panic!("{settlements:?}") };
    assert_eq!(step(settlement), ("settle".to_owned(), step(call).1));
    // The model's place was not taken yet, or has been released.
    assert_eq!(envoy.chat("sk-other", &question()).end_without_answer()["plan"], json!(["small", "big"]));
}

#[test]
fn when_envoy_gives_the_call_up_the_policy_says_what_follows() {
    for (mode, expected) in [("deny", None), ("allow", Some(()))] {
        let mut document = policy::with_redis_quota();
        document["quota"]["failure_mode"] = json!(mode);
        let mut envoy = Envoy::new(&document);
        let mut request = envoy.chat("sk-acme", &question());
        let call = envoy.host.take_calls().remove(0);
        assert_eq!(call.call.timeout_ms, 250);
        envoy.host.state().now_ms += 250;
        request.end_call(&call, 504, b"");
        assert_eq!(request.sent.as_ref().map(drop), expected, "{mode}");
        if expected.is_none() {
            assert_eq!(request.client.status(), 503, "{mode}");
        }
        request.end_without_answer();
        assert_eq!(envoy.chat("sk-other", &question()).end_without_answer()["plan"], json!(["small", "big"]));
    }
}

#[test]
fn an_answer_that_comes_after_the_request_has_been_answered_changes_nothing() {
    let mut envoy = Envoy::new(&policy::with_redis_quota());
    let mut request = envoy.chat("sk-acme", &question());
    let call = envoy.host.take_calls().remove(0);
    let answer = redis::done(&call, envoy.host.state().now_ms);
    request.end_call(&call, 200, &answer);
    let sent = request.sent.clone().unwrap();
    request.end_call(&call, 200, &answer);
    assert_eq!(request.sent.as_ref().unwrap().body, sent.body);
    request.end_without_answer();
}

#[test]
fn a_cluster_that_is_not_there_is_as_good_as_no_answer() {
    let mut envoy = Envoy::new(&policy::with_redis_quota());
    envoy.host.state().refuses_calls = true;
    let request = envoy.chat("sk-acme", &question());
    // By default, a request that cannot be counted is refused.
    assert_eq!((request.sent.is_some(), request.client.status()), (false, 503));
    request.end();
}

#[test]
fn a_look_into_the_cache_that_is_never_answered_ends_with_its_request() {
    let mut envoy = Envoy::new(&policy::with_cache("redis"));
    let request = envoy.chat("sk-acme", &question());
    let call = envoy.host.take_calls().remove(0);
    assert_eq!(redis::arguments(&call)[0], "GET");
    assert!(request.sent.is_none() && request.client.headers.is_none(), "held");
    envoy.pass(60_000);
    let audit = request.end_without_answer();
    assert_eq!(audit["error_code"], "client_disconnected");
    // The next identical request waits for no other, and takes the tenant's one place, which is free.
    let mut next = envoy.chat("sk-acme", &question());
    let call = envoy.host.take_calls().remove(0);
    next.end_call(&call, 504, b"");
    assert!(next.sent.is_some());
    let mut attempt = next.attempt(&mut envoy, "vllm");
    attempt.respond(Event::answer(200, &completion()));
    next.relay(&mut attempt);
    attempt.end();
    assert_eq!((next.client.status(), next.client.json()["choices"].clone()), (200, completion()["choices"].clone()));
    let audit = next.end();
    assert_eq!(audit["error_code"], json!(null), "{audit}");
    assert_eq!(envoy.tokens_today("sk-acme"), 12);
}

#[test]
fn a_provider_that_never_answers_is_charged_by_what_envoy_says() {
    let mut envoy = Envoy::new(&policy::document());
    let mut request = envoy.chat("sk-acme", &question());
    request.attempt(&mut envoy, "vllm").end();
    envoy.host.state().now_ms += 30_000;
    request.cut("response_timeout", 504);
    assert_eq!(envoy.host.context(request.id).numbers[&Property::ResponseCode], 504);
    let audit = request.end();
    assert_eq!((&audit["status"], &audit["latency_ms"]), (&json!(504), &json!(30_000)), "{audit}");
    assert!(audit["error_code"].is_string(), "{audit}");
    assert_eq!(envoy.tokens_today("sk-acme"), 0);
    assert_eq!(envoy.chat("sk-acme", &question()).end_without_answer()["plan"], json!(["small", "big"]));
}
