//! The rules of a valid policy: values at the edge, values past it, and the place of each problem.

use super::*;
use crate::config::{Capability, DataClass};
use serde_json::{Value, json};

fn good() -> Value {
    let hash = |digit: &str| format!("sha256:{}", digit.repeat(64));
    json!({
        "identity": {"source": "api_key"},
        "request": {"max_body_bytes": 1024, "max_nesting": 4},
        "default_task": "chat",
        "providers": {
            "vllm": {"dialect": "openai", "data": "regulated", "base_path": "",
                "credential": {"header": "authorization", "prefix": "Bearer ", "env": "KEY_1"}}
        },
        "models": {
            "big": {"provider": "vllm", "model": "b", "level": "mid", "context": 1, "max_output_tokens": 1,
                "capabilities": ["tools"]},
            "org/small:7b": {"provider": "vllm", "model": "s", "level": "local", "context": 1, "max_output_tokens": 1,
                "unsupported_params": ["seed", "logit_bias", "seed"]}
        },
        "tasks": {"chat": {"primary": "org/small:7b", "fallback": ["big"], "max_output_tokens": 1}},
        "tiers": {"free": {"models": ["org/small:7b"]}},
        "tenants": {
            "a@b.example": {"tier": "free", "keys": [hash("0"), {"hash": hash("1"), "expires": "2027-01-31T00:00:00Z"}]}
        }
    })
}

/// Returns the good policy with one value changed.
fn changed(pointer: &str, value: Value) -> Result<Policy, Vec<String>> {
    let mut tree = good();
    let (parent, last) = pointer.rsplit_once('/').unwrap();
    tree.pointer_mut(parent).unwrap()[last] = value;
    let config: Config = serde_json::from_value(tree).unwrap();
    Policy::try_from(config).map_err(|problems| problems.iter().map(Problem::to_string).collect())
}

#[test]
fn a_valid_policy_is_indexed_by_name() {
    let policy = changed("/default_task", json!("chat")).unwrap();
    let (big, small) = (policy.find_model("big").unwrap(), policy.find_model("org/small:7b").unwrap());
    assert_eq!(policy.find_model("medium"), None);
    assert_eq!(policy.task(policy.default_task.unwrap()).chain, [small, big]);
    let tier = policy.tier(policy.tenant(policy.find_tenant("a@b.example").unwrap()).tier);
    assert!(tier.allows(small) && !tier.allows(big));
    assert!(policy.model(big).can(Capability::Tools) && !policy.model(big).can(Capability::Vision));
    assert!(policy.model(small).can(Capability::Tools) && policy.model(small).can(Capability::Vision));
    assert!(policy.model(big).takes("seed") && !policy.model(small).takes("Seed"));
    assert_eq!(&*policy.provider_of(small).name, "vllm");
    assert_eq!(policy.tenant(policy.find_tenant("a@b.example").unwrap()).data, DataClass::Internal);
}

#[test]
fn values_at_the_edge_are_valid() {
    for (pointer, value) in [
        ("/request/max_body_bytes", json!(1 << 27)),
        ("/request/max_nesting", json!(256)),
        ("/models/big/context", json!(100_000_000)),
        ("/models/big/model", json!("x".repeat(256))),
        ("/tasks/chat/fallback", json!(vec!["big"; 7])),
        ("/providers/vllm/base_path", json!("/api/v1beta/openai")),
        ("/providers/vllm/credential", json!({"header": "x-api-key", "sds": "/etc/sds.yaml"})),
        ("/providers/vllm/credential", json!({"header": "x-api-key", "file": "/run/key"})),
        ("/identity", json!({"source": "header", "tenant": "x-jwt-tenant"})),
        ("/tenants/a@b.example/data", json!("public")),
        ("/tiers/x", json!({"models": ["big", "big"]})),
    ] {
        assert!(changed(pointer, value.clone()).is_ok(), "{pointer} = {value}");
    }
}

