//! The gateways on which quotas are tested, one for each store, and the requests they receive.

use crate::standard::ask;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, Shared, cluster};
use pointsman_integration::redis::Redis;
use pointsman_integration::response::{Open, Response};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// The number of tenants in each tier, so that no test finds a window that another has used.
pub const EACH: usize = 4;

fn policy() -> String {
    let tiers = [
        "requests",
        "minute",
        "tokens",
        "dollars",
        "wall",
        "charged",
        "month",
        "concurrent",
        "single",
        "users",
        "models",
        "metered",
        "degrading",
        "early",
        "polite",
        "tight",
        "shadow",
        "bounded",
        "worded",
        "narrow",
    ];
    let tenant = |tier: &str, n: usize| format!("  {tier}{n}: {{tier: {tier}, keys: [<sk-{tier}{n}>]}}\n");
    let tenants: String =
        tiers.iter().flat_map(|tier| (0..EACH).map(move |n| (tier, n))).map(|(tier, n)| tenant(tier, n)).collect();
    include_str!("quota.yaml").replace("TENANTS", &tenants)
}

/// Returns one gateway for each store. Every test here holds for both.
pub fn gateways() -> [Shared; 2] {
    static LOCAL: LazyLock<Gateway> = LazyLock::new(|| Gateway::start(&policy()));
    static REDIS: LazyLock<Redis> = LazyLock::new(Redis::start);
    static SHARED: LazyLock<Gateway> = LazyLock::new(|| {
        let policy = format!("quota: {{store: redis}}\nredis: {{timeout: 5s}}\n{}", policy());
        Gateway::start_over(&policy, &[], |_| vec![("redis", cluster("redis", REDIS.bridge, ""))])
    });
    [Shared::of(&LOCAL), Shared::of(&SHARED)]
}

/// Returns a request for a stream that sends this many chunks and then hangs.
pub fn hanging(model: &str, chunks: u32) -> Value {
    let fault =
        json!({"fault": {"hang_mid_stream": {"after_chunks": chunks}}, "chunks": chunks + 1, "chunk_bytes": 40});
    let mut request = ask(model, &format!("[[sim:{fault}]]"));
    request["stream"] = true.into();
    request
}

/// Returns a request for an answer with this usage.
pub fn with_usage(model: &str, input: u64, output: u64) -> Value {
    let usage = json!({"usage": {"prompt_tokens": input, "completion_tokens": output}, "content": "done"});
    ask(model, &format!("[[sim:{usage}]]"))
}

/// Opens the answer as a stream.
pub fn open(gateway: &Gateway, key: &str, request: &Value) -> Open {
    Call::chat_json(request).key(key).open(gateway.address)
}

/// Returns a window of the tenant, as the tenant sees it.
pub fn window(gateway: &Gateway, key: &str, name: &str) -> Value {
    let answer = gateway.send(Call::new("GET", "/v1/usage").key(key));
    assert_eq!(answer.status, 200, "{answer:?}");
    let all = answer.json()["windows"].as_array().expect("a list").clone();
    all.into_iter().find(|window| window["window"] == name).unwrap_or_else(|| panic!("no {name}: {}", answer.text()))
}

/// Waits until this much of a window is used: a charge follows a moment after its request has ended.
#[track_caller]
pub fn await_used(gateway: &Gateway, key: &str, name: &str, wanted: u64) {
    await_true(&format!("{wanted} of {name} to be used by {key}"), || used(gateway, key, name) == wanted);
}

/// Returns how much of a window is used.
pub fn used(gateway: &Gateway, key: &str, name: &str) -> u64 {
    window(gateway, key, name)["used"].as_u64().expect("a number")
}

/// Checks that this window is full, and that the answer says when to come back.
#[track_caller]
pub fn assert_exhausted(answer: &Response, code: &str, name: &str) {
    answer.assert_refusal(429, code);
    let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains(name), "{message}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}
