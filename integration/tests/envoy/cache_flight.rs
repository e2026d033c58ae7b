//! A caller waits for the answer to an identical request that is already under way. A store that goes away costs
//! misses, never errors.

use crate::cache::{POLICY, Store, certain, in_redis, start};
use crate::standard::scripted;
use crate::unsteady::at_once;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, Shared, cluster};
use pointsman_integration::raw::Connection;
use pointsman_integration::redis::Redis;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

/// Returns the gateway of a store that these tests share, one after the other.
fn alone(store: Store) -> Shared {
    static GATEWAYS: [LazyLock<Gateway>; 2] =
        [LazyLock::new(|| start(POLICY, Store::Local)), LazyLock::new(|| start(POLICY, Store::Redis))];
    static LOCKS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    Shared::alone(&GATEWAYS[store as usize], &LOCKS[store as usize])
}

/// Returns a request with temperature 0, whose answer is held until `mark` is released.
fn held(mark: &str) -> Value {
    let mut request = scripted("hosted", &json!({"content": mark, "hold": mark}));
    request["temperature"] = 0.into();
    request
}

/// Waits until this many downstream requests are active.
fn await_under_way(gateway: &Gateway, count: u64) {
    await_true(&format!("{count} requests to be under way"), || gateway.under_way() == count);
}

/// Does the same as [`ask_at_once`] with a held request, which is released when all callers wait.
fn ask_held_at_once(gateway: &Gateway, mark: &str, count: usize) -> BTreeMap<String, usize> {
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| ask_at_once(gateway, &held(mark), count));
        await_under_way(gateway, count as u64);
        gateway.simulator.release(mark);
        asked.join().expect("ends well")
    })
}

/// Returns the expected answers for `count` callers of which one reached the provider.
fn all_but_one(count: usize) -> BTreeMap<String, usize> {
    BTreeMap::from([("200 hit".to_owned(), count - 1), ("200 miss".to_owned(), 1)])
}

