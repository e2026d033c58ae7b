//! The cache forgets answers: after their time to live, when an operator raises a revision, and when memory is full.

use crate::cache::{POLICY, Store, assert_cache, certain, in_redis, start};
use crate::metrics::value;
use crate::standard::ask;
use pointsman_integration::clock::Clock;
use pointsman_integration::deadline::await_true;
use pointsman_integration::environment::load;
use pointsman_integration::gateway::{Gateway, Setup, cluster};
use pointsman_integration::raw::Connection;
use pointsman_integration::redis::Redis;
use serde_json::json;

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_answer_is_good_for_its_time_and_no_longer() {
    let clock = Clock::at("2027-07-01T12:00:00Z");
    let setup = Setup { clock: Some(&clock), ..Setup::default() };
    let redis = Redis::start_by(&clock);
    let local = Gateway::start_as(POLICY, &setup, |_| Vec::new());
    let shared = Gateway::start_as(&in_redis(POLICY), &setup, |_| vec![("redis", cluster("redis", redis.bridge, ""))]);
    for gateway in [local, shared] {
        clock.set("2027-07-01T12:00:00Z");
        // Its time to live is an hour.
        let request = certain("hosted", "for its time");
        assert_cache(&gateway.chat("sk-acme", &request), "miss");
        clock.set("2027-07-01T12:55:00Z");
        assert_cache(&gateway.chat("sk-acme", &request), "hit");
        clock.set("2027-07-01T13:00:01Z");
        assert_cache(&gateway.chat("sk-acme", &request), "miss");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_raised_revision_forgets_hot() {
    for store in [Store::Local, Store::Redis] {
        let gateway = start(POLICY, store);
        let mut request = certain("hosted", "to be forgotten");
        request["metadata"] = json!({"prompt_id": "invoice", "prompt_version": "3"});
        // A request whose version has another form, which a raised revision would not match, is not cached at all.
        let mut odd = request.clone();
        odd["metadata"]["prompt_version"] = json!(3.0);
        assert_cache(&gateway.chat("sk-acme", &odd), "bypass");
        let other = certain("any", "another task");
        let mut policy = POLICY.to_owned();
        for (step, (from, to, forgets_other)) in [
            ("acme: {tier: pro,", "acme: {tier: pro, cache_revision: 1,", true),
            ("hosted: {primary: big, cache: {ttl: 1h", "hosted: {primary: big, cache: {revision: 7, ttl: 1h", false),
            (
                "cache: {max_entry_bytes: 16384",
                "cache: {prompt_revisions: {invoice@3: 2}, max_entry_bytes: 16384",
                false,
            ),
            ("cache: {prompt", "cache: {revision: 1, prompt", true),
        ]
        .into_iter()
        .enumerate()
        {
            for request in [&request, &other] {
                // The gateway does not wait until Redis has stored an answer, so the next request may come first.
                await_true("the answer to be kept", || {
                    gateway.chat("sk-acme", request).header("x-pointsman-cache") == Some("hit")
                });
            }
            let mark = format!("step-{step}");
            let next = policy
                .replacen(from, to, 1)
                .replace("# permission scope", &format!("{mark}: {{primary: big}}\n  # permission scope"));
            assert_ne!(next, policy);
            policy = next;
            match store {
                Store::Local => gateway.replace_policy(&policy),
                Store::Redis => gateway.replace_policy(&in_redis(&policy)),
            }
            // Each worker applies the new policy on its own, within moments. Only the new policy knows this task, which
            // shows who has it. Each connection goes to one of the two workers.
            await_true("both workers to have the new policy", || {
                (0..20).all(|_| gateway.chat("sk-acme", &ask(&mark, "are you there")).status == 200)
            });
            assert_cache(&gateway.chat("sk-acme", &request), "miss");
            assert_cache(&gateway.chat("sk-acme", &other), if forgets_other { "miss" } else { "hit" });
        }
    }
}

/// The prompt and its version belong to a cached answer even where the model does not receive them.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn one_version_of_a_prompt_is_forgotten_alone() {
    for store in [Store::Local, Store::Redis] {
        let policy = POLICY.replacen(
            "context: 1000000,",
            "context: 1000000, unsupported_params: [metadata], drop_params: true,",
            1,
        );
        assert_ne!(policy, POLICY);
        let gateway = start(&policy, store);
        let request = |version: &str, schema: &str| {
            let mut request = certain("hosted", "one version alone");
            request["metadata"] = json!({"prompt_id": "invoice", "prompt_version": version, "schema_version": schema});
            request
        };
        let versions = [("3", "a"), ("4", "a"), ("3", "b")];
        for (version, schema) in versions {
            let answer = gateway.chat("sk-acme", &request(version, schema));
            assert_cache(&answer, "miss");
            assert!(gateway.upstream(&answer).json().get("metadata").is_none());
            let audit = gateway.audit(answer.trace_id());
            let named = ["prompt_id", "prompt_version", "schema_version"].map(|name| audit[name].as_str().unwrap());
            assert_eq!(named, ["invoice", version, schema]);
        }
        for (version, schema) in versions {
            assert_cache(&gateway.chat("sk-acme", &request(version, schema)), "hit");
        }
        let next = policy.replacen("cache: {", "cache: {prompt_revisions: {invoice@3: 1}, ", 1);
        let next = next.replacen("# permission scope", "applied: {primary: big}\n  # permission scope", 1);
        gateway.replace_policy(&if store == Store::Redis { in_redis(&next) } else { next });
        await_true("both workers to have the new policy", || {
            (0..20).all(|_| gateway.chat("sk-acme", &ask("applied", "are you there")).status == 200)
        });
        for ((version, schema), expected) in versions.into_iter().zip(["miss", "hit", "miss"]) {
            assert_cache(&gateway.chat("sk-acme", &request(version, schema)), expected);
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn distinct_answers_stay_below_the_memory_limit() {
    // These fill the table several times.
    let distinct = load(4_000, 200_000);
    let limit = 1 << 20;
    let policy = POLICY.replacen("memory_bytes: 16777216", "memory_bytes: 1048576", 1);
    assert_ne!(policy, POLICY);
    let gateway = start(&policy, Store::Local);
    gateway.simulator.add_rule(&json!({"when": {"body_contains": "fill"}, "respond": {"content": "x".repeat(2000)}}));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let gateway = &gateway;
            scope.spawn(move || {
                let mut connection = Connection::to(gateway.address);
                for number in 0..distinct / 8 {
                    let body = certain("hosted", &format!("fill {thread} {number}")).to_string();
                    let head =
                        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\ncontent-length: ";
                    let answer = connection.send(format!("{head}{}\r\n\r\n{body}", body.len())).response();
                    assert_eq!((answer.status, answer.header("x-pointsman-cache")), (200, Some("miss")));
                }
            });
        }
    });
    let bytes = || value(&gateway.metrics(), "llm_cache_bytes", &[]);
    assert!(bytes().is_some_and(|bytes| bytes <= limit && bytes > limit / 2), "{:?}", bytes());
    // A full table accepts new entries.
    let next = certain("hosted", "fill at last");
    assert_cache(&gateway.chat("sk-acme", &next), "miss");
    assert_cache(&gateway.chat("sk-acme", &next), "hit");
}
