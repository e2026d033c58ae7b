//! Limits at their edges: reservations for servers that may ignore a limit, charges based on estimates, and who waits
//! how long when several windows are full.

use super::*;
use crate::exchange::quota::tests::{call, policy, store};
use crate::exchange::{OnResponseHead, ResponseHead};
use crate::fixture::context;
use crate::quota::fixture::{START, Shared};
use crate::quota::redis::settlement::Unsettled;
use crate::quota::reservation::Charge;
use crate::quota::window::WindowStatus;
use crate::request::head::RequestHead;
use crate::wire::header::HeaderLine;
use serde_json::{Value, json};

/// A request that goes out.
fn sent(policy: &Policy, store: &mut Shared, request: &Value) -> Exchange {
    let mut exchange = Exchange::new(store.now_ms);
    let headers = [(":method", "POST"), (":path", "/v1/chat/completions"), ("api-key", "sk-acme")];
    let head = RequestHead::read(policy, headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    exchange.on_request_headers(context!(policy), &head, store);
    let next = exchange.on_request(context!(policy), request.to_string().as_bytes(), store);
    assert!(matches!(next, RequestStep::Send(_)), "{next:?}");
    exchange
}

/// The tenant's first window.
fn status(policy: &Policy, store: &mut Shared) -> WindowStatus {
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
    local::look(store, limits, &ask, &moment)[0].1
}

/// Uses this many tokens of a model, for a user, at a time.
fn take(policy: &Policy, store: &mut Shared, model: &str, (user, now_ms): ([u8; 32], u64), tokens: u64) -> bool {
    let limits = policy.quota_of(policy.find_tenant("acme").unwrap()).unwrap();
    let moment = Moment::new(&policy.counting.zone, now_ms);
    let (model, used) = (policy.find_model(model).unwrap(), Amount::new(tokens, 0));
    let models = [(model, used)];
    let ask = Ask {
        tenant: "acme",
        user: &user,
        models: &models,
        lease_ms: Some(1000),
        adds_up: false,
        stop_at_degrade_threshold: false,
        is_rough: false,
    };
    let Ok(grant) = local::reserve(store, limits, &ask, &moment) else { return false };
    local::settle(store, limits, &grant.reservation, &[Charge { model, used }], &moment);
    true
}

fn header<'a>(headers: &'a [HeaderLine], name: &str) -> Option<&'a str> {
    headers.iter().find(|(n, _)| *n == name).map(|(_, value)| &**value)
}

#[test]
fn a_limit_that_a_server_may_not_know_bounds_nothing_that_is_reserved() {
    let policy = policy(json!({"tokens_per_day": 1_000_000, "max_output_tokens": 20}));
    let reserved = |limit: &str| {
        let mut store = store();
        sent(&policy, &mut store, &json!({"model": "big", limit: 5, "messages": [{"role": "user", "content": "x"}]}));
        status(&policy, &mut store).reserved
    };
    let own = policy.model(policy.find_model("big").unwrap()).max_output_tokens;
    assert!(reserved("max_completion_tokens") >= own, "{}", reserved("max_completion_tokens"));
    assert!(reserved("max_tokens") < own);
}

