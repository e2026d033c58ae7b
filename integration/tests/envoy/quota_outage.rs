//! Redis goes away and comes back, and Envoys end: what was used is charged once, and no limit is exceeded.

use crate::quota_redis::{open, policy, start, start_with, tokens, with_usage};
use crate::unsteady::at_once;
use pointsman_integration::clock::Clock;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, Setup, cluster};
use pointsman_integration::redis::Redis;
use pointsman_integration::response::Open;
use std::collections::BTreeMap;

/// Sends `count` requests one after the other. Returns how many had each status.
fn load(gateway: &Gateway, key: &str, count: usize) -> BTreeMap<u16, u64> {
    let mut all = BTreeMap::new();
    // The reservations of requests that are not settled yet are a negligible part of the day.
    let mut request = with_usage(100);
    request["max_tokens"] = 100.into();
    for _ in 0..count {
        *all.entry(gateway.chat(key, &request).status).or_insert(0) += 1;
    }
    all
}

/// Checks that nothing is charged beyond `used`. A duplicate charge would arrive before the later charges do.
fn assert_nothing_comes_twice(gateway: &Gateway, key: &str, used: u64) {
    let after = load(gateway, key, 10);
    assert_eq!(after, BTreeMap::from([(200, 10)]));
    let wanted = used + 1000;
    await_true(&format!("{wanted} tokens to be charged"), || tokens(gateway, key) == Some((wanted, 0)));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn redis_is_killed_and_restarted_under_load_and_everything_is_charged_once() {
    for mode in ["deny", "allow", "local"] {
        let mut redis = Redis::start();
        let gateway = start(&redis, mode, "200ms");
        let key = "sk-t0";
        let before = load(&gateway, key, 20);
        assert_eq!(before.keys().collect::<Vec<_>>(), [&200], "{mode}: {before:?}");
        let mut served = before[&200];
        await_true("the charges", || tokens(&gateway, key) == Some((served * 100, 0)));
        // A settlement whose reply came too late is sent again, and the new Redis could not know that it was already
        // applied.
        let missed = || gateway.stat("cluster.redis.upstream_rq_timeout");
        await_true("a moment without one", || {
            let before = missed();
            let more = load(&gateway, key, 10);
            served += more[&200];
            await_true("the charges", || tokens(&gateway, key) == Some((served * 100, 0)));
            missed() == before
        });
        redis.kill();
        let during = load(&gateway, key, 20);
        match mode {
            "deny" => assert_eq!(during.keys().collect::<Vec<_>>(), [&503], "{mode}: {during:?}"),
            _ => assert_eq!(during.keys().collect::<Vec<_>>(), [&200], "{mode}: {during:?}"),
        }
        let served = during.get(&200).copied().unwrap_or(0);
        assert!(mode == "deny" || served > 5, "{during:?}");
        redis.restart();
        // Redis has lost its data, as it persists nothing here. What was served in the meantime is charged to it once.
        let charged = || tokens(&gateway, key).map(|(used, _)| used);
        await_true(&format!("{mode}: {served} requests to be charged"), || charged() == Some(served * 100));
        let after = load(&gateway, key, 20);
        assert_eq!(after.keys().collect::<Vec<_>>(), [&200], "{mode}: {after:?}");
        let wanted = (served + after[&200]) * 100;
        await_true(&format!("{mode}: everything to be settled"), || tokens(&gateway, key) == Some((wanted, 0)));
        assert_nothing_comes_twice(&gateway, key, wanted);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_redis_that_hangs_and_goes_on_charges_nothing_twice() {
    let redis = Redis::start();
    let gateway = start(&redis, "allow", "200ms");
    let key = "sk-t1";
    gateway.audit(gateway.chat(key, &with_usage(100)).trace_id());
    await_true("the charge", || tokens(&gateway, key) == Some((100, 0)));
    redis.freeze();
    // Redis will carry out these commands when it continues, although no caller waits for them any longer.
    let answers = at_once(8, |_| gateway.chat(key, &with_usage(100)));
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    // Each of the eight timed out, and their charges were tried more than once by each of the two workers.
    await_true("charges to be tried again", || gateway.stat("cluster.redis.upstream_rq_timeout") >= 8 + 4);
    redis.thaw();
    await_true("all charges", || tokens(&gateway, key) == Some((900, 0)));
    assert_nothing_comes_twice(&gateway, key, 900);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn while_redis_is_away_local_counters_hold_the_same_limits() {
    let mut redis = Redis::start();
    let gateway = start(&redis, "local", "200ms");
    redis.kill();
    let answers = at_once(100, |_| open(&gateway, "sk-t2"));
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(passed, 10);
    assert!(answers.iter().all(|answer| [200, 429].contains(&answer.status)));
}

/// Returns the input and output tokens for which a request was charged.
fn charged(gateway: &Gateway, trace_id: &str) -> u64 {
    let audit = gateway.audit(trace_id);
    audit["input_tokens"].as_u64().expect("a number") + audit["output_tokens"].as_u64().expect("a number")
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn requests_under_way_when_redis_dies_are_charged_once_when_it_is_back() {
    for mode in ["deny", "allow", "local"] {
        let mut redis = Redis::start_durable();
        let gateway = start(&redis, mode, "200ms");
        let key = "sk-t0";
        assert_eq!(gateway.chat(key, &with_usage(100)).status, 200);
        await_true("the charge", || tokens(&gateway, key) == Some((100, 0)));
        let mut streams: Vec<_> = (0..6).map(|_| open(&gateway, key)).collect();
        assert!(streams.iter_mut().all(|stream| stream.status == 200 && stream.next_piece().is_some()), "{mode}");
        let reserved = tokens(&gateway, key).expect("Redis is there").1;
        assert!(reserved >= 60_000, "{mode}: {reserved}");
        redis.kill();
        // Some end while Redis is away, some after it is back.
        let mut wanted = 100;
        let end = |stream: Open| {
            let trace_id = stream.trace_id();
            drop(stream);
            charged(&gateway, &trace_id)
        };
        wanted += streams.drain(..3).map(end).sum::<u64>();
        let served = gateway.chat(key, &with_usage(100)).status == 200;
        assert_eq!(served, mode != "deny", "{mode}");
        wanted += if served { 100 } else { 0 };
        let failed = gateway.stat("cluster.redis.upstream_rq_5xx");
        await_true("charges to be tried", || gateway.stat("cluster.redis.upstream_rq_5xx") >= failed + 2);
        redis.restart();
        await_true(&format!("{mode}: what ended meanwhile to be charged"), || {
            tokens(&gateway, key).is_some_and(|(used, held)| used == wanted && held == reserved / 2)
        });
        wanted += streams.drain(..).map(end).sum::<u64>();
        await_true(&format!("{mode}: everything to be charged"), || tokens(&gateway, key) == Some((wanted, 0)));
        assert_nothing_comes_twice(&gateway, key, wanted);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_envoy_that_is_drained_delivers_what_waits_for_redis() {
    let redis = Redis::start();
    let (mut leaving, other) =
        (start_with(&redis, "allow", "200ms", &["--drain", "1h"]), start(&redis, "allow", "200ms"));
    let key = "sk-t0";
    let mut stream = open(&leaving, key);
    assert!(stream.status == 200 && stream.next_piece().is_some());
    leaving.process.signal("TERM");
    let draining = "draining: 1 request in flight";
    leaving.process.await_line(draining, |line| line.starts_with(draining).then_some(()));
    redis.freeze();
    let trace_id = stream.trace_id();
    drop(stream);
    let wanted = charged(&leaving, &trace_id);
    await_true("it to have been tried in vain", || leaving.stat("cluster.redis.upstream_rq_timeout") >= 2);
    redis.thaw();
    await_true("it to end", || !leaving.process.is_running());
    assert_eq!(leaving.process.end(), Some(0));
    assert_eq!(tokens(&other, key), Some((wanted, 0)), "what it used has been charged by then");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_envoy_that_is_killed_leaves_its_reservations_until_they_expire() {
    // Reservations expire by Redis's clock.
    let clock = Clock::at("2027-07-01T12:00:00Z");
    let redis = Redis::start_by(&clock);
    let document = format!("{}resilience: {{request_timeout: 1s}}\n", policy("deny", "5s"));
    let setup = Setup { clock: Some(&clock), ..Setup::default() };
    let start = || Gateway::start_as(&document, &setup, |_| vec![("redis", cluster("redis", redis.bridge, ""))]);
    let (killed, other) = (start(), start());
    let key = "sk-short0";
    clock.set("2027-07-01T12:00:00Z");
    let stream = open(&killed, key);
    assert_eq!(stream.status, 200);
    let [envoy] = killed.process.children()[..] else { panic!("one Envoy") };
    let kill = std::process::Command::new("kill").args(["-s", "KILL", &envoy.to_string()]).status();
    assert!(kill.is_ok_and(|status| status.success()));
    await_true("it to be gone", || !killed.process.is_running());
    drop((stream, killed));
    // Its reservation remains for everyone, so no limit is exceeded.
    let refused = || {
        other.chat(key, &with_usage(10)).assert_refusal(429, "rate_limit_exceeded");
    };
    refused();
    // It is free at the earliest one minute after the request's timeout, and at the latest one minute after that.
    clock.set("2027-07-01T12:00:55Z");
    refused();
    clock.set("2027-07-01T12:02:05Z");
    assert_eq!(other.chat(key, &with_usage(10)).status, 200);
    await_true("nothing but the last one to be charged", || tokens(&other, key) == Some((10, 0)));
}
