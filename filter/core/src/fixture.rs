//! A small policy for the tests of this crate.

use crate::policy::Policy;
use crate::policy::parse::from_value;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Returns `sha256:HEX` of a key.
pub fn hash(key: &str) -> String {
    format!("sha256:{}", Sha256::digest(key).iter().map(|b| format!("{b:02x}")).collect::<String>())
}

/// Returns a policy document with two providers (`local` for anything, `hosted` for internal data), three models, two
/// tasks, two tiers and three tenants.
pub fn document() -> Value {
    json!({
        "default_task": "chat",
        "providers": {
            "local": {"dialect": "openai", "local": true, "data": "regulated"},
            "hosted": {"dialect": "openai", "data": "internal", "base_path": "/openai/v1",
                       "credential": {"header": "api-key", "env": "KEY"}},
        },
        "models": {
            "small": {"provider": "local", "model": "qwen", "level": "local", "context": 1000, "max_output_tokens": 100,
                      "price": {"input": 0, "output": 0}, "capabilities": ["tools"]},
            "big": {"provider": "hosted", "model": "gpt", "level": "flagship", "context": 100000,
            "max_output_tokens": 1000,
                    "price": {"input": 2, "cached_input": 0.5, "output": 8}},
            "strict": {"provider": "hosted", "model": "o", "level": "mid", "context": 100000, "max_output_tokens": 1000,
                       "unsupported_params": ["seed"]},
        },
        "tasks": {
            "chat": {"primary": "small", "fallback": ["big"]},
            "code": {"primary": "big", "fallback": ["small"], "max_output_tokens": 50},
        },
        "tiers": {"free": {"models": ["small"]}, "pro": {"models": ["small", "big", "strict"]}},
        "tenants": {
            "acme": {"tier": "pro", "keys": [hash("sk-acme")]},
            "clinic": {"tier": "pro", "keys": [hash("sk-clinic")], "data": "regulated"},
            "guest": {"tier": "free", "keys": [hash("sk-guest")]},
        },
    })
}

/// Makes the context of a worker that remembers nothing. It lives until the end of the statement.
macro_rules! context {
    ($policy:expr) => {
        &mut $crate::memory::WorkerMemory::new($policy).under($policy)
    };
}
pub(crate) use context;

/// Returns the policy of [`document`].
pub fn policy() -> Policy {
    from_value(&document()).expect("the fixture is valid").1
}
