//! What else depends on Envoy's clock, tested on an Envoy whose clock a test sets: keys expire and cached answers age.

use crate::standard::ask;
use pointsman_integration::clock::Clock;
use pointsman_integration::gateway::Gateway;
use pointsman_integration::response::Response;

#[test]
#[ignore = "needs a real Envoy: make test"]
fn keys_expire_and_answers_age_by_the_clock_and_not_by_one_that_jumps_back() {
    let clock = Clock::at("2027-07-01T12:00:00Z");
    let policy = "providers: {vllm: {dialect: openai, local: true, data: regulated}}\n\
         models: {m: {provider: vllm, model: m, level: local, context: 100000, max_output_tokens: 10}}\n\
         tasks: {t: {primary: m, cache: {ttl: 1h, requests: any}}}\n\
         tiers: {t: {models: [m]}}\n\
         tenants: {acme: {tier: t, keys: [<sk-acme>, {hash: <sk-guest>, expires: \"2027-07-01T13:00:00Z\"}]}}\n";
    let gateway = Gateway::start_by(policy, &clock);
    let asked = |key: &str| gateway.chat(key, &ask("t", "the same"));
    let cache = |answer: &Response| answer.header("x-pointsman-cache").map(str::to_owned);
    let age = |answer: &Response| answer.header("age").and_then(|age| age.parse::<u64>().ok());

    // The clock advanced while the gateway started.
    clock.set("2027-07-01T12:00:00Z");
    assert_eq!(cache(&asked("sk-guest")).as_deref(), Some("miss"));
    clock.set("2027-07-01T12:30:00Z");
    let hit = asked("sk-guest");
    assert_eq!(cache(&hit).as_deref(), Some("hit"));
    assert!(age(&hit).is_some_and(|age| (1740..=1860).contains(&age)), "{hit:?}");
    // The time before the answer was made.
    clock.set("2027-06-30T12:00:00Z");
    let before = asked("sk-guest");
    assert!(before.status == 200 && age(&before).is_none_or(|age| age == 0), "{before:?}");
    clock.set("2027-07-01T13:00:01Z");
    asked("sk-guest").assert_refusal(401, "invalid_api_key");
    assert_eq!(cache(&asked("sk-acme")).as_deref(), Some("miss"));
}
