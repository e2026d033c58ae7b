//! Policies for the tests.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

pub fn hash(key: &str) -> String {
    format!("sha256:{}", Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Returns a policy with two providers and a plan of two models, the first of which takes one request at a time. One
/// tenant has quotas and one concurrent request, the other has neither.
pub fn document() -> Value {
    json!({
        "default_task": "chat",
        "providers": {
            "vllm": {"dialect": "openai", "local": true, "data": "regulated",
                     "credential": {"header": "x-vllm-key", "env": "VLLM_KEY"}},
            "openai": {"dialect": "openai", "data": "internal", "base_path": "/hosted/v1",
                       "credential": {"header": "authorization", "prefix": "Bearer ", "env": "OPENAI_KEY"}},
        },
        "models": {
            "small": {"provider": "vllm", "model": "qwen", "level": "local", "context": 100_000,
                      "max_output_tokens": 100, "price": {"input": 1, "output": 1}, "max_concurrent": 1},
            "big": {"provider": "openai", "model": "gpt-4.1-long-name", "level": "flagship", "context": 100_000,
                    "max_output_tokens": 100, "price": {"input": 2, "output": 8}, "max_concurrent": 1},
        },
        "tasks": {
            "chat": {"primary": "small", "fallback": ["big"]},
            "alone": {"primary": "small"},
        },
        "tiers": {
            "free": {"models": ["small", "big"]},
            "metered": {"models": ["small", "big"], "limits": {"tokens_per_day": 100_000_000, "concurrent": 1}},
        },
        "tenants": {
            "acme": {"tier": "metered", "keys": [hash("sk-acme")]},
            "other": {"tier": "free", "keys": [hash("sk-other")]},
        },
    })
}

/// Returns the policy with Redis as quota store, behind a bridge.
pub fn with_redis_quota() -> Value {
    let mut document = document();
    document["redis"] = json!({"cluster": "webdis", "timeout": "250ms"});
    document["quota"] = json!({"store": "redis"});
    document
}

/// Returns the policy with a cache in `store` for every task.
pub fn with_cache(store: &str) -> Value {
    let mut document = document();
    if store == "redis" {
        document["redis"] = json!({"cluster": "webdis", "timeout": "250ms"});
    }
    document["cache"] = json!({"store": store, "max_entry_bytes": 65_536, "memory_bytes": 1 << 20});
    for task in ["chat", "alone"] {
        document["tasks"][task]["cache"] = json!({"ttl": "1h", "requests": "any"});
    }
    document
}
