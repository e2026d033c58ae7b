//! Whoever asks what is being asked already waits for that answer; and a store that goes away costs misses, never
//! errors.

use crate::cache::{POLICY, Store, in_redis, start};
use crate::standard::scripted;
use crate::unsteady::at_once;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, cluster};
use pointsman_integration::raw::Connection;
use pointsman_integration::redis::Redis;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A request that asks for one certain answer, which takes a while.
fn slow(mark: &str, ms: u64) -> Value {
    let mut request = scripted("hosted", &json!({"content": mark, "delay_headers_ms": ms}));
    request["temperature"] = 0.into();
    request
}

/// How many of each kind of answer came to `count` requests at once, every fourth a stream.
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
        let gateway = start(POLICY, store);
        for round in 0..3 {
            let mark = format!("two-hundred-{store:?}-{round}");
            let kinds = ask_at_once(&gateway, &slow(&mark, 400), 200);
            assert_eq!(kinds, BTreeMap::from([("200 hit".to_owned(), 199), ("200 miss".to_owned(), 1)]), "{store:?}");
            assert_eq!(gateway.simulator.with(&mark).len(), 1, "{store:?}");
        }
    }
}

/// Their answers come in few callbacks of Envoy, each inside the one before: too many at once are more than its stack
/// has room for.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn of_700_identical_requests_at_once_all_are_answered() {
    let gateway = start(POLICY, Store::Local);
    let kinds = ask_at_once(&gateway, &slow("seven-hundred", 2000), 700);
    assert_eq!(kinds, BTreeMap::from([("200 hit".to_owned(), 699), ("200 miss".to_owned(), 1)]));
    assert_eq!(gateway.simulator.with("seven-hundred").len(), 1);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn when_the_first_fails_one_of_the_others_goes_on() {
    for store in [Store::Local, Store::Redis] {
        one_goes_on(&start(POLICY, store));
    }
}

