//! When a quota is used up, or nearly: another model or the policy's own message answers, and callers are alerted.

use crate::quota_gateways::{await_used, gateways, window, with_usage};
use crate::standard::ask;
use pointsman_integration::deadline::await_true;
use serde_json::json;

#[test]
#[ignore = "needs a real Envoy: make test"]
fn when_a_budget_is_used_up_a_cheaper_model_serves_and_says_so() {
    for gateway in gateways() {
        let key = "sk-degrading0";
        // Two requests of 10,000 tokens, a cent each, are all that fits.
        let first = gateway.chat(key, &with_usage("paid", 5000, 4000));
        assert_eq!((first.status, first.header("x-pointsman-degraded")), (200, None));
        gateway.audit(first.trace_id());
        await_true("the degraded model", || {
            let answer = gateway.chat(key, &with_usage("paid", 5000, 4000));
            assert_eq!(answer.status, 200, "{}", answer.text());
            let audit = gateway.audit(answer.trace_id());
            let degraded = answer.header("x-pointsman-degraded") == Some("budget_usd_per_day");
            if degraded {
                assert_eq!(answer.header("x-pointsman-model"), Some("free"));
                assert_eq!(
                    json!([audit["policy_decision"], audit["quota_window"], audit["route_reason"], audit["model"]]),
                    json!(["degrade", "budget_usd_per_day", "degraded", "free"])
                );
                assert_eq!(audit["left_out"], json!([{"model": "paid", "reason": "quota"}]));
                assert_eq!(gateway.upstream(&answer).json()["model"], "free-1");
            }
            degraded
        });
        assert!(window(&gateway, key, "budget_usd_per_day")["used"].as_f64() <= Some(0.02));
        let rejected: Vec<_> = gateway.metrics().into_iter().filter(|line| line.contains("degrading0")).collect();
        assert!(rejected.iter().any(|line| line.starts_with("llm_quota_degraded_total{")), "{rejected:?}");
        assert!(!rejected.iter().any(|line| line.starts_with("llm_quota_rejections_total{")), "{rejected:?}");
        let left = rejected.iter().find(|line| line.starts_with("llm_quota_remaining{")).expect("a gauge");
        assert!(left.contains("window=\"budget_usd_per_day\""), "{left}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn before_the_wall_a_share_moves_requests_to_the_cheaper_model() {
    for gateway in gateways() {
        let key = "sk-early0";
        let first = gateway.chat(key, &with_usage("paid", 15_000, 5000));
        assert_eq!(first.header("x-pointsman-model"), Some("paid"));
        gateway.audit(first.trace_id());
        await_used(&gateway, key, "tokens_per_day", 20_000);
        let second = gateway.chat(key, &with_usage("paid", 5, 5));
        assert_eq!(second.header("x-pointsman-model"), Some("free"), "{second:?}");
        assert_eq!(second.header("x-pointsman-degraded"), Some("tokens_per_day"));
        gateway.audit(second.trace_id());
        await_used(&gateway, key, "tokens_per_day", 20_000);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_policys_own_answer_is_marked_and_costs_nothing() {
    for gateway in gateways() {
        let key = "sk-polite0";
        let mut request = ask("paid", "Good day");
        // A request that is only too large is told so: nothing is used up.
        let large = gateway.chat(key, &request);
        large.assert_refusal(429, "rate_limit_exceeded");
        assert!(large.text().contains("100 of 100 left (0 used, 0 reserved)"), "{}", large.text());
        let mut last = with_usage("paid", 60, 40);
        last["max_tokens"] = json!(1);
        gateway.audit(gateway.chat(key, &last).trace_id());
        await_used(&gateway, key, "tokens_per_day", 100);
        let whole = gateway.chat(key, &request);
        assert_eq!((whole.status, whole.content()), (200, "Come back tomorrow.".to_owned()));
        assert_eq!(whole.header("x-pointsman-template"), Some("tokens_per_day"));
        let audit = gateway.audit(whole.trace_id());
        assert_eq!(json!([audit["policy_decision"], audit["model"]]), json!(["template", null]), "{audit}");
        request["stream"] = true.into();
        let stream = gateway.chat(key, &request);
        assert_eq!(stream.header("content-type"), Some("text/event-stream"));
        assert_eq!(stream.streamed_text(), "Come back tomorrow.");
        assert_eq!(stream.events().last().map(String::as_str), Some("[DONE]"));
        assert!(gateway.simulator.of(stream.trace_id()).is_empty(), "nothing went out");
        await_used(&gateway, key, "tokens_per_day", 100);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn shadow_refuses_nothing_and_reports_what_it_would_have_refused() {
    for gateway in gateways() {
        let key = "sk-shadow0";
        for round in 0..3 {
            let answer = gateway.chat(key, &with_usage("paid", 50, 50));
            assert_eq!(answer.status, 200);
            let audit = gateway.audit(answer.trace_id());
            assert_eq!(audit["policy_decision"], "shadow_deny", "round {round}: {audit}");
        }
        await_used(&gateway, key, "tokens_per_day", 300);
        let lines = gateway.metrics();
        let shadowed = |line: &&String| {
            line.starts_with("llm_quota_shadow_rejections_total{") && line.contains("tenant_id=\"shadow0\"")
        };
        assert!(lines.iter().any(|line| shadowed(&line)), "{lines:#?}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_share_of_a_budget_is_reported_once_in_log_metric_and_header() {
    for gateway in gateways() {
        let key = "sk-degrading1";
        let ask = |input| {
            let answer = gateway.chat(key, &with_usage("paid", input, 100));
            gateway.audit(answer.trace_id());
            await_true("everything to be settled", || {
                window(&gateway, key, "budget_usd_per_day")["reserved"].as_f64() == Some(0.0)
            });
            (answer.status, answer.header("x-pointsman-quota-alert").map(str::to_owned))
        };
        // The first request crosses a tenth. The second one carries the alert.
        let told = Some("budget_usd_per_day=10%".to_owned());
        let all: Vec<_> = [2000, 1000, 1000, 1, 1].into_iter().map(ask).collect();
        assert_eq!(all, [(200, None), (200, told), (200, None), (200, None), (200, None)]);
        // If one request uses up everything, the request that is refused carries the alert, once.
        let key = "sk-wall0";
        let ask = || {
            let answer = gateway.chat(key, &with_usage("paid", 100_000, 4000));
            gateway.audit(answer.trace_id());
            await_true("everything to be settled", || {
                window(&gateway, key, "budget_usd_per_day")["reserved"].as_f64() == Some(0.0)
            });
            (answer.status, answer.header("x-pointsman-quota-alert").map(str::to_owned))
        };
        let told = Some("budget_usd_per_day=50%".to_owned());
        assert_eq!([ask(), ask(), ask()], [(200, None), (429, told), (429, None)]);
        let lines = gateway.process.lines();
        let said = lines.iter().filter(|line| line.contains("tenant degrading1 has used 10.0% of budget_usd_per_day"));
        assert_eq!(said.count(), 1);
        let metric = gateway
            .metrics()
            .into_iter()
            .find(|line| line.starts_with("llm_quota_alerts_total{") && line.contains("tenant_id=\"degrading1\""));
        assert!(
            metric.as_ref().is_some_and(|line| line.contains("share=\"100\"") && line.ends_with(" 1")),
            "{metric:?}"
        );
    }
}