/// Sends `count` requests at the same time, every fourth as a stream. Returns how often each kind of answer came.
fn ask_at_once(gateway: &Gateway, request: &Value, count: usize) -> BTreeMap<String, usize> {
    let mark = request["messages"][0]["content"].as_str().unwrap().to_owned();
    let answers = at_once(count, |number| {
        let mut request = request.clone();
        request["stream"] = number.is_multiple_of(4).into();
        gateway.chat("sk-acme", &request)
    });
    let mut kinds = BTreeMap::new();
    for answer in answers {
        let cache = answer.header("x-pointsman-cache").unwrap_or("none");
        if answer.status == 200 {
            let is_whole = answer.text().contains("[DONE]") || answer.text().contains("\"object\":\"chat.completion\"");
            assert!(answer.complete && is_whole, "{mark}: {}", answer.text());
        }
        *kinds.entry(format!("{} {cache}", answer.status)).or_default() += 1;
    }
    kinds
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn of_200_identical_requests_at_once_one_reaches_the_provider() {
    for store in [Store::Local, Store::Redis] {
        let gateway = alone(store);
        for round in 0..3 {
            let mark = format!("two-hundred-{store:?}-{round}");
            assert_eq!(ask_held_at_once(&gateway, &mark, 200), all_but_one(200), "{store:?}");
            assert_eq!(gateway.simulator.with(&mark).len(), 1, "{store:?}");
        }
    }
}

/// Envoy delivers their answers in few callbacks, each nested in the one before. Too many at the same time would
/// overflow its stack.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn of_700_identical_requests_at_once_all_are_answered() {
    let gateway = alone(Store::Local);
    assert_eq!(ask_held_at_once(&gateway, "seven-hundred", 700), all_but_one(700));
    assert_eq!(gateway.simulator.with("seven-hundred").len(), 1);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn when_the_first_fails_one_of_the_others_goes_on() {
    for store in [Store::Local, Store::Redis] {
        one_goes_on(&alone(store));
    }
}

fn one_goes_on(gateway: &Gateway) {
    for respond in [json!({"status": 500, "hold": "first-fails"}), json!({"content": "fine", "hold": "next"})] {
        let when = json!({"body_contains": "first-fails"});
        gateway.simulator.add_rule(&json!({"when": when, "times": 1, "respond": respond}));
    }
    let kinds = std::thread::scope(|scope| {
        let asked = scope.spawn(|| ask_at_once(gateway, &held("first-fails"), 40));
        await_under_way(gateway, 40);
        gateway.simulator.release("first-fails");
        await_under_way(gateway, 39);
        gateway.simulator.release("next");
        asked.join().expect("ends well")
    });
    let served: BTreeMap<_, _> = kinds.clone().into_iter().filter(|(kind, _)| kind.starts_with("200")).collect();
    assert_eq!(served, all_but_one(39), "{kinds:?}");
    assert_eq!(gateway.simulator.with("first-fails").len(), 2);

    // The first caller disconnects. Its upstream request ends with it, and another caller's request takes its place.
    let request = held("first-leaves");
    let body = request.to_string();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\ncontent-length: ";
    let mut first = Connection::to(gateway.address);
    first.send(format!("{head}{}\r\n\r\n{body}", body.len()));
    let asked = |times: usize| {
        await_true("requests to reach the provider", || gateway.simulator.with("first-leaves").len() == times);
    };
    asked(1);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| ask_at_once(gateway, &request, 20));
        await_under_way(gateway, 21);
        drop(first);
        asked(2);
        gateway.simulator.release("first-leaves");
        assert_eq!(others.join().unwrap(), all_but_one(20));
    });
    assert_eq!(gateway.simulator.with("first-leaves").len(), 2);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_answer_that_cannot_be_kept_does_not_make_the_others_wait_one_after_the_other() {
    let gateway = alone(Store::Local);
    // The answer to a request that the provider rejects cannot be cached either.
    for (mark, kind, mut behavior) in [
        ("is-filtered", "200 miss", json!({"content": "x", "finish_reason": "content_filter"})),
        ("is-rejected", "400 miss", json!({"status": 400})),
    ] {
        let request = held(mark);
        for (times, hold) in [(1, format!("{mark}, the first")), (19, format!("{mark}, the others"))] {
            behavior["hold"] = hold.into();
            let rule = json!({"when": {"body_contains": mark}, "times": times, "respond": behavior});
            gateway.simulator.add_rule(&rule);
        }
        let kinds = std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask_at_once(&gateway, &request, 20));
            await_under_way(&gateway, 20);
            gateway.simulator.release(&format!("{mark}, the first"));
            // None of these has been answered yet.
            await_true("all the others to be asked for", || gateway.simulator.with(mark).len() == 20);
            gateway.simulator.release(&format!("{mark}, the others"));
            asked.join().expect("ends well")
        });
        assert_eq!(kinds, BTreeMap::from([(kind.to_owned(), 20)]));
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn callers_who_want_nothing_old_go_together() {
    for store in [Store::Local, Store::Redis] {
        let gateway = alone(store);
        let request = held("nothing-old");
        let rule = json!({"when": {"body_contains": "nothing-old"}, "times": 1, "respond": {"content": "old"}});
        gateway.simulator.add_rule(&rule);
        let first = gateway.chat("sk-acme", &request);
        assert_eq!(first.header("x-pointsman-cache"), Some("miss"));
        // Its audit record comes some milliseconds later, so the answer has an age by then.
        gateway.audit(first.trace_id());
        let (gateway, request) = (&gateway, &request);
        let answers = std::thread::scope(|scope| {
            let call = || Call::chat_json(request).key("sk-acme").header("cache-control", "max-age=0");
            let asked = scope.spawn(move || at_once(20, |_| gateway.send(call())));
            await_under_way(gateway, 20);
            gateway.simulator.release("nothing-old");
            asked.join().expect("ends well")
        });
        let hits = answers.iter().filter(|answer| answer.header("x-pointsman-cache") == Some("hit")).count();
        assert_eq!((hits, gateway.simulator.with("nothing-old").len()), (19, 2), "{store:?}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn without_a_wait_or_after_it_every_request_asks_for_itself() {
    let gateway = start(&POLICY.replacen("cache: {", "cache: {wait: 0s, ", 1), Store::Local);
    let all_ask = |gateway: &Gateway, mark: &str| {
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask_at_once(gateway, &held(mark), 6));
            await_true("each to reach the provider", || gateway.simulator.with(mark).len() == 6);
            gateway.simulator.release(mark);
            assert_eq!(asked.join().expect("ends well"), BTreeMap::from([("200 miss".to_owned(), 6)]));
        });
    };
    all_ask(&gateway, "no-wait");
    let again = gateway.chat("sk-acme", &held("no-wait"));
    assert_eq!(again.header("x-pointsman-cache"), Some("hit"));
    gateway.simulator.release("no-wait either");
    let other = gateway.chat("sk-acme", &held("no-wait either"));
    assert_eq!(gateway.audit(other.trace_id())["cache_reason"], "absent");
    // The same after each has waited for as long as the policy allows.
    all_ask(&start(&POLICY.replacen("cache: {", "cache: {wait: 300ms, ", 1), Store::Local), "impatient");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn nobody_waits_for_longer_than_its_deadline() {
    let gateway = alone(Store::Local);
    let request = held("deadline");
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.chat("sk-acme", &request));
        await_true("the first to reach the provider", || gateway.simulator.with("deadline").len() == 1);
        let hurried = Call::chat_json(&request).key("sk-acme").header("x-pointsman-deadline-ms", "200");
        let answer = gateway.send(hurried);
        assert_eq!(answer.status, 504, "{}", answer.text());
        assert!(!first.is_finished());
        gateway.simulator.release("deadline");
        assert_eq!(first.join().unwrap().status, 200);
    });
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn redis_killed_and_hung_under_load_costs_misses_and_no_errors() {
    let mut redis = Redis::start();
    let bridge = redis.bridge;
    let policy = in_redis(POLICY).replace("{timeout: 2s}", "{timeout: 200ms}");
    let gateway = Gateway::start_over(&policy, &[], |_| vec![("redis", cluster("redis", bridge, ""))]);
    let ask = |number: usize| {
        let mut request = scripted("hosted", &json!({"content": "steady"}));
        request["seed"] = (number % 7).into();
        request["stream"] = number.is_multiple_of(2).into();
        gateway.chat("sk-acme", &request)
    };
    // 20 callers, each sending one request after the other, while something happens.
    let load = |what: &str, happens: &mut (dyn FnMut() + Send)| {
        let answered = AtomicUsize::new(0);
        let answers = std::thread::scope(|scope| {
            scope.spawn(|| {
                await_true("answers to come", || answered.load(Ordering::Relaxed) >= 40);
                happens();
            });
            let one = |number| {
                let answer = ask(number);
                answered.fetch_add(1, Ordering::Relaxed);
                answer
            };
            at_once(20, |caller| (0..30).map(|number| one(number * 20 + caller)).collect::<Vec<_>>())
        });
        let mut kinds = BTreeMap::new();
        for answer in answers.into_iter().flatten() {
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            *kinds.entry(answer.header("x-pointsman-cache").unwrap_or("none").to_owned()).or_insert(0) += 1;
        }
        kinds
    };
    let steady = load("steady", &mut || {});
    assert!(steady["hit"] > 500, "{steady:?}");
    let killed = load("killed", &mut || redis.kill());
    assert!(killed["miss"] >= 100 && killed["hit"] >= 1, "{killed:?}");
    assert!(gateway.metrics().join("\n").contains("reason=\"store_unreachable\""));
    redis.restart();
    ask(1);
    await_true("answers to be kept again", || ask(1).header("x-pointsman-cache") == Some("hit"));
    redis.freeze();
    let hung = at_once(20, ask);
    redis.thaw();
    assert!(hung.iter().all(|answer| answer.status == 200 && answer.header("x-pointsman-cache") == Some("miss")));
    await_true("answers to be found again", || ask(1).header("x-pointsman-cache") == Some("hit"));
    // A value that is no cache entry is not served. (Envoy also has its own copy for a moment, for those who wait.)
    let keys = redis.command(&["KEYS", "pointsman:cache:*"]);
    for key in keys.as_array().unwrap() {
        redis.command(&["SET", key.as_str().unwrap(), "garbage"]);
    }
    await_true("the answer to be gone", || ask(1).header("x-pointsman-cache") == Some("miss"));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn two_envoys_share_one_redis() {
    let redis = Redis::start();
    let bridge = redis.bridge;
    let start = || Gateway::start_over(&in_redis(POLICY), &[], |_| vec![("redis", cluster("redis", bridge, ""))]);
    let (one, other) = (start(), start());
    let request = certain("hosted", "shared by two");
    assert_eq!(one.chat("sk-acme", &request).header("x-pointsman-cache"), Some("miss"));
    await_true("Redis to have it", || redis.keys() == 1);
    let answer = other.chat("sk-acme", &request);
    assert_eq!(answer.header("x-pointsman-cache"), Some("hit"));
    assert!(other.simulator.with("shared by two").is_empty());
    assert_eq!(other.chat("sk-other", &request).header("x-pointsman-cache"), Some("miss"));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn gateways_of_other_prefixes_share_nothing_and_an_entry_is_nobody_elses_under_any_key() {
    let redis = Redis::start();
    let bridge = redis.bridge;
    let start = |prefix: &str| {
        let policy = in_redis(POLICY).replacen("cache: {", &format!("cache: {{key_prefix: \"{prefix}\", "), 1);
        Gateway::start_over(&policy, &[], |_| vec![("redis", cluster("redis", bridge, ""))])
    };
    let (blue, green) = (start("blue:"), start("green:"));
    let request = certain("hosted", "of one prefix");
    let cache = |gateway: &Gateway, key: &str| {
        gateway.chat(key, &request).header("x-pointsman-cache").unwrap_or("none").to_owned()
    };
    let kept = |count: u64| await_true("the answer to be kept", || redis.keys() == count);
    assert_eq!(cache(&blue, "sk-acme"), "miss");
    kept(1);
    let keys = redis.command(&["KEYS", "*"]);
    let of_acme = keys[0].as_str().unwrap().to_owned();
    assert!(of_acme.starts_with("blue:"), "{keys}");
    assert_eq!(cache(&green, "sk-acme"), "miss");
    kept(2);
    assert_eq!((cache(&blue, "sk-acme"), cache(&green, "sk-acme")), ("hit".to_owned(), "hit".to_owned()));
    // Another tenant's key holds this tenant's entry, as an attacker who can write to Redis could arrange. (Envoy also
    // has its own copy for a moment, for those who wait.)
    assert_eq!(cache(&blue, "sk-other"), "miss");
    kept(3);
    let keys = redis.command(&["KEYS", "blue:*"]);
    let of_other = keys.as_array().unwrap().iter().find(|key| **key != of_acme).unwrap().as_str().unwrap().to_owned();
    redis.command(&["COPY", &of_acme, &of_other, "REPLACE"]);
    await_true("it to be no answer", || cache(&blue, "sk-other") == "miss");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn those_who_wait_are_answered_across_a_reload() {
    let gateway = start(POLICY, Store::Local);
    std::thread::scope(|scope| {
        let before = scope.spawn(|| ask_at_once(&gateway, &held("waits-before"), 20));
        await_under_way(&gateway, 20);
        let seen = gateway.process.lines().len();
        gateway.replace_policy(&POLICY.replacen("acme: {tier: pro,", "acme: {tier: pro, cache_revision: 1,", 1));
        gateway
            .process
            .await_line_after(seen, "policy applied", |line| line.starts_with("policy applied").then_some(()));
        // These requests start waiting while the others still wait, and wait until after the others and their policy
        // are gone.
        let after = scope.spawn(|| ask_at_once(&gateway, &held("waits-after"), 20));
        await_under_way(&gateway, 40);
        gateway.simulator.release("waits-before");
        assert_eq!(before.join().expect("ends well"), all_but_one(20));
        gateway.simulator.release("waits-after");
        assert_eq!(after.join().expect("ends well"), all_but_one(20));
    });
}
