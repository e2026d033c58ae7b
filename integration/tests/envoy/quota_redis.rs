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
    let tenant = |tier: &str, n: u32| format!("  {tier}{n}: {{tier: {tier}, keys: [<sk-{tier}{n}>]}}\n");
    let tiers = ["t", "requests", "dollars", "short"];
    let tenants: String = tiers.iter().flat_map(|tier| (0..4).map(move |n| tenant(tier, n))).collect();
    format!(
        "quota: {{store: redis, failure_mode: {mode}}}\nredis: {{timeout: {timeout}}}\n\
         providers: {{vllm: {{dialect: openai, local: true, data: regulated}}}}\n\
         models:\n  paid: {{provider: vllm, model: p, tier: local, context: 1000000, max_output_tokens: 10000, \
         price: {{input: 1, output: 1}}}}\n\
         tiers:\n  t: {{models: [paid], tokens_per_day: 105000, budget_usd_per_month: 1000}}\n  \
         requests: {{models: [paid], requests_per_minute: 1, burst: 10m}}\n  \
         dollars: {{models: [paid], budget_usd_per_day: 0.105}}\n  \
         short: {{models: [paid], concurrent: 1, tokens_per_day: 1000000}}\n  \
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
    for (round, tier) in (0..3).flat_map(|round| ["t", "requests", "dollars"].map(|tier| (round, tier))) {
        let key = format!("sk-{tier}{round}");
        let answers = at_once(500, |number| open(&two[number % 2], &key));
        let (passed, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
        assert_eq!(passed.len(), 10, "{tier}, round {round}");
        assert!(refused.iter().all(|answer| answer.status == 429), "{tier}, round {round}");
        drop(passed);
        let windows = |gateway: &Gateway| {
            let mut windows = gateway.send(Call::new("GET", "/v1/usage").key(&key)).json()["windows"].clone();
            // A bucket drains from one look to the next.
            windows[0]
                .as_object_mut()
                .expect("a window")
                .retain(|name, _| ["window", "reserved"].contains(&name.as_str()) || tier != "requests");
            windows
        };
        await_true("everything to be settled", || windows(&two[0])[0]["reserved"].as_f64() == Some(0.0));
        assert_eq!(windows(&two[0]), windows(&two[1]));
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
        // A settlement whose answer came too late is asked again, which the Redis that is to come could not know.
        std::thread::sleep(Duration::from_millis(500));
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

/// Input and output tokens of a request, as they were charged.
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
        // Some end while it is away, some when it is back.
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
        std::thread::sleep(Duration::from_millis(500));
        redis.restart();
        await_true(&format!("{mode}: what ended meanwhile to be charged"), || {
            tokens(&gateway, key).is_some_and(|(used, held)| used == wanted && held == reserved / 2)
        });
        wanted += streams.drain(..).map(end).sum::<u64>();
        await_true(&format!("{mode}: everything to be charged"), || tokens(&gateway, key) == Some((wanted, 0)));
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(tokens(&gateway, key), Some((wanted, 0)), "{mode}: nothing comes twice");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_envoy_that_is_drained_delivers_what_waits_for_redis() {
    let redis = Redis::start();
    let (leaving, other) = (start(&redis, "allow", "200ms"), start(&redis, "allow", "200ms"));
    let key = "sk-t0";
    let mut stream = open(&leaving, key);
    assert!(stream.status == 200 && stream.next_piece().is_some());
    let drain = Call::new("POST", "/drain_listeners?graceful").send(leaving.admin);
    assert_eq!(drain.status, 200, "{}", drain.text());
    redis.freeze();
    let trace_id = stream.trace_id();
    drop(stream);
    let wanted = charged(&leaving, &trace_id);
    std::thread::sleep(Duration::from_millis(500));
    redis.thaw();
    await_true("the charge", || tokens(&other, key) == Some((wanted, 0)));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_envoy_that_is_killed_leaves_its_reservations_until_they_expire() {
    let redis = Redis::start();
    let document = format!("{}resilience: {{request_timeout: 1s}}\n", policy("deny", "5s"));
    let start = || Gateway::start_over(&document, &[], |_| vec![("redis", cluster("redis", redis.bridge, ""))]);
    let (killed, other) = (start(), start());
    let key = "sk-short0";
    let stream = open(&killed, key);
    assert_eq!(stream.status, 200);
    let [envoy] = killed.process.children()[..] else { panic!("one Envoy") };
    let kill = std::process::Command::new("kill").args(["-s", "KILL", &envoy.to_string()]).status();
    assert!(kill.is_ok_and(|status| status.success()));
    let since = Instant::now();
    await_true("it to be gone", || !killed.process.is_running());
    drop((stream, killed));
    // What it had reserved stays so, for whoever asks: nothing is overshot.
    other.chat(key, &with_usage(10)).assert_refusal(429, "rate_limit_exceeded");
    // A minute after the request's timeout at the least, and at most a minute later, it is free.
    let again = loop {
        let answer = other.chat(key, &with_usage(10));
        if answer.status == 200 {
            break since.elapsed();
        }
        assert!(since.elapsed() < Duration::from_secs(125), "{answer:?}");
        std::thread::sleep(Duration::from_secs(1));
    };
    assert!(again >= Duration::from_secs(58), "{again:?}");
    await_true("nothing but the last one to be charged", || tokens(&other, key) == Some((10, 0)));
}
