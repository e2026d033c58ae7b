//! Budgets in Redis: many Envoys share them, they survive a restart, and Redis may go away and come back.

use crate::standard::ask;
use crate::unsteady::at_once;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::{await_some, await_true};
use pointsman_integration::gateway::{Gateway, cluster};
use pointsman_integration::raw::Connection;
use pointsman_integration::redis::Redis;
use pointsman_integration::response::Open;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn policy(mode: &str, timeout: &str) -> String {
    let tenants: String = (0..4).map(|n| format!("  t{n}: {{tier: tokens, keys: [<sk-t{n}>]}}\n")).collect();
    format!(
        "quota: {{store: redis, failure_mode: {mode}}}\nredis: {{timeout: {timeout}}}\n\
         providers: {{vllm: {{dialect: openai, local: true, data: regulated}}}}\n\
         models:\n  paid: {{provider: vllm, model: p, tier: local, context: 1000000, max_output_tokens: 10000, \
         price: {{input: 1, output: 1}}}}\n\
         tiers:\n  tokens: {{models: [paid], tokens_per_day: 105000, budget_usd_per_month: 1000}}\n  \
         tenants:\n{tenants}"
    )
    .replace("  tenants:", "tenants:")
}

fn start(redis: &Redis, mode: &str, timeout: &str) -> Gateway {
    let bridge = redis.bridge;
    Gateway::start_over(&policy(mode, timeout), &[], |_| vec![("redis", cluster("redis", bridge, ""))])
}

fn open(gateway: &Gateway, key: &str) -> Open {
    let fault = json!({"fault": {"hang_mid_stream": {"after_chunks": 1}}, "chunks": 2, "chunk_bytes": 40});
    let mut request = ask("paid", &format!("[[sim:{fault}]]"));
    request["stream"] = true.into();
    Call::chat_json(&request).key(key).open(gateway.address)
}

fn with_usage(tokens: u64) -> Value {
    let usage = json!({"usage": {"prompt_tokens": tokens - 1, "completion_tokens": 1}, "content": "done"});
    ask("paid", &format!("[[sim:{usage}]]"))
}

