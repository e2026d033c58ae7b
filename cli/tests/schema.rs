//! The JSON Schema finds what an editor can find: it accepts every policy that ships, and refuses what `check` refuses
//! for its form alone.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use regex::Regex;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use support::Scratch;

fn schema() -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman")).arg("schema").output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns whether a value conforms. Knows the keywords that the schema uses, and no others.
fn conforms(root: &Value, schema: &Value, value: &Value) -> bool {
    let schema = match schema {
        Value::Bool(all) => return *all,
        schema => schema.as_object().unwrap(),
    };
    let all = |list: &Value, wanted: fn(usize, usize) -> bool| {
        let list = list.as_array().unwrap();
        wanted(list.iter().filter(|one| conforms(root, one, value)).count(), list.len())
    };
    let number = |bound: &Value, holds: fn(f64, f64) -> bool| {
        value.as_f64().is_none_or(|number| holds(number, bound.as_f64().unwrap()))
    };
    let size = |bound: &Value, size: Option<usize>, holds: fn(u64, u64) -> bool| {
        size.is_none_or(|size| holds(size as u64, bound.as_u64().unwrap()))
    };
    let (text, list, object) = (value.as_str(), value.as_array(), value.as_object());
    schema.iter().all(|(keyword, rule)| match keyword.as_str() {
        "$schema" | "title" | "description" | "default" | "examples" | "format" | "$defs" => true,
        "$ref" => conforms(root, root.pointer(&rule.as_str().unwrap()[1..]).unwrap(), value),
        "type" => match rule {
            Value::Array(types) => types.iter().any(|one| is_of(value, one)),
            one => is_of(value, one),
        },
        "const" => value == rule,
        "enum" => rule.as_array().unwrap().contains(value),
        "allOf" => all(rule, |count, all| count == all),
        "anyOf" => all(rule, |count, _| count > 0),
        "oneOf" => all(rule, |count, _| count == 1),
        "not" => !conforms(root, rule, value),
        "minimum" => number(rule, |number, bound| number >= bound),
        "maximum" => number(rule, |number, bound| number <= bound),
        "pattern" => text.is_none_or(|text| Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
        "minLength" => size(rule, text.map(|text| text.chars().count()), |size, bound| size >= bound),
        "maxLength" => size(rule, text.map(|text| text.chars().count()), |size, bound| size <= bound),
        "minItems" => size(rule, list.map(Vec::len), |size, bound| size >= bound),
        "maxItems" => size(rule, list.map(Vec::len), |size, bound| size <= bound),
        "minProperties" => size(rule, object.map(serde_json::Map::len), |size, bound| size >= bound),
        "items" => list.into_iter().flatten().all(|item| conforms(root, rule, item)),
        "prefixItems" => {
            list.into_iter().flatten().zip(rule.as_array().unwrap()).all(|(item, rule)| conforms(root, rule, item))
        }
        "required" => object.is_none_or(|object| {
            rule.as_array().unwrap().iter().all(|name| object.contains_key(name.as_str().unwrap()))
        }),
        "properties" => {
            let of = |name: &String| rule.get(name);
            object.into_iter().flatten().all(|(name, value)| of(name).is_none_or(|rule| conforms(root, rule, value)))
        }
        "additionalProperties" => {
            let known = |name: &String| schema.get("properties").is_some_and(|all| all.get(name).is_some());
            object.into_iter().flatten().all(|(name, value)| known(name) || conforms(root, rule, value))
        }
        "propertyNames" => {
            object.into_iter().flatten().all(|(name, _)| conforms(root, rule, &Value::from(name.as_str())))
        }
        other => panic!("the schema uses {other:?}, which this test does not know"),
    })
}

fn is_of(value: &Value, name: &Value) -> bool {
    match name.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("{other}"),
    }
}

