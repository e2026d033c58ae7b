//! The policy of the bench. It has two providers, so that the task's plan has a fallback.

use crate::envoy::Variant;
use crate::quotas::TENANTS;
use crate::scenario::CALLER_KEY;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The model that callers name: a plan of one attempt.
pub const MODEL: &str = "small";

/// The task that other callers name: a plan of two attempts.
pub const TASK: &str = "chat";

/// The task whose answers are cached.
pub const CACHED: &str = "cached";

/// The providers of the policy.
pub const PROVIDERS: [&str; 2] = ["vllm", "openai"];

/// Returns the policy document. It holds only the hashes of keys.
#[allow(clippy::indexing_slicing)] // Members are set on objects that are made here.
pub fn document(variant: Variant) -> Value {
    let hash: String = Sha256::digest(CALLER_KEY).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut document = json!({
        "default_task": "chat",
        "providers": {
            "vllm": {"dialects": ["openai", "anthropic"], "local": true, "data": "regulated"},
            "openai": {"dialect": "openai", "data": "internal", "credential":
                {"header": "authorization", "prefix": "Bearer ", "env": "POINTSMAN_BENCH_KEY"}},
        },
        "models": {
            "small": {"provider": "vllm", "model": "qwen2.5-7b-instruct", "level": "local", "context": 1_000_000,
                "max_output_tokens": 512, "price": {"input": 0, "output": 0}},
            "big": {"provider": "openai", "model": "gpt-4.1", "level": "flagship", "context": 1_000_000,
                "max_output_tokens": 2048, "price": {"input": 2.0, "cached_input": 0.5, "output": 8.0}},
        },
        "tasks": {
            "chat": {"primary": "small", "fallback": ["big"]},
            "cached": {"primary": "small", "cache": {"ttl": "1h", "requests": "any"}},
        },
        "tiers": {"pro": {"models": ["small", "big"]}},
        "tenants": {"acme": {"tier": "pro", "keys": [format!("sha256:{hash}")]}},
    });
    if !matches!(variant, Variant::Pointsman | Variant::Carry) {
        // Every kind of limit, each too high to be reached.
        let limits = json!({"requests_per_minute": 1_000_000_000, "tokens_per_minute": 10_000_000_000_u64,
            "tokens_per_day": 100_000_000_000_u64, "budget_usd_per_day": 1_000_000_000, "concurrent": 1_000_000,
            "budget_usd_per_month": 1_000_000_000});
        let told = |name: &str| name.starts_with("requests_per") || name.starts_with("tokens_per");
        for (name, value) in limits.as_object().into_iter().flatten() {
            if variant != Variant::Budgets || !told(name) {
                document["tiers"]["pro"]["limits"][name] = value.clone();
            }
        }
    }
    if variant == Variant::Tenants {
        for n in 1..TENANTS {
            let hash: String = Sha256::digest(format!("sk-{n}")).iter().map(|byte| format!("{byte:02x}")).collect();
            let tenant = json!({"tier": "pro", "keys": [format!("sha256:{hash}")]});
            document["tenants"][format!("tenant-{n}")] = tenant;
        }
    }
    document
}
