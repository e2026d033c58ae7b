//! Quotas event by event: what callers are told, and what estimates learn.

use super::*;
use crate::exchange::{OnResponseHead, RequestStep, ResponseHead};
use crate::fixture::{self, context};
use crate::quota::fixture::{START, Shared};
use crate::request::head::RequestHead;
use crate::routing::plan::Load;
use crate::store::shared_data::{NEW, SharedData};
use crate::wire::header::HeaderLine;
use serde_json::{Value, json};

/// No model is busy.
impl Load for Shared {
    fn acquire(
        &mut self,
        _: &str,
        _: crate::routing::in_flight::Places,
    ) -> Result<(), crate::routing::in_flight::Full> {
        Ok(())
    }
    fn check(&mut self, _: &str, _: crate::routing::in_flight::Places) -> Result<(), crate::routing::in_flight::Full> {
        Ok(())
    }
}

impl SharedData for Shared {
    fn get(&mut self, name: &str) -> (Vec<u8>, u32) {
        self.records.get(name).map_or((Vec::new(), NEW), |record| (record.clone(), 1))
    }
    fn set(&mut self, name: &str, record: &[u8], _: u32) -> bool {
        self.records.insert(name.to_owned(), record.to_vec());
        true
    }
}

/// A policy whose tenant has these limits and whose task caches its answers.
pub(super) fn policy(limits: Value) -> Policy {
    let mut document = fixture::document();
    document["tiers"]["pro"]["limits"] = limits;
    document["tasks"]["code"]["cache"] = json!({"ttl": "1h", "requests": "any"});
    document["quota"] = json!({"default_price": {"input": 1, "output": 1}});
    crate::policy::parse::from_value(&document).unwrap().1
}

/// The reply of the gateway to a request, which goes nowhere: its status, its body and its headers.
pub(super) fn reply(policy: &Policy, store: &mut Shared, request: &Value) -> (u16, Value, Vec<HeaderLine>) {
    let mut exchange = Exchange::new(store.now_ms);
    let headers = [(":method", "POST"), (":path", "/v1/chat/completions"), ("api-key", "sk-acme")];
    let head = RequestHead::read(policy, headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    assert!(matches!(exchange.on_request_headers(context!(policy), &head, store), RequestStep::AwaitBody));
    match exchange.on_request(context!(policy), request.to_string().as_bytes(), store) {
        RequestStep::Reply(reply) => (reply.status, serde_json::from_slice(&reply.body).unwrap(), reply.headers),
        other => panic!("{other:?}"),
    }
}

/// A request for the dear model, answered with this usage if it goes out; its status and headers.
pub(super) fn call(policy: &Policy, store: &mut Shared, request: &Value, usage: [u64; 2]) -> (u16, Vec<HeaderLine>) {
    let mut exchange = Exchange::new(store.now_ms);
    let headers = [(":method", "POST"), (":path", "/v1/chat/completions"), ("api-key", "sk-acme")];
    let head = RequestHead::read(policy, headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    assert!(matches!(exchange.on_request_headers(context!(policy), &head, store), RequestStep::AwaitBody));
    let told = match exchange.on_request(context!(policy), request.to_string().as_bytes(), store) {
        RequestStep::Reply(reply) => (reply.status, reply.headers),
        RequestStep::Send(_) => {
            let (status, content_type) = (200, b"application/json");
            let head = ResponseHead { status, content_type, model: b"big", attempts: b"1", ..Default::default() };
            assert!(matches!(exchange.response_head(context!(policy), &head), OnResponseHead::Hold));
            let [input, output] = usage;
            let body = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "gpt", "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a"}}],
                "usage": {"prompt_tokens": input, "completion_tokens": output}});
            let whole = exchange.on_full_body(policy, body.to_string().as_bytes());
            if exchange.keeps() {
                let now_ms = store.now_ms;
                exchange.keep(context!(policy), store, now_ms);
            }
            (200, whole.headers)
        }
        other => panic!("{other:?}"),
    };
    if exchange.has_reserved() {
        exchange.settle(context!(policy), store);
    }
    told
}

fn ask(text: &str) -> Value {
    json!({"model": "code", "messages": [{"role": "user", "content": text}]})
}

fn alert(headers: &[HeaderLine]) -> Option<&str> {
    headers.iter().find(|(name, _)| *name == "x-pointsman-quota-alert").map(|(_, value)| &**value)
}

