//! Midnight, as it comes: in a time zone of whole minutes it is never far.

use crate::standard::ask;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, cluster};
use pointsman_integration::redis::Redis;
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Seconds from now to a midnight that leaves time for what comes before it, and the offset of the zone that has it then.
fn midnight() -> (u64, String) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let at = (now + 20).div_ceil(60);
    let minutes = (1440 - at % 1440) % 1440;
    let (sign, minutes) = if minutes > 720 { ('-', 1440 - minutes) } else { ('+', minutes) };
    (at * 60 - now, format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60))
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn at_midnight_a_day_begins_anew_for_requests_and_for_gauges_that_nobody_asks_for() {
    let redis = Redis::start();
    let started = std::time::Instant::now();
    let (wait, offset) = midnight();
    let of = |store: &str| {
        let policy = format!(
            "quota: {{store: {store}, time_zone: \"{offset}\"}}\nredis: {{timeout: 5s}}\n\
             providers: {{vllm: {{dialect: openai, local: true, data: regulated}}}}\n\
             models: {{m: {{provider: vllm, model: m, tier: local, context: 100000, max_output_tokens: 10, \
             price: {{input: 1, output: 1}}}}}}\n\
             tiers: {{t: {{models: [m], tokens_per_day: 1000, budget_usd_per_month: 5}}}}\n\
             tenants: {{acme: {{tier: t, keys: [<sk-acme>]}}}}\n"
        );
        Gateway::start_over(&policy, &[], |_| vec![("redis", cluster("redis", redis.bridge, ""))])
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
        assert!(seconds <= wait, "{refused:?}");
    }
    std::thread::sleep(Duration::from_secs(wait).saturating_sub(started.elapsed()) + Duration::from_millis(1500));
    // Without a request, which would settle and so set it.
    let usage = gateways[0].send(Call::new("GET", "/v1/usage").key("sk-acme")).json();
    assert_eq!(usage["windows"][0]["used"], 0, "{usage}");
    for gateway in &gateways {
        await_true("the gauge to be of the new day", || left(gateway) == Some(1000));
        assert_eq!(gateway.chat("sk-acme", &request(1)).status, 200);
    }
}
