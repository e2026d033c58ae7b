//! A limit is a limit: concurrent requests of any caller cannot exceed it, and a refusal says when there is room.

use crate::quota_gateways::{EACH, assert_exhausted, gateways, hanging, open, window, with_usage};
use crate::standard::ask;
use crate::unsteady::at_once;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::{await_some, await_true};
use pointsman_integration::response::{Open, Response};
use serde_json::json;

/// The tiers that refuse, with the window that does. A window full of requests in progress is full only for the moment,
/// budgets included.
const FULL: [(&str, &str); 7] = [
    ("requests", "requests_per_minute"),
    ("minute", "tokens_per_minute"),
    ("tokens", "tokens_per_day"),
    ("dollars", "budget_usd_per_day"),
    ("month", "budget_usd_per_month"),
    ("concurrent", "concurrent"),
    ("users", "tokens_per_day"),
];

#[test]
#[ignore = "needs a real Envoy: make test"]
fn of_500_concurrent_requests_exactly_ten_pass_a_limit_of_ten() {
    for gateway in gateways() {
        for round in 0..EACH - 1 {
            for (tier, name) in FULL {
                let key = format!("sk-{tier}{round}");
                let request = hanging("paid", 1);
                let answers = at_once(500, |_| open(&gateway, &key, &request));
                let (passed, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
                assert_eq!(passed.len(), 10, "{tier}, round {round}");
                let refused: Vec<_> = refused.into_iter().map(Open::finish).collect();
                assert_exhausted(&refused[0], "rate_limit_exceeded", name);
                if tier != "requests" {
                    assert_eq!(refused[0].header("retry-after"), Some("1"), "{:?}", refused[0]);
                    assert_eq!(refused[0].header("x-should-retry"), None, "{:?}", refused[0]);
                }
                assert!(refused.iter().all(|answer| answer.status == 429), "{tier}, round {round}");
                drop(passed);
                if tier != "users" {
                    await_true("everything to be settled", || {
                        window(&gateway, &key, name)["reserved"].as_f64() == Some(0.0)
                    });
                }
            }
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_place_among_the_concurrent_is_free_again_at_whatever_chunk_its_caller_leaves() {
    for gateway in gateways() {
        let key = "sk-single0";
        for chunks in 1..=12 {
            // The stream before has just ended.
            let mut stream = await_some("a place", || {
                Some(open(&gateway, key, &hanging("paid", chunks))).filter(|stream| stream.status == 200)
            });
            let mut seen = 0;
            while seen < chunks as usize {
                seen +=
                    String::from_utf8_lossy(&stream.next_piece().expect("goes on")).matches("\"content\":\"").count();
            }
            assert_exhausted(&gateway.chat(key, &ask("paid", "x")), "rate_limit_exceeded", "concurrent");
            drop(stream);
        }
        await_true("the place to be free", || window(&gateway, key, "concurrent")["reserved"] == 0);
        assert_eq!(gateway.chat(key, &ask("paid", "x")).status, 200);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_refusal_says_when_to_come_back_and_a_window_too_small_says_never() {
    for gateway in gateways() {
        let key = "sk-requests3";
        for _ in 0..10 {
            assert_eq!(gateway.chat(key, &ask("free", "x")).status, 200);
        }
        let refused = gateway.chat(key, &ask("free", "x"));
        assert_exhausted(&refused, "rate_limit_exceeded", "requests_per_minute");
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        let ms: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
        assert!(seconds == ms.div_ceil(1000) && (30..=60).contains(&seconds), "{refused:?}");
        assert_eq!(refused.header("x-ratelimit-limit-requests"), Some("10"));
        assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));
        assert!(refused.header("x-ratelimit-reset-requests").unwrap().ends_with('s'));
        let audit = gateway.audit(refused.trace_id());
        assert_eq!(
            (&audit["policy_decision"], &audit["quota_window"]),
            (&json!("deny"), &json!("requests_per_minute")),
            "{audit}"
        );
        assert!(gateway.simulator.of(refused.trace_id()).is_empty(), "nothing went out");

        let mut large = ask("paid", "x");
        large["n"] = json!(u64::MAX);
        for (key, code) in [("sk-tokens3", "rate_limit_exceeded"), ("sk-dollars3", "insufficient_quota")] {
            let never = gateway.chat(key, &large);
            never.assert_refusal(429, code);
            assert_eq!(
                (never.header("x-should-retry"), never.header("retry-after")),
                (Some("false"), None),
                "{never:?}"
            );
        }
        let before = window(&gateway, "sk-dollars3", "budget_usd_per_day");
        assert_eq!(before["used"].as_f64(), Some(0.0), "{before}");
        // For a day's window, the wait is longer than a client's patience.
        for _ in 0..3 {
            gateway.audit(gateway.chat("sk-dollars3", &with_usage("paid", 20_000, 15_000)).trace_id());
        }
        await_true("the charge", || {
            window(&gateway, "sk-dollars3", "budget_usd_per_day")["used"].as_f64() == Some(0.105)
        });
        let refused = gateway.chat("sk-dollars3", &with_usage("paid", 1, 1));
        assert_exhausted(&refused, "insufficient_quota", "budget_usd_per_day");
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!(
            seconds <= 86_400 && (seconds <= 60 || refused.header("x-should-retry") == Some("false")),
            "{refused:?}"
        );
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn single_requests_are_bounded() {
    for gateway in gateways() {
        let long = gateway.chat("sk-bounded0", &ask("free", &"many words ".repeat(200)));
        long.assert_refusal(400, "context_length_exceeded");
        // LangChain and LiteLLM recognize it by these words.
        assert!(long.text().contains("This model's maximum context length is "), "{}", long.text());
        let mut request = ask("free", "bounded-output");
        request["max_tokens"] = json!(5000);
        let answer = gateway.chat("sk-bounded0", &request);
        assert_eq!(answer.status, 200);
        assert_eq!(gateway.upstream(&answer).json()["max_tokens"], 7);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_user_who_is_named_has_limits_of_its_own_and_the_smallest_bound_counts() {
    for gateway in gateways() {
        let ask = |user: &str, model: &str, text: &str| {
            let mut request = ask(model, text);
            (request["user"], request["max_tokens"]) = (user.into(), json!(5000));
            gateway.chat("sk-named", &request)
        };
        let most = |answer: &Response| gateway.upstream(answer).json()["max_tokens"].clone();
        // The default user's limit, the named user's, and the model's where that is lower.
        assert_eq!(most(&ask("bob", "paid", "x")), 300);
        assert_eq!(most(&ask("ann", "paid", "x")), 700);
        assert_eq!(most(&ask("ann", "free", "x")), 50);
        let long = "many words ".repeat(100);
        ask("bob", "paid", &long).assert_refusal(400, "context_length_exceeded");
        assert_eq!(ask("ann", "paid", &long).status, 200);
        ask("ann", "free", &long).assert_refusal(400, "context_length_exceeded");
        // A task continues without the model whose limit is lower.
        let answer = ask("ann", "both", &long);
        assert_eq!((answer.status, answer.header("x-pointsman-model")), (200, Some("paid")));
        let audit = gateway.audit(answer.trace_id());
        assert_eq!(audit["left_out"], json!([{"model": "free", "reason": "quota"}]), "{audit}");
        // Two requests per minute for any user, five for the named one.
        assert_eq!(ask("bob", "paid", "x").status, 200);
        ask("bob", "paid", "x").assert_refusal(429, "rate_limit_exceeded");
        assert_eq!(ask("ann", "paid", "x").status, 200);
        ask("ann", "paid", "x").assert_refusal(429, "rate_limit_exceeded");
        assert_eq!(ask("eve", "paid", "x").status, 200);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_model_whose_own_window_is_full_is_left_out_and_the_next_one_serves() {
    for gateway in gateways() {
        let key = "sk-models0";
        // The expensive model may use one token per day, so it never serves. The paid one serves until its tokens are
        // used.
        let first = gateway.chat(key, &with_usage("chat", 60_000, 40_000));
        assert_eq!(first.header("x-pointsman-model"), Some("paid"));
        let audit = gateway.audit(first.trace_id());
        assert_eq!(audit["left_out"], json!([{"model": "dear", "reason": "quota"}]), "{audit}");
        await_true("the charge", || {
            let usage = gateway.send(Call::new("GET", "/v1/usage").key(key)).json();
            let windows = usage["windows"].as_array().expect("a list").clone();
            windows.iter().any(|window| window["model"] == "paid" && window["used"] == 100_000)
        });
        let refused = gateway.chat(key, &with_usage("chat", 1, 1));
        refused.assert_refusal(429, "rate_limit_exceeded");
        assert!(refused.text().contains("for the model 'paid'"), "{}", refused.text());
        assert_eq!(gateway.chat(key, &with_usage("free", 1, 1)).status, 200);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn users_are_limited_apart_and_a_tenant_sees_its_own_windows_only() {
    for gateway in gateways() {
        let key = "sk-users3";
        let of = |user: &str| {
            let mut request = with_usage("paid", 60_000, 45_000);
            request["user"] = user.into();
            request
        };
        gateway.audit(gateway.chat(key, &of("ann")).trace_id());
        await_true("the charge", || gateway.chat(key, &of("ann")).status == 429);
        assert_eq!(gateway.chat(key, &of("bob")).status, 200);
        let usage = gateway.send(Call::new("GET", "/v1/usage").key(key)).json();
        assert_eq!((&usage["object"], &usage["tenant"]), (&json!("usage"), &json!("users3")), "{usage}");
        let names: Vec<_> = usage["windows"].as_array().unwrap().iter().map(|w| w["scope"].clone()).collect();
        assert_eq!(names, ["user"], "{usage}");
        assert!(usage["windows"][0]["resets_at"].as_str().unwrap().ends_with('Z'));
        gateway.send(Call::new("GET", "/v1/usage")).assert_refusal(401, "invalid_api_key");
        gateway.send(Call::new("POST", "/v1/usage").key(key)).assert_refusal(405, "method_not_allowed");
    }
}
