//! Midnight passes while gateways run.

use crate::standard::ask;
use pointsman_integration::call::Call;
use pointsman_integration::clock::Clock;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, Setup, cluster};
use pointsman_integration::redis::Redis;
use serde_json::json;

#[test]
#[ignore = "needs a real Envoy: make test"]
fn at_midnight_a_day_begins_anew_for_requests_and_for_gauges_that_nobody_asks_for() {
    // In the policy's time zone it is two hours later.
    let clock = Clock::at("2027-07-01T21:50:00Z");
    let redis = Redis::start_by(&clock);
    let of = |store: &str| {
        let policy = format!(
            "quota: {{store: {store}, time_zone: \"+02:00\"}}\nredis: {{timeout: 5s}}\n\
             providers: {{vllm: {{dialect: openai, local: true, data: regulated}}}}\n\
             models: {{m: {{provider: vllm, model: m, level: local, context: 100000, max_output_tokens: 10, \
             price: {{input: 1, output: 1}}}}}}\n\
             tiers: {{t: {{models: [m], limits: {{tokens_per_day: 1000, budget_usd_per_month: 5}}}}}}\n\
             tenants: {{acme: {{tier: t, keys: [<sk-acme>]}}}}\n"
        );
        let setup = Setup { clock: Some(&clock), ..Setup::default() };
        Gateway::start_as(&policy, &setup, |_| vec![("redis", cluster("redis", redis.bridge, ""))])
    };
    let gateways = [of("local"), of("redis")];
    let request = |input: u64| {
        let behavior = json!({"usage": {"prompt_tokens": input, "completion_tokens": 1}, "content": "x"});
        ask("m", &format!("[[sim:{behavior}]]"))
    };
    let left = |gateway: &Gateway| {
        let lines = gateway.metrics();
        let line = lines.iter().find(|l| l.starts_with("llm_quota_remaining{") && l.contains("tokens_per_day"));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
    };
    for gateway in &gateways {
        gateway.audit(gateway.chat("sk-acme", &request(989)).trace_id());
        await_true("the gauge", || left(gateway) == Some(10));
        let refused = gateway.chat("sk-acme", &request(1));
        refused.assert_refusal(429, "rate_limit_exceeded");
        let seconds: u64 = refused.header("retry-after").and_then(|s| s.parse().ok()).expect("says when");
        assert!((1..=600).contains(&seconds), "{refused:?}");
    }
    clock.set("2027-07-01T21:59:57Z");
    // No request settles here, which would also set the gauge.
    let used = || gateways[0].send(Call::new("GET", "/v1/usage").key("sk-acme")).json()["windows"][0]["used"].clone();
    await_true("the new day", || used() == 0);
    for gateway in &gateways {
        await_true("the gauge to be of the new day", || left(gateway) == Some(1000));
        assert_eq!(gateway.chat("sk-acme", &request(1)).status, 200);
    }
}