#[test]
fn a_quick_bound_is_reserved_only_where_it_leaves_plenty_of_room() {
    let text = "The train leaves at seven, and Ann waits on the platform. ".repeat(20);
    let messages = json!([{"role": "user", "content": text}]);
    let request = json!({"model": "big", "stream": true, "max_tokens": 10, "messages": messages});
    let bytes = request.to_string().len() as u64;
    let reserved = |limits: serde_json::Value| {
        let (policy, mut store) = (policy(limits), store());
        let mut exchange = sent(&policy, &mut store, &request);
        let reserved = status(&policy, &mut store).reserved;
        // The caller leaves before its provider has counted.
        let head = ResponseHead {
            status: 200,
            content_type: b"text/event-stream",
            model: b"big",
            attempts: b"1",
            ..Default::default()
        };
        assert!(matches!(exchange.response_head(context!(&policy), &head), OnResponseHead::Stream(_)));
        exchange.stream_chunk(b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n", false, || 1);
        exchange.cut_off("downstream_remote_disconnect", 0, None);
        exchange.settle(context!(&policy), &mut store);
        (reserved, status(&policy, &mut store).used)
    };
    let (quick, charged) = reserved(json!({"tokens_per_day": 16 * (bytes + 200)}));
    assert!((bytes..bytes + 200).contains(&quick), "{quick}, {bytes} bytes");
    let (close, exactly) = reserved(json!({"tokens_per_day": 16 * bytes - 1}));
    assert!((250..350).contains(&close), "{close}");
    // What is charged does not depend on which was reserved.
    assert!((250..350).contains(&exactly) && charged.abs_diff(exactly) < 60, "{charged}, {exactly}");
    // Nor is a window counted as reached because of the quick one.
    assert_eq!(
        reserved(json!({"tokens_per_day": 1_000_000, "on_exhausted": {"degrade": "small"}, "degrade_at": 0.9})).0,
        close
    );
}

#[test]
fn an_estimate_is_never_charged_beyond_what_was_reserved_but_a_providers_count_is() {
    let policy = policy(json!({"tokens_per_day": 80}));
    let request =
        json!({"model": "big", "stream": true, "max_tokens": 10, "messages": [{"role": "user", "content": "x"}]});
    let used = |usage: &str| {
        let mut store = store();
        let mut exchange = sent(&policy, &mut store, &request);
        let reserved = status(&policy, &mut store).reserved;
        let head = ResponseHead {
            status: 200,
            content_type: b"text/event-stream",
            model: b"big",
            attempts: b"1",
            ..Default::default()
        };
        assert!(matches!(exchange.response_head(context!(&policy), &head), OnResponseHead::Stream(_)));
        // A tokenizer counts about one token each; an estimate that does not know words of symbols counts more.
        for _ in 0..10 {
            let text = "================";
            let chunk = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]{usage}}}\n\n");
            exchange.stream_chunk(chunk.as_bytes(), false, || 1);
        }
        exchange.cut_off("downstream_remote_disconnect", 0, None);
        exchange.settle(context!(&policy), &mut store);
        (reserved, status(&policy, &mut store).used)
    };
    let (reserved, estimated) = used("");
    assert!(estimated > 10 && estimated <= reserved, "{estimated} of {reserved}");
    let counted = r#","usage":{"prompt_tokens":100,"completion_tokens":1000}"#;
    assert_eq!(used(counted).1, 1100);
}

