//! Budgets in Redis: many Envoys share them, they survive a restart, and a request that waits for Redis is not sent
//! upstream.

use crate::standard::ask;
use crate::unsteady::at_once;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, cluster};
use pointsman_integration::raw::Connection;
use pointsman_integration::redis::Redis;
use pointsman_integration::response::Open;
use serde_json::{Value, json};
use std::time::Duration;

pub fn policy(mode: &str, timeout: &str) -> String {
    let tenant = |tier: &str, n: u32| format!("  {tier}{n}: {{tier: {tier}, keys: [<sk-{tier}{n}>]}}\n");
    let tiers = ["t", "requests", "dollars", "short"];
    let tenants: String = tiers.iter().flat_map(|tier| (0..4).map(move |n| tenant(tier, n))).collect();
    format!(
        "quota: {{store: redis, failure_mode: {mode}}}\nredis: {{timeout: {timeout}}}\n\
         providers: {{vllm: {{dialect: openai, local: true, data: regulated}}}}\n\
         models:\n  paid: {{provider: vllm, model: p, level: local, context: 1000000, max_output_tokens: 10000, \
         price: {{input: 1, output: 1}}}}\n\
         tiers:\n  t: {{models: [paid], limits: {{tokens_per_day: 105000, budget_usd_per_month: 1000}}}}\n  \
         requests: {{models: [paid], limits: {{requests_per_minute: 1, burst: 10m}}}}\n  \
         dollars: {{models: [paid], limits: {{budget_usd_per_day: 0.105}}}}\n  \
         short: {{models: [paid], limits: {{concurrent: 1, tokens_per_day: 1000000}}}}\n  \
         tenants:\n{tenants}"
    )
    .replace("  tenants:", "tenants:")
}

pub fn start(redis: &Redis, mode: &str, timeout: &str) -> Gateway {
    start_with(redis, mode, timeout, &[])
}

/// Like [`start`], with more flags for `pointsman up`.
pub fn start_with(redis: &Redis, mode: &str, timeout: &str, flags: &[&str]) -> Gateway {
    let bridge = redis.bridge;
    Gateway::start_over(&policy(mode, timeout), flags, |_| vec![("redis", cluster("redis", bridge, ""))])
}

pub fn open(gateway: &Gateway, key: &str) -> Open {
    let fault = json!({"fault": {"hang_mid_stream": {"after_chunks": 1}}, "chunks": 2, "chunk_bytes": 40});
    let mut request = ask("paid", &format!("[[sim:{fault}]]"));
    request["stream"] = true.into();
    Call::chat_json(&request).key(key).open(gateway.address)
}

pub fn with_usage(tokens: u64) -> Value {
    let usage = json!({"usage": {"prompt_tokens": tokens - 1, "completion_tokens": 1}, "content": "done"});
    ask("paid", &format!("[[sim:{usage}]]"))
}

/// Returns what a tenant has used and reserved of its day; `None` while Redis is away.
pub fn tokens(gateway: &Gateway, key: &str) -> Option<(u64, u64)> {
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
            // A bucket drains between the two reads.
            windows[0]
                .as_object_mut()
                .expect("a window")
                .retain(|name, _| ["window", "reserved"].contains(&name.as_str()) || tier != "requests");
            windows
        };
        await_true("everything to be settled", || windows(&two[0])[0]["reserved"].as_f64() == Some(0.0));
        assert_eq!(windows(&two[0]), windows(&two[1]));
    }
    // A budget that is used up stays used up for an Envoy that starts again.
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
    let asked = || gateway.stat("cluster.redis.upstream_rq_total");
    let body = with_usage(10).to_string();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for _ in 0..5 {
        let before = asked();
        let mut socket = std::net::TcpStream::connect(gateway.address).expect("connects");
        socket.write_all(head.as_bytes()).expect("writes");
        await_true("Redis to be asked", || asked() > before);
    }
    redis.thaw();
    await_true("everything to be given back", || tokens(&gateway, key) == Some((10, 0)));
    // No late charge arrives either. It would arrive before these.
    for _ in 0..10 {
        assert_eq!(gateway.chat(key, &with_usage(10)).status, 200);
    }
    await_true("nothing else to be charged", || tokens(&gateway, key) == Some((110, 0)));
}

/// Nothing of a request goes upstream before it has been decided, even if its method should have no body.
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
        // Redis or its bridge may still have to catch up.
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
        let asked = || gateway.stat("cluster.redis.upstream_rq_total");
        let before = asked();
        let late = scope.spawn(|| gateway.send(call));
        await_true("Redis to be asked", || asked() > before);
        // The deadline began earlier.
        std::thread::sleep(Duration::from_millis(100));
        redis.thaw();
        late.join().expect("ends well")
    });
    late.assert_refusal(504, "deadline_exceeded");
    await_true("nothing to be reserved", || tokens(&gateway, "sk-t0") == Some((10, 0)));
}