/// A policy that uses every section.
fn full() -> Value {
    let hash = format!("sha256:{}", "0a".repeat(32));
    json!({
        "request": {"max_body_bytes": 1024, "max_nesting": 4},
        "response": {"max_event_bytes": 262_144, "max_share": 0.001},
        "resilience": {"first_token_timeout": "30s", "retry_on_status": [429, "5xx"]},
        "cache": {"memory_bytes": 1_048_576, "max_share": 1, "max_entry_bytes": 1024, "key_prefix": "a:b",
            "prompt_revisions": {"a@1": 1}},
        "redis": {"cluster": "redis", "timeout": "50ms"},
        "quota": {"users": 16, "time_zone": "Europe/Berlin", "default_price": {"input": 0, "output": 1_000_000}},
        "providers": {"p": {"dialect": "openai", "data": "public", "base_path": "/v1", "credential":
            {"header": "authorization", "prefix": "Bearer ", "env": "KEY"}}},
        "models": {"a.b:c/d": {"provider": "p", "model": "m", "context": 100_000_000, "max_output_tokens": 1,
            "max_concurrent": 1, "max_share": 0.001, "unsupported_params": ["user"], "level": "mid",
            "price": {"input": 0.5, "cached_input": 0, "cache_write": 1, "output": 2, "audio_input": 0,
                "audio_output": 1_000_000, "web_search": 10}, "capabilities": ["tools", "audio", "other"]}},
        "tasks": {"t": {"primary": "a.b:c/d", "fallback": [], "max_output_tokens": 1, "cache": {"ttl": "1h 30m"},
            "resilience": {"attempt_timeout": "10 s"}}},
        "tiers": {"pro": {"models": ["a.b:c/d"], "limits": {"requests_per_minute": 1, "tokens_per_minute": 1,
            "tokens_per_day": 100_000_000_000_u64, "budget_usd_per_day": 0, "budget_usd_per_month": 1_000_000_000,
            "concurrent": 1, "max_input_tokens": 1, "max_output_tokens": 1, "on_tight": "clamp",
            "min_output_tokens": 1, "degrade_at": 0.001, "alert_at": [1],
            "burst": "1h", "on_exhausted": {"degrade": "a.b:c/d"}}}},
        "tenants": {"a@b": {"tier": "pro", "keys":
            [hash, {"hash": hash.replace("0a", "0b"), "expires": "2027-01-31T00:00:00Z"}]}},
    })
}

fn check(scratch: &Scratch, policy: &Value) -> bool {
    let file = scratch.write("policy.json", &policy.to_string());
    Command::new(env!("CARGO_BIN_EXE_pointsman")).arg("check").arg(file).output().unwrap().status.success()
}

#[test]
fn the_policies_that_ship_conform() {
    let schema = schema();
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies")).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "yaml") {
            let policy = serde_saphyr::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
            assert!(conforms(&schema, &schema, &policy), "{}", file.display());
        }
    }
}

