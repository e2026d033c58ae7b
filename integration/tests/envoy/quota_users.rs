//! Users of one tenant: as many as the policy says are counted, more than that are served, and none locks out another.

use crate::standard::ask;
use crate::unsteady::at_once;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, cluster};
use pointsman_integration::redis::Redis;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicU64, Ordering};

fn policy(users: u32) -> String {
    format!(
        "quota: {{users: {users}}}\n\
         providers: {{vllm: {{dialect: openai, local: true, data: regulated}}}}\n\
         models: {{m: {{provider: vllm, model: m, level: local, context: 100000, max_output_tokens: 10}}}}\n\
         tiers: {{t: {{models: [m], limits: {{per_user: {{tokens_per_day: 1000}}}}}}}}\n\
         tenants: {{acme: {{tier: t, keys: [<sk-acme>]}}}}\n"
    )
}

/// A request of a user that uses 990 tokens.
fn of(user: &str) -> Value {
    let usage = json!({"content": "x", "usage": {"prompt_tokens": 900, "completion_tokens": 90}});
    let mut request = ask("m", &format!("[[sim:{usage}]]"));
    request["user"] = user.into();
    request
}

fn status(gateway: &Gateway, user: &str) -> u16 {
    gateway.chat("sk-acme", &of(user)).status
}

fn evicted(gateway: &Gateway) -> u64 {
    let lines = gateway.metrics();
    let line = lines.iter().find(|line| line.starts_with("llm_quota_users_evicted_total{"));
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0)
}

/// Sends one request for each of these users, eight at a time. Returns how many passed.
fn send(gateway: &Gateway, users: usize, name: impl Fn(usize) -> String + Sync) -> usize {
    let next = AtomicU64::new(0);
    let passed = at_once(8, |_| {
        let mut passed = 0;
        loop {
            let user = next.fetch_add(1, Ordering::Relaxed) as usize;
            if user >= users {
                return passed;
            }
            passed += usize::from(status(gateway, &name(user)) == 200);
        }
    });
    passed.iter().sum()
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn as_many_users_as_the_policy_says_each_have_their_windows() {
    let gateway = Gateway::start(&policy(1024));
    let name = |user: usize| format!("user-{user}@example.com");
    assert_eq!(send(&gateway, 1024, name), 1024);
    // Each has used 990 of 1000 tokens, and a request may use more than ten.
    assert_eq!(send(&gateway, 1024, name), 0);
    assert_eq!(evicted(&gateway), 0);
    // Still, when the policy has room for others, and workers have not yet seen these users under it.
    gateway.replace_policy(&policy(4096).replace("tokens_per_day: 1000", "tokens_per_day: 1001"));
    await_true("both workers to have the new policy", || {
        (0..8).all(|_| gateway.chat("sk-acme", &of(&name(0))).text().contains("of 1001 left"))
    });
    assert_eq!(send(&gateway, 1024, name), 0);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn more_users_than_have_room_are_all_served_and_counted_as_evicted() {
    let gateway = Gateway::start(&policy(16));
    assert_eq!(send(&gateway, 600, |user| format!("user-{user}")), 600);
    let evicted = evicted(&gateway);
    assert!(evicted >= 600 - 64, "{evicted}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn chosen_user_ids_do_not_lock_out_a_user() {
    let gateway = Gateway::start(&policy(1024));
    // The ids that share the first bits of the hash in audit records with the victim's.
    let hash = |user: &str| {
        let digest = Sha256::new()
            .chain_update(b"pointsman.user.v1")
            .chain_update(4_u64.to_be_bytes())
            .chain_update("acme")
            .chain_update(user)
            .finalize();
        u64::from_le_bytes(digest[..8].try_into().expect("eight bytes")) % 64
    };
    let victim = "alice@example.com";
    let chosen: Vec<String> =
        (0..).map(|n| format!("mallory-{n}")).filter(|user| hash(user) == hash(victim)).take(40).collect();
    assert_eq!(send(&gateway, chosen.len(), |n| chosen[n].clone()), chosen.len());
    assert_eq!(status(&gateway, victim), 200);
    assert_eq!(status(&gateway, victim), 429, "it is counted");
    assert_eq!(evicted(&gateway), 0);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_tenant_that_invents_users_has_no_more_keys_in_redis_than_the_policy_says() {
    let redis = Redis::start();
    let policy = policy(16).replace("quota: {users: 16}", "quota: {users: 16, store: redis}\nredis: {timeout: 5s}");
    let gateway = Gateway::start_over(&policy, &[], |_| vec![("redis", cluster("redis", redis.bridge, ""))]);
    let users = || {
        let script = "return #redis.call('KEYS', 'pointsman:quota:{acme}:u:*')";
        redis.command(&["EVAL", script, "0"]).as_u64()
    };
    assert_eq!(send(&gateway, 300, |user| format!("user-{user}")), 300);
    assert_eq!(users(), Some(16));
    let evicted = evicted(&gateway);
    assert!((200..=284).contains(&evicted), "{evicted}");
    // The last one has a key and is counted.
    assert_eq!(status(&gateway, "alice"), 200);
    await_true("it to be charged", || status(&gateway, "alice") == 429);
}
