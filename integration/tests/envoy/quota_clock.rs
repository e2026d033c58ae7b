//! The edges of windows on a real Envoy whose clock a test sets: a month's end, days of 23 and 25 hours, and a clock
//! that jumps back. Counts in Redis depend on Redis's clock.

use crate::quota_gateways::{hanging, open, window, with_usage};
use pointsman_integration::clock::Clock;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::Gateway;
use serde_json::{Value, json};

const DAY: &str = "tokens_per_day";
const MONTH: &str = "budget_usd_per_month";

fn gateway(zone: &str, clock: &Clock) -> Gateway {
    let policy = format!(
        "quota: {{time_zone: \"{zone}\"}}\n\
         providers: {{vllm: {{dialect: openai, local: true, data: regulated}}}}\n\
         models: {{m: {{provider: vllm, model: m, level: local, context: 100000, max_output_tokens: 10, \
         price: {{input: 1000, output: 1000}}}}}}\n\
         tiers: {{t: {{models: [m], limits: {{tokens_per_day: 1000, budget_usd_per_month: 5, requests_per_minute: \
         6}}}}}}\n\
         tenants: {{acme: {{tier: t, keys: [<sk-acme>]}}}}\n"
    );
    Gateway::start_by(&policy, clock)
}

/// Checks the tokens used today, the dollars used this month, and when each window ends.
#[track_caller]
fn assert_windows(gateway: &Gateway, day: (u64, &str), month: (f64, &str)) {
    await_true("the charge", || window(gateway, "sk-acme", DAY)["used"].as_u64() == Some(day.0));
    let of = |name| window(gateway, "sk-acme", name);
    let (tokens, dollars): (Value, Value) = (of(DAY), of(MONTH));
    assert_eq!((&tokens["resets_at"], tokens["reserved"].as_u64()), (&json!(day.1), Some(0)), "{tokens}");
    assert_eq!(dollars["used"].as_f64(), Some(month.0), "{dollars}");
    assert_eq!(dollars["resets_at"], month.1, "{dollars}");
}

