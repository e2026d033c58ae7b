//! The gateways that quotas are tested on, one for each store, and what is asked of them.

use crate::standard::ask;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, Shared, cluster};
use pointsman_integration::redis::Redis;
use pointsman_integration::response::{Open, Response};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Tenants of each tier, so that no test finds a window that another has used.
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
        "shadow",
        "bounded",
    ];
    let tenant = |tier: &str, n: usize| format!("  {tier}{n}: {{tier: {tier}, keys: [<sk-{tier}{n}>]}}\n");
    let tenants: String =
        tiers.iter().flat_map(|tier| (0..EACH).map(move |n| (tier, n))).map(|(tier, n)| tenant(tier, n)).collect();
    include_str!("quota.yaml").replace("TENANTS", &tenants)
}

/// One gateway for each store: everything here holds for both.
pub fn gateways() -> [Shared; 2] {
    static LOCAL: LazyLock<Gateway> = LazyLock::new(|| Gateway::start(&policy()));
    static REDIS: LazyLock<Redis> = LazyLock::new(Redis::start);
    static SHARED: LazyLock<Gateway> = LazyLock::new(|| {
        let policy = format!("quota: {{store: redis}}\nredis: {{timeout: 5s}}\n{}", policy());
        Gateway::start_over(&policy, &[], |_| vec![("redis", cluster("redis", REDIS.bridge, ""))])
    });
    [Shared::of(&LOCAL), Shared::of(&SHARED)]
}

/// A stream that says this many chunks and then nothing more.
pub fn hanging(model: &str, chunks: u32) -> Value {
    let fault =
        json!({"fault": {"hang_mid_stream": {"after_chunks": chunks}}, "chunks": chunks + 1, "chunk_bytes": 40});
    let mut request = ask(model, &format!("[[sim:{fault}]]"));
    request["stream"] = true.into();
    request
}

/// An answer with this usage.
pub fn with_usage(model: &str, input: u64, output: u64) -> Value {
    let usage = json!({"usage": {"prompt_tokens": input, "completion_tokens": output}, "content": "done"});
    ask(model, &format!("[[sim:{usage}]]"))
}

/// The answer as it comes.
pub fn open(gateway: &Gateway, key: &str, request: &Value) -> Open {
    Call::chat_json(request).key(key).open(gateway.address)
}

/// A window of the tenant's, as it sees it.
pub fn window(gateway: &Gateway, key: &str, name: &str) -> Value {
    let answer = gateway.send(Call::new("GET", "/v1/usage").key(key));
    assert_eq!(answer.status, 200, "{answer:?}");
    let all = answer.json()["windows"].as_array().expect("a list").clone();
    all.into_iter().find(|window| window["window"] == name).unwrap_or_else(|| panic!("no {name}: {}", answer.text()))
}

/// Waits until so much of a window is used: a charge comes a moment after its request has ended.
#[track_caller]
pub fn await_used(gateway: &Gateway, key: &str, name: &str, wanted: u64) {
    await_true(&format!("{wanted} of {name} to be used by {key}"), || used(gateway, key, name) == wanted);
}

/// So much of a window is used.
pub fn used(gateway: &Gateway, key: &str, name: &str) -> u64 {
    window(gateway, key, name)["used"].as_u64().expect("a number")
}

/// Asserts that this window is full, and that the answer says when to come back.
#[track_caller]
pub fn assert_exhausted(answer: &Response, code: &str, name: &str) {
    answer.assert_refusal(429, code);
    let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains(name), "{message}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}