/// What a tenant has used of its day, and what it has reserved; `None` while Redis is away.
fn tokens(gateway: &Gateway, key: &str) -> Option<(u64, u64)> {
    let answer = gateway.send(Call::new("GET", "/v1/usage").key(key));
    if answer.status == 503 {
        answer.assert_refusal(503, "quota_unavailable");
        return None;
    }
    let window = answer.json()["windows"][0].clone();
    assert_eq!(window["window"], "tokens_per_day", "{}", answer.text());
    Some((window["used"].as_u64()?, window["reserved"].as_u64()?))
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn two_envoys_on_one_redis_let_exactly_ten_through_and_a_restart_forgets_nothing() {
    let redis = Redis::start();
    let two = [start(&redis, "deny", "5s"), start(&redis, "deny", "5s")];
    for round in 0..3 {
        let key = format!("sk-t{round}");
        let answers = at_once(500, |number| open(&two[number % 2], &key));
        let (passed, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
        assert_eq!(passed.len(), 10, "round {round}");
        assert!(refused.iter().all(|answer| answer.status == 429), "round {round}");
        drop(passed);
        await_true("everything to be settled", || tokens(&two[0], &key).is_some_and(|(_, reserved)| reserved == 0));
        assert_eq!(tokens(&two[0], &key), tokens(&two[1], &key));
    }
    // A budget that is used up stays so in an Envoy that begins anew.
    let [first, second] = two;
    for _ in 0..2 {
        first.audit(first.chat("sk-t3", &with_usage(50_000)).trace_id());
    }
    await_true("the charges", || tokens(&first, "sk-t3") == Some((100_000, 0)));
    drop((first, second));
    let again = start(&redis, "deny", "5s");
    assert_eq!(tokens(&again, "sk-t3"), Some((100_000, 0)));
    again.chat("sk-t3", &with_usage(1)).assert_refusal(429, "rate_limit_exceeded");
}

/// Calls for a while, as a caller does; how many were served of each status.
fn load(gateway: &Gateway, key: &str, time: Duration) -> std::collections::BTreeMap<u16, u64> {
    let end = Instant::now() + time;
    let mut all = std::collections::BTreeMap::new();
    while Instant::now() < end {
        *all.entry(gateway.chat(key, &with_usage(100)).status).or_insert(0) += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    all
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn redis_is_killed_and_restarted_under_load_and_everything_is_charged_once() {
    for mode in ["deny", "allow", "local"] {
        let mut redis = Redis::start();
        let gateway = start(&redis, mode, "200ms");
        let key = "sk-t0";
        let before = load(&gateway, key, Duration::from_millis(300));
        assert_eq!(before.keys().collect::<Vec<_>>(), [&200], "{mode}: {before:?}");
        let served = before[&200];
        await_true("the charges", || tokens(&gateway, key) == Some((served * 100, 0)));
        redis.kill();
        let during = load(&gateway, key, Duration::from_millis(1500));
        match mode {
            "deny" => assert_eq!(during.keys().collect::<Vec<_>>(), [&503], "{mode}: {during:?}"),
            _ => assert_eq!(during.keys().collect::<Vec<_>>(), [&200], "{mode}: {during:?}"),
        }
        let served = during.get(&200).copied().unwrap_or(0);
        assert!(mode == "deny" || served > 5, "{during:?}");
        redis.restart();
        // It has lost what it knew, as it keeps nothing here; what was served while it was away is charged to it, once.
        let charged = || tokens(&gateway, key).map(|(used, _)| used);
        await_true(&format!("{mode}: {served} requests to be charged"), || charged() == Some(served * 100));
        let after = load(&gateway, key, Duration::from_millis(300));
        assert_eq!(after.keys().collect::<Vec<_>>(), [&200], "{mode}: {after:?}");
        let wanted = (served + after[&200]) * 100;
        await_true(&format!("{mode}: everything to be settled"), || tokens(&gateway, key) == Some((wanted, 0)));
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(tokens(&gateway, key), Some((wanted, 0)), "{mode}: nothing comes twice");
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
    // What it is asked now it will do when it goes on, though nobody waits for that.
    let answers = at_once(8, |_| gateway.chat(key, &with_usage(100)));
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    std::thread::sleep(Duration::from_millis(700));
    redis.thaw();
    await_some("all charges", || tokens(&gateway, key).filter(|all| *all == (900, 0)));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(tokens(&gateway, key), Some((900, 0)));
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

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_caller_who_leaves_before_redis_answers_leaves_nothing_reserved() {
    use std::io::Write as _;
    let redis = Redis::start();
    let gateway = start(&redis, "deny", "5s");
    let key = "sk-t3";
    assert_eq!(gateway.chat(key, &with_usage(10)).status, 200);
    await_true("the charge", || tokens(&gateway, key) == Some((10, 0)));
    redis.freeze();
    let body = with_usage(10).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..5 {
        let mut socket = std::net::TcpStream::connect(gateway.address).expect("connects");
        socket.write_all(head.as_bytes()).expect("writes");
        std::thread::sleep(Duration::from_millis(50));
    }
    redis.thaw();
    await_true("everything to be given back", || tokens(&gateway, key) == Some((10, 0)));
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(tokens(&gateway, key), Some((10, 0)));
}

/// Nothing of a request goes upstream before it has been decided, not even where its method should have no body.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_body_does_not_carry_a_waiting_request_past_the_gateway() {
    let redis = Redis::start();
    let gateway = start(&redis, "deny", "500ms");
    let before = gateway.simulator.mark();
    for framing in
        ["content-length: 5\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx: y\r\n\r\n"]
    {
        redis.freeze();
        let head = "GET /v1/usage HTTP/1.1\r\nhost: x\r\nx-api-key: sk-t0\r\nx-pointsman-cluster: vllm\r\n";
        let answer = Connection::to(gateway.address).send(format!("{head}{framing}")).response();
        redis.thaw();
        assert!(answer.status == 503 && answer.text().contains("quota_unavailable"), "{answer:?}");
        // Redis, or its bridge, may still have to catch up.
        await_true("an answer of Redis", || {
            let answer = Connection::to(gateway.address).send(format!("{head}{framing}")).response();
            answer.status == 200 && answer.text().contains("tokens_per_day")
        });
    }
    assert_eq!(gateway.simulator.requests(before).len(), 0);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_deadline_that_passes_while_redis_is_asked_leaves_nothing_reserved() {
    let redis = Redis::start();
    let gateway = start(&redis, "deny", "5s");
    assert_eq!(gateway.chat("sk-t0", &with_usage(10)).status, 200);
    redis.freeze();
    let late = std::thread::scope(|scope| {
        let call = Call::chat_json(&with_usage(10)).key("sk-t0").header("x-pointsman-deadline-ms", "100");
        let late = scope.spawn(|| gateway.send(call));
        std::thread::sleep(Duration::from_millis(400));
        redis.thaw();
        late.join().expect("ends well")
    });
    late.assert_refusal(504, "deadline_exceeded");
    await_true("nothing to be reserved", || tokens(&gateway, "sk-t0") == Some((10, 0)));
}
