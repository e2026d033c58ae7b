//! Service tiers event by event: which requests go out, what they reserve, and what they cost.

use super::*;
use crate::exchange::quota::tests::store;
use crate::exchange::{BodyEdit, OnResponseHead, ResponseHead};
use crate::fixture::{self, context};
use crate::quota::fixture::{START, Shared};
use crate::request::head::RequestHead;
use crate::request::splice::Splice;
use serde_json::{Value, json};

/// `big` has prices for two tiers, and `lenient` drops what it does not take. `limits`: the tenant's.
fn policy(limits: Value) -> Policy {
    let mut document = fixture::document();
    let tiers = json!({"priority": {"input": 4, "output": 16}, "flex": {"input": 1, "output": 4}});
    document["models"]["big"]["price"] = json!({"input": 2, "output": 8, "tiers": tiers});
    document["models"]["lenient"] = document["models"]["strict"].clone();
    document["models"]["lenient"]["drop_params"] = json!(true);
    document["tiers"]["pro"]["models"] = json!(["small", "big", "strict", "lenient"]);
    document["tiers"]["pro"]["limits"] = limits;
    document["quota"] = json!({"default_price": {"input": 2, "output": 8}});
    crate::policy::parse::from_value(&document).unwrap().1
}

fn budget() -> Policy {
    policy(json!({"budget_usd_per_day": 100}))
}

fn ask(model: &str, tier: Value) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "x"}], "service_tier": tier})
}