/// Uses this many tokens.
#[track_caller]
fn uses(gateway: &Gateway, tokens: u64) {
    let answer = gateway.chat("sk-acme", &with_usage("m", tokens - 1, 1));
    assert_eq!(answer.status, 200, "{answer:?}");
    gateway.audit(answer.trace_id());
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_request_that_spans_the_end_of_a_month_is_charged_to_the_month_in_which_it_ends() {
    let clock = Clock::at("2027-01-31T23:58:00Z");
    let gateway = gateway("UTC", &clock);
    uses(&gateway, 400);
    assert_windows(&gateway, (400, "2027-02-01T00:00:00Z"), (0.4, "2027-02-01T00:00:00Z"));

    let mut stream = open(&gateway, "sk-acme", &hanging("m", 1));
    assert_eq!(stream.status, 200);
    assert!(stream.next_piece().is_some());
    clock.set("2027-02-01T00:00:05Z");
    // The stream has not ended. Its reservation counts in the new windows, and what was used in the old ones does not.
    for name in [DAY, MONTH] {
        let window = window(&gateway, "sk-acme", name);
        assert_eq!(window["used"].as_f64(), Some(0.0), "{window}");
        assert!(window["reserved"].as_f64() > Some(0.0), "{window}");
    }
    let trace_id = stream.trace_id();
    drop(stream);
    let audit = gateway.audit(&trace_id);
    let spent = audit["input_tokens"].as_u64().unwrap() + audit["output_tokens"].as_u64().unwrap();
    assert!(spent > 0 && audit["usage_estimated"] == true, "{audit}");
    let dollars = spent as f64 / 1000.0;
    assert_windows(&gateway, (spent, "2027-02-02T00:00:00Z"), (dollars, "2027-03-01T00:00:00Z"));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn days_have_23_and_25_hours_where_clocks_change() {
    // In Berlin, 2027-03-28 02:00 is 03:00, and on 2027-10-31 the hour from 02:00 occurs twice.
    let clock = Clock::at("2027-03-28T00:30:00Z");
    let gateway = gateway("Europe/Berlin", &clock);
    uses(&gateway, 100);
    let march = (0.1, "2027-03-31T22:00:00Z");
    assert_windows(&gateway, (100, "2027-03-28T22:00:00Z"), march);
    clock.set("2027-03-28T21:59:40Z");
    assert_windows(&gateway, (100, "2027-03-28T22:00:00Z"), march);
    clock.set("2027-03-28T22:00:01Z");
    assert_windows(&gateway, (0, "2027-03-29T22:00:00Z"), march);

    clock.set("2027-10-31T00:30:00Z");
    uses(&gateway, 200);
    let october = (0.2, "2027-10-31T23:00:00Z");
    assert_windows(&gateway, (200, "2027-10-31T23:00:00Z"), october);
    for same_day in ["2027-10-31T01:30:00Z", "2027-10-31T22:30:00Z", "2027-10-31T22:59:40Z"] {
        clock.set(same_day);
        assert_windows(&gateway, (200, "2027-10-31T23:00:00Z"), october);
    }
    clock.set("2027-10-31T23:00:01Z");
    assert_windows(&gateway, (0, "2027-11-01T23:00:00Z"), (0.0, "2027-11-30T23:00:00Z"));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_clock_that_jumps_back_gives_nothing_back() {
    let clock = Clock::at("2027-07-01T12:00:00Z");
    let gateway = gateway("UTC", &clock);
    uses(&gateway, 100);
    assert_windows(&gateway, (100, "2027-07-02T00:00:00Z"), (0.1, "2027-08-01T00:00:00Z"));

    // Back to the day before, in the month before. Until the clock has caught up, no request drains from the minute's
    // bucket.
    clock.set("2027-06-30T11:00:00Z");
    let used = |name| window(&gateway, "sk-acme", name)["used"].as_f64();
    assert_eq!((used(DAY), used(MONTH)), (Some(100.0), Some(0.1)));
    (0..5).for_each(|_| uses(&gateway, 100));
    let refused = gateway.chat("sk-acme", &with_usage("m", 1, 1));
    refused.assert_refusal(429, "rate_limit_exceeded");
    await_true("the charge", || (used(DAY), used(MONTH)) == (Some(600.0), Some(0.6)));

    // The clock is a little past where it was: what was used since then is used.
    clock.set("2027-07-01T12:02:00Z");
    uses(&gateway, 100);
    assert_windows(&gateway, (700, "2027-07-02T00:00:00Z"), (0.7, "2027-08-01T00:00:00Z"));
    clock.set("2027-07-02T00:00:01Z");
    assert_windows(&gateway, (0, "2027-07-03T00:00:00Z"), (0.7, "2027-08-01T00:00:00Z"));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_request_during_which_the_clock_jumps_back_is_charged_and_took_no_time() {
    let clock = Clock::at("2027-07-01T12:00:00Z");
    let gateway = gateway("UTC", &clock);
    let mut stream = open(&gateway, "sk-acme", &hanging("m", 1));
    assert!(stream.status == 200 && stream.next_piece().is_some());
    clock.set("2027-06-30T11:00:00Z");
    let trace_id = stream.trace_id();
    drop(stream);
    let audit = gateway.audit(&trace_id);
    assert_eq!((&audit["latency_ms"], &audit["start_time"].as_str().unwrap()[..17]), (&json!(0), "2027-07-01T12:00:"));
    let spent = audit["input_tokens"].as_u64().unwrap() + audit["output_tokens"].as_u64().unwrap();
    await_true("the charge", || window(&gateway, "sk-acme", DAY)["used"] == spent);
    assert_eq!(window(&gateway, "sk-acme", DAY)["reserved"], 0);
}