#[test]
fn what_the_schema_refuses_check_refuses_too_and_both_accept_the_neighbour() {
    let (schema, scratch) = (schema(), Scratch::new("schema"));
    assert!(conforms(&schema, &schema, &full()) && check(&scratch, &full()));
    let model = "/models/a.b:c~1d";
    let at = |place: &str| format!("{model}/{place}");
    let limits = |name: &str| format!("/tiers/pro/limits/{name}");
    let name = |count: usize| "x".repeat(count);
    let cases: Vec<(String, Vec<Value>)> = vec![
        ("/providers".into(), vec![json!({})]),
        ("/models".into(), vec![json!({})]),
        ("/tiers".into(), vec![json!({})]),
        ("/tenants".into(), vec![json!({})]),
        ("/tasks".into(), vec![json!({"auto": {"primary": "a.b:c/d"}}), json!({"a b": {"primary": "a.b:c/d"}})]),
        ("/request/max_body_bytes".into(), vec![json!(1023), json!(134_217_729)]),
        ("/request/max_nesting".into(), vec![json!(3), json!(257), json!("64")]),
        ("/request/tenant_uploads".into(), vec![json!(0), json!(1_000_001)]),
        ("/request/tenant_upload_bytes".into(), vec![json!(1_048_575), json!(17_179_869_185_u64)]),
        ("/response/max_event_bytes".into(), vec![json!(262_143), json!(134_217_729)]),
        ("/response/max_share".into(), vec![json!(0), json!(1.5)]),
        ("/resilience/first_token_timeout".into(), vec![json!("20"), json!(20), json!("fast"), json!("10 lightyears")]),
        (
            "/resilience/retry_on_status".into(),
            vec![json!([400]), json!([413]), json!([600]), json!(["4xx"]), json!(429)],
        ),
        ("/cache/memory_bytes".into(), vec![json!(1_048_575), json!(17_179_869_185_u64)]),
        ("/cache/max_share".into(), vec![json!(0), json!(50)]),
        ("/cache/max_entry_bytes".into(), vec![json!(1023), json!(524_289)]),
        ("/cache/key_prefix".into(), vec![json!(""), json!("a b"), json!(name(65))]),
        ("/cache/prompt_revisions".into(), vec![json!({"invoice": 1}), json!({"@1": 1})]),
        ("/redis/cluster".into(), vec![json!("a b"), json!("-a")]),
        ("/quota/users".into(), vec![json!(15), json!(65537)]),
        ("/quota/failure_mode".into(), vec![json!("open")]),
        ("/providers/p/dialect".into(), vec![json!("gemini")]),
        ("/providers/p/base_path".into(), vec![json!("v1"), json!("/v1/"), json!("/"), json!("/a?b")]),
        ("/providers/p/credential/header".into(), vec![json!("Authorization"), json!("")]),
        ("/providers/p/credential/prefix".into(), vec![json!("a%b"), json!("é")]),
        ("/providers/p/credential/env".into(), vec![json!("1KEY"), json!("sk-live")]),
        ("/providers/p/credential/file".into(), vec![json!("/both")]),
        (
            "/providers/p/credential".into(),
            vec![
                json!({"header": "a"}),
                json!({"header": "a", "file": "relative"}),
                json!({"header": "a", "sds": "relative"}),
            ],
        ),
        (at("model"), vec![json!(""), json!(name(257))]),
        (at("context"), vec![json!(0), json!(100_000_001), json!(-1), json!("8k")]),
        (at("max_output_tokens"), vec![json!(0), json!(100_000_001)]),
        (at("max_concurrent"), vec![json!(0)]),
        (at("max_share"), vec![json!(0), json!(1.5), json!("half")]),
        (at("unsupported_params"), vec![json!(["stream"]), json!([""]), json!("user")]),
        (at("price/input"), vec![json!(-1), json!(1_000_001)]),
        (at("price/cached_input"), vec![json!(-1), json!(1_000_001)]),
        (at("price/cache_write"), vec![json!(-1), json!(1_000_001)]),
        (at("price/output"), vec![json!(-1), json!(1_000_001)]),
        (at("price/audio_input"), vec![json!(-1), json!(1_000_001)]),
        (at("price/audio_output"), vec![json!(-1), json!(1_000_001)]),
        (at("price/web_search"), vec![json!(-1), json!(1_000_001)]),
        (at("contxt"), vec![json!(1)]),
        ("/providers/p/dialects".into(), vec![json!([]), json!(["gemini"]), json!("openai")]),
        ("/tasks/t/fallback".into(), vec![json!(vec!["a.b:c/d"; 8])]),
        ("/tasks/t/max_output_tokens".into(), vec![json!(0), json!(100_000_001)]),
        ("/tiers/pro/models".into(), vec![json!([]), json!("a.b:c/d")]),
        (limits("requests_per_minute"), vec![json!(0), json!(100_000_000_001_u64)]),
        (limits("tokens_per_minute"), vec![json!(0), json!(100_000_000_001_u64)]),
        (limits("tokens_per_day"), vec![json!(0), json!(100_000_000_001_u64)]),
        (limits("budget_usd_per_day"), vec![json!(-1), json!(1_000_000_001)]),
        (limits("budget_usd_per_month"), vec![json!(-1), json!(1_000_000_001)]),
        (limits("concurrent"), vec![json!(0), json!(4_294_967_296_u64)]),
        (limits("max_input_tokens"), vec![json!(0), json!(100_000_000_001_u64)]),
        (limits("max_output_tokens"), vec![json!(0), json!(100_000_000_001_u64)]),
        (limits("min_output_tokens"), vec![json!(0), json!(100_000_000_001_u64)]),
        (limits("on_tight"), vec![json!("shorten")]),
        (limits("degrade_at"), vec![json!(0), json!(80)]),
        (limits("alert_at"), vec![json!([80]), json!(vec![0.5; 9])]),
        ("/tenants/a@b/keys".into(), vec![json!(["sk-live"]), json!(["sha256:00"]), json!("sk-live")]),
        ("/tenants/a@b/keys/1/expires".into(), vec![json!("2027-01-31"), json!("tomorrow")]),
    ];
    let bounds: Value = serde_json::from_str(include_str!("../src/schema/bounds.json")).unwrap();
    for (field, rules) in bounds.as_object().unwrap().values().flat_map(|fields| fields.as_object().unwrap()) {
        let is_tested = cases.iter().any(|(pointer, _)| pointer.ends_with(&format!("/{field}")));
        let is_rule = rules.as_object().unwrap().keys().any(|keyword| keyword != "examples");
        assert!(is_tested || !is_rule || field == "sds", "{field}");
    }
    for (pointer, values) in cases {
        for bad in values {
            let mut policy = full();
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            match policy.pointer_mut(parent).unwrap() {
                Value::Object(fields) => drop(fields.insert(name.replace("~1", "/"), bad.clone())),
                other => panic!("{pointer}: {other}"),
            }
            assert!(!conforms(&schema, &schema, &policy), "{pointer}: the schema accepts {bad}");
            assert!(!check(&scratch, &policy), "{pointer}: check accepts {bad}");
        }
    }
}