/// A request after its decision, and the body that went out or the refusal.
fn decide(policy: &Policy, store: &mut Shared, request: &Value) -> (Exchange, Result<Value, Value>) {
    let mut exchange = Exchange::new(store.now_ms);
    let headers = [(":method", "POST"), (":path", "/v1/chat/completions"), ("api-key", "sk-acme")];
    let head = RequestHead::read(policy, headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    exchange.on_request_headers(context!(policy), &head, store);
    let body = request.to_string();
    let sent = match exchange.on_request(context!(policy), body.as_bytes(), store) {
        RequestStep::Send(outgoing) => {
            let (head, rest, closing) = match outgoing.edit {
                BodyEdit::Prefix(prefix, head) => (head, Vec::new(), prefix..body.len()),
                BodyEdit::Whole(head, rest, closing) => (head, rest, closing),
            };
            let splice = Splice { heads: vec![head], rest, closing };
            Ok(serde_json::from_slice(&splice.assemble(body.as_bytes())).unwrap())
        }
        RequestStep::Reply(reply) => Err(serde_json::from_slice(&reply.body).unwrap()),
        other => panic!("{other:?}"),
    };
    (exchange, sent)
}

/// The micro-dollars that are reserved, and used, of the tenant's budget.
fn standing(policy: &Policy, store: &mut Shared) -> (u64, u64) {
    let limits = policy.quota_of(policy.find_tenant("acme").unwrap()).unwrap();
    let moment = Moment::new(&policy.counting.zone, START);
    let ask = Ask {
        tenant: "acme",
        user: &ANONYMOUS,
        models: &[],
        lease_ms: None,
        adds_up: false,
        stop_at_degrade_threshold: false,
        is_rough: false,
    };
    let status = &local::look(store, limits, &ask, &moment)[0].1;
    (status.reserved, status.used)
}

#[test]
fn under_a_budget_a_tier_goes_out_only_to_models_that_have_a_price_for_it() {
    let sent = |policy: &Policy, model: &str, tier: &str| {
        decide(policy, &mut store(), &ask(model, json!(tier))).1.map(|body| body.get("service_tier").cloned())
    };
    let policy = budget();
    for tier in ["auto", "default", "priority", "Priority", "flex"] {
        assert_eq!(sent(&policy, "big", tier), Ok(Some(json!(tier))));
    }
    let refused = |answer: Result<_, Value>| {
        let error = answer.unwrap_err()["error"].clone();
        (error["code"].clone(), error["param"].clone())
    };
    let unsupported = (json!("unsupported_parameter"), json!("service_tier"));
    for (model, tier) in [("big", "scale"), ("big", ""), ("big", "priority "), ("strict", "priority")] {
        assert_eq!(refused(sent(&policy, model, tier)), unsupported, "{model} {tier}");
    }
    assert_eq!(sent(&policy, "lenient", "priority"), Ok(None));
    assert_eq!(sent(&policy, "lenient", "auto"), Ok(Some(json!("auto"))));
    // A chain leaves out the model that has no price. Of two spellings only one is the field.
    assert_eq!(sent(&policy, "code", "flex"), Ok(Some(json!("flex"))));
    let mut other = ask("big", json!("auto"));
    other["Service_Tier"] = json!("scale");
    assert_eq!(refused(decide(&policy, &mut store(), &other).1.map(|_| None)).0, "unknown_parameter");
    for wrong in [json!(1), json!(["priority"]), json!({})] {
        let (code, param) = refused(decide(&policy, &mut store(), &ask("big", wrong)).1.map(|_| None));
        assert_eq!((code, param), (json!("invalid_type"), json!("service_tier")));
    }
    assert!(decide(&policy, &mut store(), &ask("big", Value::Null)).1.is_ok());
    // Without a budget that refuses, nothing depends on the price.
    for limits in [json!({"tokens_per_day": 1_000_000}), json!({"budget_usd_per_day": 1, "shadow": true})] {
        let policy = self::policy(limits);
        for model in ["big", "strict", "lenient"] {
            assert_eq!(sent(&policy, model, "scale"), Ok(Some(json!("scale"))));
        }
    }
}

#[test]
fn the_dearer_of_base_and_requested_tier_is_reserved() {
    let policy = budget();
    let reserved = |model: &str, tier: Value| {
        let mut store = store();
        assert!(decide(&policy, &mut store, &ask(model, tier)).1.is_ok());
        standing(&policy, &mut store).0
    };
    let base = reserved("big", Value::Null);
    assert!(base >= 8 * 1000, "{base}");
    for tier in ["auto", "default", "flex"] {
        // Some bytes of the body more are some tokens more.
        let reserved = reserved("big", json!(tier));
        assert!((base..base + 30).contains(&reserved), "{tier}: {reserved}");
    }
    assert!(reserved("big", json!("priority")) >= 2 * base);
    let (dropped, plain) = (reserved("lenient", json!("priority")), reserved("lenient", json!("auto")));
    assert!(dropped.abs_diff(plain) < 30);
}

/// What an answer from `model` costs in micro-dollars, as charged and as recorded, the tier in the record, and whether
/// the price is a guess.
fn answered(policy: &Policy, model: &str, tier: Value, served: Value, stream: bool) -> (u64, u64, Value, bool) {
    let mut store = store();
    let mut request = ask(model, tier);
    request["stream"] = json!(stream);
    let (mut exchange, sent) = decide(policy, &mut store, &request);
    sent.unwrap();
    let content_type: &[u8] = if stream { b"text/event-stream" } else { b"application/json" };
    let head =
        ResponseHead { status: 200, content_type, model: model.as_bytes(), attempts: b"1", ..Default::default() };
    let on_head = exchange.response_head(context!(policy), &head);
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 1000});
    if stream {
        assert!(matches!(on_head, OnResponseHead::Stream(_)), "{on_head:?}");
        let chunk = json!({"choices": [{"index": 0, "delta": {"content": "a"}}], "service_tier": served});
        // The last chunk need not repeat it.
        let last = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "service_tier": null});
        let text = format!(
            "data: {chunk}\n\ndata: {last}\n\ndata: {}\n\ndata: [DONE]\n\n",
            json!({"choices": [], "usage": usage})
        );
        exchange.stream_chunk(text.as_bytes(), true, || START);
    } else {
        assert!(matches!(on_head, OnResponseHead::Hold), "{on_head:?}");
        let choice = json!({"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a"}});
        let body = json!({"choices": [choice], "usage": usage, "service_tier": served});
        let whole = exchange.on_full_body(policy, body.to_string().as_bytes());
        assert!(whole.replace.is_none() && whole.headers.iter().any(|(name, _)| *name == "x-pointsman-cost-usd"));
    }
    exchange.settle(context!(policy), &mut store);
    let audit: Value = serde_json::from_slice(&exchange.audit(policy, &[], START)).unwrap();
    assert_eq!(audit["error_code"], Value::Null, "{audit}");
    let micros = (audit["estimated_cost_usd"].as_f64().unwrap() * 1e6).round() as u64;
    (standing(policy, &mut store).1, micros, audit["service_tier"].clone(), audit["price_estimated"] == true)
}

#[test]
fn the_tier_that_served_is_charged_and_recorded() {
    let policy = budget();
    let of = |text: &str| if text.is_empty() { Value::Null } else { json!(text) };
    for stream in [false, true] {
        for (model, tier, served, cost, named, guess) in [
            ("big", "", "", 10_000, "", false),
            ("big", "auto", "auto", 10_000, "", false),
            ("big", "auto", "priority", 20_000, "priority", false),
            ("big", "", "scale", 20_000, "scale", true),
            ("big", "", "\u{1F600}", 20_000, "unrecognized", true),
            ("big", "priority", "", 20_000, "priority", false),
            ("big", "priority", "priority", 20_000, "priority", false),
            ("big", "priority", "default", 10_000, "default", false),
            ("big", "flex", "", 10_000, "flex", false),
            ("big", "flex", "flex", 5_000, "flex", false),
            ("lenient", "priority", "", 10_000, "", false),
            ("lenient", "priority", "standard", 10_000, "default", false),
            ("lenient", "", "priority", 10_000, "priority", true),
        ] {
            let got = answered(&policy, model, of(tier), of(served), stream);
            assert_eq!(got, (cost, cost, of(named), guess), "{model} {tier} {served} {stream}");
        }
    }
}