#[test]
fn who_could_be_served_by_several_models_waits_for_the_first_that_has_room() {
    let policy = policy(json!({"per_model": {"small": {"tokens_per_day": 40}, "big": {"requests_per_minute": 1}}}));
    let mut store = store();
    assert!(take(&policy, &mut store, "small", ([0; 32], START), 40));
    let request = json!({"model": "chat", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(call(&policy, &mut store, &request, [1, 1]).0, 200);
    let (status, headers) = call(&policy, &mut store, &request, [1, 1]);
    assert_eq!((status, header(&headers, "retry-after")), (429, Some("60")), "{headers:?}");
    assert_eq!(header(&headers, "x-should-retry"), None);
    store.now_ms += 60_000;
    assert_eq!(call(&policy, &mut store, &request, [1, 1]).0, 200);
}

#[test]
fn a_refusal_tells_of_no_model_that_was_not_asked_for() {
    let policy = policy(json!({"requests_per_minute": 1, "per_model": {"small": {"tokens_per_day": 7}}}));
    let mut store = store();
    let request = json!({"model": "big", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(call(&policy, &mut store, &request, [1, 1]).0, 200);
    let (status, headers) = call(&policy, &mut store, &request, [1, 1]);
    assert_eq!((status, header(&headers, "x-ratelimit-limit-requests")), (429, Some("1")));
    assert_eq!(header(&headers, "x-ratelimit-limit-tokens"), None, "{headers:?}");
}

#[test]
fn a_free_model_serves_where_the_month_and_the_days_tokens_are_used_up_together() {
    let limits = json!({"tokens_per_day": 200, "budget_usd_per_month": 0.003, "on_exhausted": {"degrade": "small"}});
    let policy = policy(limits);
    let request = json!({"model": "big", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}]});
    // The day alone, twice, and both.
    for usage in [[199, 1], [10, 190], [10, 340]] {
        let mut store = store();
        assert_eq!(call(&policy, &mut store, &request, usage).0, 200);
        let (status, headers) = call(&policy, &mut store, &request, [0, 0]);
        assert_eq!(status, 200, "{usage:?} {headers:?}");
        assert!(header(&headers, "x-pointsman-degraded").is_some(), "{usage:?} {headers:?}");
    }
}

#[test]
fn the_policys_own_words_for_one_caller_say_nothing_to_those_who_ask_the_same() {
    let of =
        |tokens: u64| policy(json!({"tokens_per_day": tokens, "on_exhausted": {"template": "Come back tomorrow."}}));
    let (used_up, roomy, mut store) = (of(1), of(1_000_000), store());
    let mut ask = |policy: &Policy| {
        let mut exchange = Exchange::new(START);
        let headers = [(":method", "POST"), (":path", "/v1/chat/completions"), ("api-key", "sk-acme")];
        let head = RequestHead::read(policy, headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        exchange.on_request_headers(context!(policy), &head, &mut store);
        let body = json!({"model": "code", "messages": [{"role": "user", "content": "x"}]}).to_string();
        match exchange.on_request(context!(policy), body.as_bytes(), &mut store) {
            RequestStep::Send(_) => "asks",
            RequestStep::Park => "waits",
            RequestStep::Reply(reply) if reply.status == 200 => {
                assert!(exchange.is_in_flight(), "it had begun to lead");
                exchange.leave(&mut store, START);
                "template"
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ask(&used_up), "template");
    // One proceeds, and the others wait for it.
    assert_eq!([ask(&roomy), ask(&roomy), ask(&roomy)], ["asks", "waits", "waits"]);
}

#[test]
fn a_clock_that_jumps_back_over_midnight_gives_no_user_a_day_again() {
    let policy = policy(json!({"per_user": {"tokens_per_day": 10}}));
    let (one, midnight) = ([1; 32], START + 86_400_000);
    let mut store = store();
    assert!(take(&policy, &mut store, "big", (one, midnight - 2000), 10));
    assert!(!take(&policy, &mut store, "big", (one, midnight - 1500), 10));
    assert!(take(&policy, &mut store, "big", (one, midnight + 1000), 5));
    // The clock goes back: usage counts towards the day that had begun.
    assert!(take(&policy, &mut store, "big", (one, midnight - 1000), 5));
    assert!(!take(&policy, &mut store, "big", (one, midnight - 500), 1));
    assert!(!take(&policy, &mut store, "big", (one, midnight + 2000), 1));
    // A user that used up its day gets no second one, even after others began the next day.
    let (idle, others) = ([2; 32], 10..200);
    assert!(take(&policy, &mut store, "big", (idle, midnight - 400), 10));
    others.for_each(|n| assert!(take(&policy, &mut store, "big", ([n; 32], midnight + 3000), 1)));
    // Whether its counters have seen the next day depends on which users share its record.
    let early = take(&policy, &mut store, "big", (idle, midnight - 300), 10);
    let late = take(&policy, &mut store, "big", (idle, midnight + 4000), 10);
    assert_ne!(early, late);
}

#[test]
fn a_tenant_that_has_no_limits_any_longer_is_not_asked_after() {
    let mut document = crate::fixture::document();
    document["redis"] = json!({"cluster": "webdis"});
    document["quota"] = json!({"store": "redis", "default_price": {"input": 1, "output": 1}});
    document["tiers"]["free"]["limits"]["tokens_per_day"] = json!(5);
    let policy = crate::policy::parse::from_value(&document).unwrap().1;
    // A request pending on Redis gives up instead of waiting for it.
    let look = Unsettled::look(&policy, policy.find_tenant("acme").unwrap(), START);
    assert!(look.call(&policy, true).is_none() && !look.charges());
}

#[test]
fn a_change_of_the_shares_that_are_reported_loses_none_and_repeats_none() {
    let of = |shares: &[f64]| policy(json!({"budget_usd_per_day": 1, "alert_at": shares}));
    let mut store = store();
    // 125,000 output tokens of the dear model cost a dollar.
    let mut use_up = |policy: &Policy, output: u64| {
        let request =
            |text: &str| json!({"model": "big", "max_tokens": 5, "messages": [{"role": "user", "content": text}]});
        call(policy, &mut store, &request("x"), [0, output]);
        header(&call(policy, &mut store, &request("y"), [0, 0]).1, "x-pointsman-quota-alert").map(str::to_owned)
    };
    let said = |share: &str| Some(format!("budget_usd_per_day={share}%"));
    assert_eq!(use_up(&of(&[0.5]), 65_000), said("50"));
    assert_eq!(use_up(&of(&[0.4, 0.5, 0.9]), 1000), None);
    assert_eq!(use_up(&of(&[0.6]), 10_000), said("60"));
    assert_eq!(use_up(&of(&[0.5, 0.95]), 44_000), said("95"));
}

#[test]
fn who_has_no_room_and_whose_tenant_has_none_waits_for_the_longer_of_both() {
    let policy = policy(json!({"tokens_per_day": 100, "per_user": {"requests_per_minute": 1}}));
    let request = json!({"model": "big", "max_tokens": 50, "messages": [{"role": "user", "content": "x"}]});
    for (used, wait) in [(1, "60"), (99, "86400")] {
        let mut store = store();
        assert_eq!(call(&policy, &mut store, &request, [used, 1]).0, 200);
        let (status, headers) = call(&policy, &mut store, &request, [1, 1]);
        assert_eq!((status, header(&headers, "retry-after")), (429, Some(wait)), "{used}: {headers:?}");
    }
}