#[test]
fn values_past_the_edge_are_one_problem_at_their_place() {
    let long = "x".repeat(65);
    for (pointer, value, place) in [
        ("/request/max_body_bytes", json!(1023), "request.max_body_bytes"),
        ("/request/max_body_bytes", json!((1 << 27) + 1), "request.max_body_bytes"),
        ("/request/max_nesting", json!(3), "request.max_nesting"),
        ("/request/max_nesting", json!(257), "request.max_nesting"),
        ("/default_task", json!("code"), "default_task"),
        ("/models/big/context", json!(0), "models.big.context"),
        ("/models/big/context", json!(100_000_001), "models.big.context"),
        ("/models/big/max_output_tokens", json!(0), "models.big.max_output_tokens"),
        ("/models/big/model", json!(""), "models.big.model"),
        ("/models/big/model", json!("a\nb"), "models.big.model"),
        ("/models/big/provider", json!("gone"), "models.big.provider"),
        ("/models/big/unsupported_params", json!(["seed", "stream"]), "models.big.unsupported_params[1]"),
        ("/models/big/unsupported_params", json!(["stream"]), "models.big.unsupported_params[0]"),
        ("/models/big/unsupported_params", json!(["max_tokens"]), "models.big.unsupported_params[0]"),
        ("/models/big/unsupported_params", json!([""]), "models.big.unsupported_params[0]"),
        ("/models/big/price", json!({"input": -1, "output": 0}), "models.big.price.input"),
        ("/tasks/chat/max_output_tokens", json!(0), "tasks.chat.max_output_tokens"),
        ("/tasks/chat/fallback", json!(vec!["big"; 8]), "tasks.chat.fallback"),
        ("/tasks/chat/fallback", json!(["big", "gone"]), "tasks.chat.fallback[1]"),
        ("/tasks/big", json!({"primary": "big"}), "tasks.big"),
        ("/tasks/auto", json!({"primary": "big"}), "tasks.auto"),
        ("/tiers/free/models", json!(["org/small:7b", "gone"]), "tiers.free.models[1]"),
        ("/tiers/x", json!({"models": []}), "tiers.x.models"),
        ("/tiers/a.b", json!({"models": ["big"]}), "tiers.a.b"),
        ("/providers/a.b", json!({"dialect": "openai", "data": "public"}), "providers.a.b"),
        ("/tenants/-a", json!({"tier": "free"}), "tenants.-a"),
        ("/tenants/", json!({"tier": "free"}), "tenants."),
        (&*format!("/tenants/{long}"), json!({"tier": "free"}), &*format!("tenants.{long}")),
        ("/tenants/x", json!({"tier": "gone"}), "tenants.x.tier"),
        ("/tenants/x", json!({"tier": "free", "keys": ["plain"]}), "tenants.x.keys[0]"),
        ("/tenants/x", json!({"tier": "free", "keys": [format!("sha256:{}", "0".repeat(64))]}), "tenants.x.keys[0]"),
        ("/tenants/a@b.example/keys", json!([]), "tenants"),
        ("/tenants/a@b.example/keys", json!(["plain"]), "tenants.a@b.example.keys[0]"),
        ("/tenants", json!({}), "tenants"),
        ("/providers", json!({}), "providers"),
        ("/providers/vllm/base_path", json!("v1"), "providers.vllm.base_path"),
        ("/providers/vllm/base_path", json!("/v1/"), "providers.vllm.base_path"),
        ("/providers/vllm/base_path", json!("/v1?x=1"), "providers.vllm.base_path"),
        ("/providers/vllm/credential/header", json!("Authorization"), "providers.vllm.credential.header"),
        ("/providers/vllm/credential/header", json!("host"), "providers.vllm.credential.header"),
        ("/providers/vllm/credential/prefix", json!("a\n"), "providers.vllm.credential.prefix"),
        ("/providers/vllm/credential/env", json!("1A"), "providers.vllm.credential.env"),
        ("/providers/vllm/credential/env", json!(""), "providers.vllm.credential.env"),
        ("/providers/vllm/credential/file", json!("/x"), "providers.vllm.credential"),
        ("/providers/vllm/credential", json!({"header": "a"}), "providers.vllm.credential"),
        ("/providers/vllm/credential", json!({"header": "a", "file": "key"}), "providers.vllm.credential.file"),
        ("/providers/vllm/credential", json!({"header": "a", "sds": ""}), "providers.vllm.credential.sds"),
        ("/identity", json!({"source": "header", "tenant": "x-envoy-t"}), "identity.tenant"),
        ("/identity", json!({"source": "header", "tenant": "x-t", "user": "user-agent"}), "identity.user"),
        ("/identity", json!({"source": "header", "tenant": "x-t", "user": ""}), "identity.user"),
    ] {
        let problems = changed(pointer, value.clone()).expect_err(pointer);
        assert_eq!(problems.len(), 1, "{pointer} = {value}: {problems:?}");
        assert!(problems[0].starts_with(&format!("{place}: ")), "{pointer} = {value}: {problems:?}");
    }
}

#[test]
fn every_problem_of_a_policy_is_named() {
    let models = json!({"auto": {"provider": "x", "model": "", "level": "mid", "context": 0, "max_output_tokens": 0}});
    let problems = changed("/models", models).unwrap_err();
    let places: Vec<_> = problems.iter().map(|p| p.split(": ").next().unwrap()).collect();
    assert_eq!(
        places,
        [
            "models.auto",
            "models.auto.provider",
            "models.auto.model",
            "models.auto.context",
            "models.auto.max_output_tokens",
            "tasks.chat.primary",
            "tasks.chat.fallback[0]",
            "tiers.free.models[0]",
        ]
    );
}

#[test]
fn a_level_may_have_its_former_name_or_be_absent_but_not_have_both_names() {
    assert!(changed("/models/big/tier", json!("mid")).is_err());
    for name in ["level", "tier", "none"] {
        let mut model = json!({"provider": "vllm", "model": "b", "context": 1, "max_output_tokens": 1});
        if name != "none" {
            model[name] = json!("mid");
        }
        assert!(changed("/models/big", model).is_ok(), "{name}");
    }
}

/// U+2028 and its like end a line for some readers of the rendered YAML.
#[test]
fn the_id_of_a_model_is_printable() {
    for id in ["gpt-4o", "Modell é", "模型 😀", "a\u{a0}b"] {
        assert!(changed("/models/big/model", json!(id)).is_ok(), "{id:?}");
    }
    for hidden in ['\n', '\t', '\u{7f}', '\u{85}', '\u{2028}', '\u{2029}', '\u{feff}', '\u{ffff}'] {
        let told = changed("/models/big/model", json!(format!("x{hidden}kind: Pod"))).err().unwrap();
        assert_eq!(told, ["models.big.model: must be 1 to 256 printable characters"], "{hidden:?}");
        assert!(changed("/tenants", json!({format!("a{hidden}b"): {"tier": "free", "keys": []}})).is_err());
    }
}