fn one_goes_on(gateway: &Gateway) {
    let mut request = slow("first-fails", 1);
    let rule = |times: u64, respond: Value| {
        json!({"when": {"body_contains": "first-fails"}, "times": times,
        "respond": respond})
    };
    gateway.simulator.add_rule(&rule(1, json!({"status": 500, "delay_headers_ms": 300})));
    gateway.simulator.add_rule(&rule(1, json!({"content": "fine", "delay_headers_ms": 300})));
    let kinds = ask_at_once(gateway, &request, 40);
    let counted = BTreeMap::from([("200 hit".to_owned(), 38), ("200 miss".to_owned(), 1)]);
    assert_eq!(
        kinds
            .iter()
            .filter(|(kind, _)| kind.starts_with("200"))
            .map(|(k, n)| (k.clone(), *n))
            .collect::<BTreeMap<_, _>>(),
        counted,
        "{kinds:?}"
    );
    assert_eq!(gateway.simulator.with("first-fails").len(), 2);

    // The first caller leaves; its request ends with it, and another one's takes its place.
    request = slow("first-leaves", 700);
    let body = request.to_string();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\ncontent-length: ";
    let mut first = Connection::to(gateway.address);
    first.send(format!("{head}{}\r\n\r\n{body}", body.len()));
    await_true("the first to reach the provider", || gateway.simulator.with("first-leaves").len() == 1);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| ask_at_once(gateway, &request, 20));
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(first);
        let kinds = others.join().unwrap();
        assert_eq!(kinds, BTreeMap::from([("200 hit".to_owned(), 19), ("200 miss".to_owned(), 1)]));
    });
    assert_eq!(gateway.simulator.with("first-leaves").len(), 2);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_answer_that_cannot_be_kept_does_not_make_the_others_wait_one_after_the_other() {
    let gateway = start(POLICY, Store::Local);
    let mut request =
        scripted("hosted", &json!({"content": "x", "finish_reason": "content_filter", "delay_headers_ms": 300}));
    request["temperature"] = 0.into();
    let began = std::time::Instant::now();
    let kinds = ask_at_once(&gateway, &request, 20);
    assert_eq!(kinds, BTreeMap::from([("200 miss".to_owned(), 20)]));
    assert!(began.elapsed().as_millis() < 3000, "{:?}", began.elapsed());
    // A request that the provider will never take is such an answer too.
    request = scripted("hosted", &json!({"status": 400, "delay_headers_ms": 300}));
    request["temperature"] = 0.into();
    let began = std::time::Instant::now();
    let kinds = ask_at_once(&gateway, &request, 20);
    assert_eq!(kinds, BTreeMap::from([("400 miss".to_owned(), 20)]));
    assert!(began.elapsed().as_millis() < 3000, "{:?}", began.elapsed());
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn callers_who_want_nothing_old_go_together() {
    for store in [Store::Local, Store::Redis] {
        let gateway = start(POLICY, store);
        let request = slow("nothing-old", 400);
        assert_eq!(gateway.chat("sk-acme", &request).header("x-pointsman-cache"), Some("miss"));
        std::thread::sleep(Duration::from_millis(50));
        let answers = at_once(20, |_| {
            gateway.send(Call::chat_json(&request).key("sk-acme").header("cache-control", "max-age=0"))
        });
        let hits = answers.iter().filter(|answer| answer.header("x-pointsman-cache") == Some("hit")).count();
        assert_eq!((hits, gateway.simulator.with("nothing-old").len()), (19, 2), "{store:?}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn without_a_wait_every_request_asks_for_itself() {
    let gateway = start(&POLICY.replacen("cache: {", "cache: {wait: 0s, ", 1), Store::Local);
    let kinds = ask_at_once(&gateway, &slow("no-wait", 400), 6);
    assert_eq!(kinds, BTreeMap::from([("200 miss".to_owned(), 6)]));
    let again = gateway.chat("sk-acme", &slow("no-wait", 400));
    assert_eq!(again.header("x-pointsman-cache"), Some("hit"));
    let other = gateway.chat("sk-acme", &slow("no-wait either", 1));
    assert_eq!(gateway.audit(other.trace_id())["cache_reason"], "absent");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn nobody_waits_for_longer_than_the_policy_or_its_deadline_says() {
    let policy = POLICY.replacen("cache: {", "cache: {wait: 300ms, ", 1);
    let gateway = start(&policy, Store::Local);
    let kinds = ask_at_once(&gateway, &slow("impatient", 1500), 6);
    assert_eq!(kinds, BTreeMap::from([("200 miss".to_owned(), 6)]));
    assert!(gateway.simulator.with("impatient").len() == 6);
    let patient = start(POLICY, Store::Local);
    let request = slow("deadline", 2500);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| patient.chat("sk-acme", &request));
        await_true("the first to reach the provider", || patient.simulator.with("deadline").len() == 1);
        let began = std::time::Instant::now();
        let hurried = Call::chat_json(&request).key("sk-acme").header("x-pointsman-deadline-ms", "200");
        let answer = patient.send(hurried);
        assert_eq!(answer.status, 504, "{}", answer.text());
        assert!(began.elapsed().as_millis() < 2000, "{:?}", began.elapsed());
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
    // 20 callers, each with one request after the other, while something happens.
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
    // Something else under a key is no entry. (What an Envoy has just kept for those who wait is its own.)
    std::thread::sleep(Duration::from_millis(300));
    let keys = redis.command(&["KEYS", "pointsman:cache:*"]);
    for key in keys.as_array().unwrap() {
        redis.command(&["SET", key.as_str().unwrap(), "garbage"]);
    }
    assert_eq!(ask(1).header("x-pointsman-cache"), Some("miss"));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn two_envoys_share_one_redis() {
    let redis = Redis::start();
    let bridge = redis.bridge;
    let start = || Gateway::start_over(&in_redis(POLICY), &[], |_| vec![("redis", cluster("redis", bridge, ""))]);
    let (one, other) = (start(), start());
    let request = slow("shared by two", 1);
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
    let request = slow("of one prefix", 1);
    let cache = |gateway: &Gateway, key: &str| {
        let answer = gateway.chat(key, &request);
        std::thread::sleep(Duration::from_millis(50));
        answer.header("x-pointsman-cache").unwrap().to_owned()
    };
    assert_eq!(cache(&blue, "sk-acme"), "miss");
    let keys = redis.command(&["KEYS", "*"]);
    let of_acme = keys[0].as_str().unwrap().to_owned();
    assert!(of_acme.starts_with("blue:") && redis.keys() == 1, "{keys}");
    assert_eq!(cache(&green, "sk-acme"), "miss");
    assert_eq!((cache(&blue, "sk-acme"), cache(&green, "sk-acme")), ("hit".to_owned(), "hit".to_owned()));
    // Another tenant's key with this one's entry in it, as somebody who can write to Redis might put it there.
    assert_eq!(cache(&blue, "sk-other"), "miss");
    let keys = redis.command(&["KEYS", "blue:*"]);
    let of_other = keys.as_array().unwrap().iter().find(|key| **key != of_acme).unwrap().as_str().unwrap().to_owned();
    std::thread::sleep(Duration::from_millis(300));
    redis.command(&["COPY", &of_acme, &of_other, "REPLACE"]);
    assert_eq!(cache(&blue, "sk-other"), "miss");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn those_who_wait_are_answered_across_a_reload() {
    let gateway = start(POLICY, Store::Local);
    let all_but_one = |count: usize| BTreeMap::from([("200 hit".to_owned(), count - 1), ("200 miss".to_owned(), 1)]);
    std::thread::scope(|scope| {
        let before = scope.spawn(|| ask_at_once(&gateway, &slow("waits-before", 1500), 20));
        std::thread::sleep(Duration::from_millis(300));
        let seen = gateway.process.lines().len();
        gateway.replace_policy(&POLICY.replacen("acme: {tier: pro,", "acme: {tier: pro, cache_revision: 1,", 1));
        gateway
            .process
            .await_line_after(seen, "policy applied", |line| line.starts_with("policy applied").then_some(()));
        // These wait while the others still do, and longer than those and their policy are there.
        assert_eq!(ask_at_once(&gateway, &slow("waits-after", 3500), 20), all_but_one(20));
        assert_eq!(before.join().expect("ends well"), all_but_one(20));
    });
}