pub(super) fn store() -> Shared {
    Shared { now_ms: START, ..Shared::default() }
}

#[test]
fn a_share_is_told_once_whether_the_next_answer_is_let_through_refused_or_the_caches() {
    let told = Some("budget_usd_per_day=50%");
    let policy_of = |budget: f64| policy(json!({"budget_usd_per_day": budget, "alert_at": [0.5]}));
    // 1,000 output tokens of the dear model cost 8,000 micro-dollars.
    let (roomy, tight) = (policy_of(0.015), policy_of(0.0082));
    for (policy, status) in [(&roomy, 200), (&tight, 429)] {
        let mut store = store();
        assert_eq!(alert(&call(policy, &mut store, &ask("one"), [0, 1000]).1), None);
        let (got, headers) = call(policy, &mut store, &ask("two"), [0, 0]);
        assert_eq!((got, alert(&headers)), (status, told));
        assert!(headers.iter().filter(|(name, _)| *name == "x-pointsman-quota-alert").count() == 1);
        assert_eq!(alert(&call(policy, &mut store, &ask("three"), [0, 0]).1), None);
    }
    let mut store = store();
    call(&roomy, &mut store, &ask("one"), [1, 1000]);
    let (status, headers) = call(&roomy, &mut store, &ask("one"), [0, 0]);
    assert!(headers.contains(&("x-pointsman-cache", "hit".into())), "{headers:?}");
    assert_eq!((status, alert(&headers)), (200, told));
    assert_eq!(alert(&call(&roomy, &mut store, &ask("one"), [0, 0]).1), None);
}

#[test]
fn what_others_have_only_reserved_is_no_reason_to_say_that_it_is_used_up() {
    let limits = json!({"tokens_per_day": 130, "on_exhausted": {"template": "Come back tomorrow."}});
    let (policy, mut store) = (policy(limits), store());
    let mut open = Exchange::new(START);
    let headers = [(":method", "POST"), (":path", "/v1/chat/completions"), ("api-key", "sk-acme")];
    let head = RequestHead::read(&policy, headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    open.on_request_headers(context!(&policy), &head, &mut store);
    let sent = open.on_request(context!(&policy), ask("one").to_string().as_bytes(), &mut store);
    assert!(matches!(sent, RequestStep::Send(_)), "{sent:?}");
    let (status, headers) = call(&policy, &mut store, &ask("two"), [0, 0]);
    assert_eq!(status, 429);
    assert!(headers.contains(&("retry-after", "1".into())), "{headers:?}");
    assert!(!headers.iter().any(|(name, _)| *name == "x-should-retry"), "{headers:?}");
    // It ends without using anything, so the next one can use all of it.
    open.settle(context!(&policy), &mut store);
    assert_eq!(call(&policy, &mut store, &ask("three"), [30, 100]).0, 200);
    let (status, headers) = call(&policy, &mut store, &ask("four"), [0, 0]);
    assert_eq!(status, 200, "the policy's own words");
    assert!(headers.contains(&("x-pointsman-template", "tokens_per_day".into())), "{headers:?}");
    assert!(headers.iter().any(|(name, _)| *name == "x-ratelimit-remaining-tokens"), "{headers:?}");
}

#[test]
fn only_what_a_provider_counted_of_messages_is_learned_from() {
    // So few that the close bound is needed, which is compared with the count.
    let policy = policy(json!({"tokens_per_day": 10_000}));
    let learned = |request: &Value, usage| {
        let mut store = store();
        call(&policy, &mut store, request, usage);
        // Once more: nothing is learned from a cached answer.
        call(&policy, &mut store, request, usage);
        store.learned
    };
    let long = ask(&"many words ".repeat(50));
    let one = learned(&long, [200, 5]);
    assert!(matches!(one.as_slice(), [(model, _, 200)] if model == "big"), "{one:?}");
    assert_eq!(learned(&long, [0, 5]), [], "it counted nothing");
    // A body that is mostly not messages; and one with an image, for which a fixed number stands.
    let mut padded = long.clone();
    padded["metadata"] = json!({"note": "x".repeat(500)});
    assert_eq!(learned(&padded, [200, 5]), []);
    let image = json!([{"type": "text", "text": "many words ".repeat(50)},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]);
    let mut seen = long.clone();
    seen["messages"][0]["content"] = image;
    assert_eq!(learned(&seen, [200, 5]), []);
}
