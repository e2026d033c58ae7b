//! Requests whose worst case does not fit what is left: clamped where the policy wants it, and told apart from those
//! for which nothing is left.

use super::tests::{call, policy, store};
use crate::policy::Policy;
use crate::quota::fixture::{Random, Shared};
use crate::wire::header::HeaderLine;
use serde_json::{Value, json};

const DAY_MS: u64 = 86_400_000;

fn header<'a>(headers: &'a [HeaderLine], name: &str) -> Option<&'a str> {
    headers.iter().find(|(other, _)| *other == name).map(|(_, value)| &**value)
}

fn limit(headers: &[HeaderLine]) -> Option<u64> {
    header(headers, "x-pointsman-output-limit").map(|limit| limit.parse().unwrap())
}

/// A request of the dear model: 8 micro-dollars for a token of output.
fn ask(most: u64) -> Value {
    json!({"model": "big", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": most})
}

#[test]
fn a_request_that_is_too_large_for_what_is_left_gets_the_limit_that_fits() {
    let policy = policy(json!({"budget_usd_per_day": 0.01, "on_tight": "clamp", "min_output_tokens": 100}));
    let mut store = store();
    let (status, headers) = call(&policy, &mut store, &ask(1000), [1, 625]);
    assert_eq!((status, limit(&headers)), (200, None), "it fits");
    // 5,000 micro-dollars are left, and the prompt costs a few of them.
    let (status, headers) = call(&policy, &mut store, &ask(1000), [1, 500]);
    assert!(status == 200 && (600..625).contains(&limit(&headers).unwrap()), "{headers:?}");
    // 1,000 are left: with two choices, half for each.
    let mut two = ask(1000);
    two["n"] = json!(2);
    assert_eq!(call(&policy, &mut store, &two, [0, 0]).0, 429, "less than a hundred for each");
    let (status, headers) = call(&policy, &mut store, &ask(1000), [1, 1]);
    assert!(status == 200 && (100..125).contains(&limit(&headers).unwrap()), "{headers:?}");
    // A request without a limit of its own counts with that of the model, and one with a lower one is left alone.
    let mut open = ask(0);
    open.as_object_mut().unwrap().remove("max_tokens");
    assert!((100..125).contains(&limit(&call(&policy, &mut store, &open, [1, 1]).1).unwrap()));
    assert_eq!(limit(&call(&policy, &mut store, &ask(100), [1, 1]).1), None);
    assert_eq!(call(&policy, &mut store, &ask(1000), [1, 30]).0, 200);
    let (status, headers) = call(&policy, &mut store, &ask(1000), [0, 0]);
    assert_eq!((status, limit(&headers)), (429, None), "less than the lowest limit is left");
}

#[test]
fn each_window_of_tokens_can_be_tight_and_the_tightest_counts() {
    for (limits, most) in [
        (json!({"tokens_per_minute": 400}), 400),
        (json!({"tokens_per_day": 400}), 400),
        (json!({"budget_usd_per_month": 0.0032}), 400),
        (json!({"tokens_per_day": 900, "per_user": {"tokens_per_day": 300}}), 300),
        (json!({"tokens_per_day": 900, "per_model": {"big": {"tokens_per_minute": 200}}}), 200),
    ] {
        let mut limits = limits;
        limits["on_tight"] = json!("clamp");
        limits["min_output_tokens"] = json!(20);
        let policy = policy(limits);
        let (status, headers) = call(&policy, &mut store(), &ask(1000), [0, 0]);
        let clamped = limit(&headers).unwrap_or_else(|| panic!("{headers:?}"));
        assert!(status == 200 && (most - 60..most).contains(&clamped), "{clamped} of {most}");
    }
    // Of a rate of requests there is no smaller one.
    let policy = policy(json!({"requests_per_minute": 1, "tokens_per_day": 5000, "on_tight": "clamp"}));
    let mut store = store();
    assert_eq!(call(&policy, &mut store, &ask(1000), [0, 0]).0, 200);
    assert_eq!(call(&policy, &mut store, &ask(1000), [0, 0]).0, 429);
}

#[test]
fn whatever_is_asked_no_window_is_passed() {
    let policy = policy(json!({"tokens_per_day": 3000, "budget_usd_per_day": 0.02, "on_tight": "clamp",
        "min_output_tokens": 1, "per_model": {"big": {"tokens_per_day": 2500}}}));
    let mut random = Random(7);
    let (mut clamped, mut refused) = (0, 0);
    for _ in 0..50 {
        let mut store = store();
        let mut spent = 0;
        for _ in 0..12 {
            let most = 1 + random.below(1000);
            let mut request = ask(most);
            request["n"] = json!(1 + random.below(3));
            let choices = request["n"].as_u64().unwrap();
            let (status, headers) = call(&policy, &mut store, &request, [0, 0]);
            let may = limit(&headers).unwrap_or(most);
            assert!(may <= most);
            if status != 200 {
                refused += 1;
                continue;
            }
            clamped += u32::from(may < most);
            // It makes as much as it may.
            store.now_ms += 1;
            let mut again = request.clone();
            again["max_tokens"] = json!(may);
            if call(&policy, &mut store, &again, [1, may * choices]).0 == 200 {
                spent += may * choices;
            }
            assert!(spent <= 2500, "{spent}");
        }
    }
    assert!(clamped > 20 && refused > 20, "{clamped} clamped, {refused} refused");
}

fn refusal(policy: &Policy, store: &mut Shared, request: &Value) -> (u16, String) {
    let (status, body, _) = super::tests::reply(policy, store, request);
    (status, body["error"]["message"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn a_refusal_tells_used_reserved_needed_and_left_apart() {
    let policy = policy(json!({"budget_usd_per_day": 0.01, "on_exhausted": {"template": "All used up."}}));
    let mut store = store();
    assert_eq!(call(&policy, &mut store, &ask(1000), [1, 625]).0, 200);
    let (status, message) = refusal(&policy, &mut store, &ask(1000));
    let begin = "Your quota has no room for this request: budget_usd_per_day: $0.004998 of $0.010000 left \
        ($0.005002 used, $0.000000 reserved), this request needs up to $0.00";
    assert!(status == 429 && message.starts_with(begin), "{status}: {message}");
    let end = "Ask for fewer output tokens (max_tokens), or try again in ";
    assert!(message.contains(end), "{message}");
    // So it does.
    assert_eq!(call(&policy, &mut store, &ask(600), [1, 624]).0, 200);
    // Now the policy's words are true.
    let (status, message) = refusal(&policy, &mut store, &ask(1000));
    assert_eq!((status, &*message), (200, ""));
}

#[test]
fn a_clamped_answer_is_not_the_answer_of_a_request_with_room() {
    let policy = policy(json!({"tokens_per_day": 70, "on_tight": "clamp", "min_output_tokens": 1}));
    let mut store = store();
    let question = json!({"model": "code", "messages": [{"role": "user", "content": "x"}]});
    let first = call(&policy, &mut store, &question, [1, 1]).1;
    assert!(limit(&first).is_some() || header(&first, "x-pointsman-cache") == Some("miss"), "{first:?}");
    let roomy = super::tests::policy(json!({"tokens_per_day": 7000, "on_tight": "clamp"}));
    store.now_ms += DAY_MS;
    let is_clamped = limit(&first).is_some();
    let second = call(&roomy, &mut store, &question, [1, 1]).1;
    assert_eq!(header(&second, "x-pointsman-cache"), Some(if is_clamped { "miss" } else { "hit" }));
    assert!(is_clamped, "{first:?}");
    let third = call(&roomy, &mut store, &question, [1, 1]).1;
    assert_eq!(header(&third, "x-pointsman-cache"), Some("hit"));
}
