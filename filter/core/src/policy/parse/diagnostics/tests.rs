//! Each mistake of shape is named once, at its place, and no message repeats a key.

use super::*;

fn good() -> Value {
    json!({
        "providers": {"vllm": {"dialect": "openai", "local": true, "data": "regulated"}},
        "models": {"fast": {"provider": "vllm", "model": "m", "level": "local", "context": 8192,
            "max_output_tokens": 512, "price": {"input": 0.1, "output": 0.2}}},
        "tasks": {"chat": {"primary": "fast", "fallback": ["fast", "fast"]}},
        "tiers": {"free": {"models": ["fast"]}},
        "tenants": {"acme": {"tier": "free", "keys": [{"hash": "sha256:00"}]}}
    })
}

/// The problems of the good policy with some places changed; `null` takes a place away.
fn problems(changes: &[(&str, Value)]) -> Vec<String> {
    let mut tree = good();
    for (pointer, value) in changes {
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        match (tree.pointer_mut(parent).unwrap(), value) {
            (Value::Object(map), Value::Null) => drop(map.remove(last).unwrap()),
            (Value::Object(map), value) => drop(map.insert(last.to_owned(), value.clone())),
            (Value::Array(list), value) => list[last.parse::<usize>().unwrap()] = value.clone(),
            _ => unreachable!(),
        }
    }
    read(&tree).map_or_else(|flawed| flawed.problems.iter().map(Problem::to_string).collect(), |_| Vec::new())
}

#[test]
fn a_good_document_has_no_problem() {
    assert_eq!(problems(&[]), [""; 0]);
    assert_eq!(problems(&[("/identity", json!({"source": "api_key"}))]), [""; 0]);
    assert_eq!(problems(&[("/identity", json!({"source": "header", "tenant": "x-t"}))]), [""; 0]);
}

#[test]
fn an_unknown_field_names_its_section_and_the_fields_there() {
    assert_eq!(
        problems(&[("/models/fast/price/inptu", json!(1))]),
        ["models.fast.price: unknown field \"inptu\"; did you mean \"input\"?"]
    );
    assert_eq!(
        problems(&[("/gpu", json!({}))]),
        ["unknown section \"gpu\"; known sections: identity, request, response, resilience, cache, redis, quota, \
             default_task, providers, models, tasks, tiers, tenants"]
    );
    // A name that serde's own words would be confused by.
    assert_eq!(
        problems(&[("/tiers/free/a`, expected `b", json!(1))]),
        ["tiers.free: unknown field \"a`, expected `b\"; known fields: models, limits"]
    );
}

#[test]
fn a_missing_field_is_named_and_the_others_too() {
    assert_eq!(
        problems(&[("/models/fast", json!({"context": 1}))]),
        [
            "models.fast: missing field \"provider\"; for example `provider: vllm`",
            "models.fast: missing field \"model\"; for example `model: gpt-4.1`",
            "models.fast: missing field \"max_output_tokens\"; for example `max_output_tokens: 4096`",
        ]
    );
    assert_eq!(
        problems(&[("/tiers", json!(null)), ("/models", json!(null))]),
        [
            "missing section \"models\"; it needs at least one model",
            "missing section \"tiers\"; it needs at least one tier",
        ]
    );
}

#[test]
fn a_wrong_type_says_what_was_expected_and_causes_no_second_problem() {
    for (pointer, value, expected) in [
        ("/models/fast/context", json!("many"), "models.fast.context: expected a whole number, found \"many\""),
        ("/models/fast/context", json!(-1), "models.fast.context: expected a whole number, found -1"),
        ("/models/fast/context", json!(1.5), "models.fast.context: expected a whole number, found 1.5"),
        (
            "/models/fast/price",
            json!("x"),
            "models.fast.price: expected a mapping of fields, found \"x\"; write `price: {input: 0.4, output: 1.6}`",
        ),
        (
            "/models/fast/price/input",
            json!("0"),
            "models.fast.price.input: expected a number, found \"0\"; remove the quotes: 0",
        ),
        ("/models/fast/drop_params", json!("x"), "models.fast.drop_params: expected true or false, found \"x\""),
        (
            "/models/fast/provider",
            json!(5),
            "models.fast.provider: expected the name of a provider, found 5; known providers: vllm",
        ),
        ("/models/fast/level", json!(5), "models.fast.level: expected a level, found 5; use local, mid or flagship"),
        ("/models/fast/level", json!("big"), "models.fast.level: \"big\" is not a level; use local, mid or flagship"),
        ("/models/fast", json!([]), "models.fast: expected a mapping of fields, found a list"),
        (
            "/models",
            json!(["fast"]),
            "models: expected a mapping of names to fields, found a list; write `NAME:` for each model, and its fields \
             below it, indented",
        ),
        (
            "/request",
            json!(true),
            "request: expected a mapping of fields, found true; write its fields below it, indented, or remove \
             the line",
        ),
        (
            "/tasks/chat/fallback/0",
            json!(7),
            "tasks.chat.fallback[0]: expected the name of a model, found 7; known models: fast",
        ),
        ("/tasks/chat/fallback", json!("fast"), "tasks.chat.fallback: expected a list, found \"fast\"; write [fast]"),
    ] {
        assert_eq!(problems(&[(pointer, value)]), [expected]);
    }
}

#[test]
fn several_mistakes_are_each_named_once_in_the_order_of_the_document() {
    assert_eq!(
        problems(&[
            ("/tasks/chat/fallback/0", json!(1)),
            ("/tasks/chat/fallback/1", json!(2)),
            ("/models/fast/max_output_tokens", json!(null)),
            ("/models/fast/context", json!("x")),
            ("/models/fast/prise", json!({})),
            ("/tenants/acme/data", json!("secret")),
            ("/identity", json!({"source": "fax"})),
        ]),
        [
            "identity.source: \"fax\" is not a source of identity; use api_key or header",
            "models.fast.context: expected a whole number, found \"x\"",
            "models.fast: unknown field \"prise\"; did you mean \"price\"?",
            "models.fast: missing field \"max_output_tokens\"; for example `max_output_tokens: 4096`",
            "tasks.chat.fallback[0]: expected the name of a model, found 1; known models: fast",
            "tasks.chat.fallback[1]: expected the name of a model, found 2; known models: fast",
            "tenants.acme.data: \"secret\" is not a data class; use public, internal, confidential or regulated",
        ]
    );
}

#[test]
fn a_misspelt_field_is_not_missing_too_but_another_is() {
    let tenant = |tenant: Value| problems(&[("/tenants/acme", tenant)]);
    assert_eq!(tenant(json!({"tire": "free"})), ["tenants.acme: unknown field \"tire\"; did you mean \"tier\"?"]);
    assert_eq!(
        tenant(json!({"rank": "free"})),
        [
            "tenants.acme: unknown field \"rank\"; known fields: tier, keys, data, cache_revision, limits",
            "tenants.acme: missing field \"tier\"; for example `tier: free`",
        ]
    );
}

#[test]
fn the_source_of_identity_has_its_own_fields_and_no_others() {
    let of = |identity: Value| problems(&[("/identity", identity)]);
    assert_eq!(of(json!({"source": "header"})), ["identity: missing field \"tenant\"; for example `tenant: x-tenant`"]);
    assert_eq!(of(json!({})), ["identity: missing field \"source\"; for example `source: api_key`"]);
    assert_eq!(
        of(json!({"source": "api_key", "tenant": "x-t"})),
        ["identity: source api_key accepts no other fields; tenant, user and permissions belong to source header"]
    );
    assert_eq!(
        of(json!({"source": "header", "tenat": "x-t"})),
        ["identity: unknown field \"tenat\"; did you mean \"tenant\"?"]
    );
    assert_eq!(of(json!({"source": "header", "tenant": 1})), ["identity.tenant: expected a string, found 1"]);
}

#[test]
fn a_document_of_nonsense_ends() {
    for nonsense in [json!(null), json!(1), json!("x"), json!([]), json!([1, {}])] {
        assert!(read(&nonsense).is_err(), "{nonsense}");
    }
    let many: serde_json::Map<String, Value> = (0..300).map(|i| (format!("m{i}"), json!(i))).collect();
    assert_eq!(problems(&[("/models", many.into())]).len(), ENOUGH + 1);
}

/// Every place of the policy, filled with every kind of value that holds a key.
#[test]
fn no_message_repeats_what_may_be_a_key() {
    const KEY: &str = "sk-live-0123456789";
    fn pointers(node: &Value, at: &str, all: &mut Vec<String>) {
        all.push(at.to_owned());
        match node {
            Value::Object(map) => map.iter().for_each(|(k, v)| pointers(v, &format!("{at}/{k}"), all)),
            Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), all)),
            _ => {}
        }
    }
    let mut tree = good();
    tree["providers"]["vllm"]["credential"] = json!({"header": "a", "prefix": "b", "env": "C"});
    tree["identity"] = json!({"source": "header", "tenant": "x-t", "user": "x-u"});
    tree["request"] = json!({"max_nesting": 64});
    tree["limits"] = json!({"max_nesting": 64, "burst": "x"});
    tree["tiers"]["free"] =
        json!({"models": ["fast"], "burst": "x", "per_user": {"burst": "x"}, "limits": {"burst": "1s"}});
    let mut all = Vec::new();
    pointers(&tree, "", &mut all);
    let wrong = [
        json!(KEY),
        json!([KEY]),
        json!({"hash": KEY}),
        json!({"key": KEY, "expires": KEY}),
        json!([{KEY: "2027-01-31"}]),
        json!([{"hash": "sha256:00", "expires": KEY}]),
        json!({"x": {KEY: 1}}),
    ];
    let mut refused = 0;
    for pointer in &all {
        for wrong in &wrong {
            let mut changed = tree.clone();
            *changed.pointer_mut(pointer).unwrap() = wrong.clone();
            let text = changed.to_string();
            for result in [super::super::from_value(&changed).err(), super::super::from_json(text.as_bytes()).err()] {
                for problem in result.into_iter().flatten() {
                    refused += 1;
                    assert!(!problem.to_string().contains(KEY), "{pointer} = {wrong}: {problem}");
                }
            }
        }
    }
    assert!(refused > 300, "{refused}");
}

#[test]
fn a_choice_that_needs_a_value_or_must_have_none_says_so() {
    let said = |value: Value| problems(&[("/tiers/free/limits", json!({"on_exhausted": value}))]);
    assert_eq!(said(json!("reject")), [""; 0]);
    assert_eq!(
        said(json!("degrade")),
        ["tiers.free.limits.on_exhausted.degrade: \"degrade\" needs a value; write `on_exhausted: {degrade: fast}`"]
    );
    assert_eq!(
        said(json!({"reject": "x"})),
        ["tiers.free.limits.on_exhausted.reject: \"reject\" has no value; write `on_exhausted: reject`"]
    );
}

/// Returns a policy with every section, and a place of each kind.
fn whole() -> Value {
    let hash = |digit: &str| format!("sha256:{}", digit.repeat(64));
    json!({
        "default_task": "chat",
        "identity": {"source": "header", "tenant": "x-tenant", "user": "x-user"},
        "request": {"max_body_bytes": 4096, "set_output_limit": true},
        "resilience": {"retry_on_status": [429, "5xx"], "chunk_timeout": "10s", "backoff_base": "1ms"},
        "cache": {"store": "local", "max_data": "internal", "wait": "1s", "prompt_revisions": {"a@1": 2}},
        "redis": {"cluster": "bridge", "timeout": "50ms"},
        "quota": {"store": "redis", "users": 64, "default_price": {"input": 1, "output": 1}},
        "providers": {
            "vllm": {"dialect": "openai", "local": true, "data": "regulated"},
            "far": {"dialect": "openai", "data": "internal", "base_path": "/v1",
                "credential": {"header": "authorization", "prefix": "Bearer ", "env": "FAR_API_KEY"}},
        },
        "models": {
            "fast": {"provider": "vllm", "model": "m", "level": "local", "context": 8192, "max_output_tokens": 512,
                "price": {"input": 0.1, "output": 0.2}, "max_concurrent": 5, "capabilities": ["tools", "vision"]},
            "large": {"provider": "far", "model": "l", "context": 8192, "max_output_tokens": 512,
                "output_param": "max_tokens", "unsupported_params": ["seed"], "drop_params": true},
        },
        "tasks": {
            "chat": {"primary": "fast", "fallback": ["large"], "max_output_tokens": 100},
            "sum": {"primary": "large", "cache": {"ttl": "1h", "scope": "user"}, "resilience": {"hedge": true}},
        },
        "tiers": {
            "free": {"models": ["fast"], "limits": {"requests_per_minute": 5, "per_user": {"concurrent": 1}}},
            "pro": {"models": ["fast", "large"], "limits": {"budget_usd_per_day": 5, "alert_at": [0.5],
                "degrade_at": 0.9, "on_exhausted": {"degrade": "fast"}, "per_model": {"large": {"concurrent": 2}}}},
        },
        "tenants": {
            "acme": {"tier": "pro", "keys": [hash("0"), {"hash": hash("1"), "expires": "2027-01-31T00:00:00Z"}],
                "limits": {"users": {"ann": {"concurrent": 1}}}},
            "globex": {"tier": "free", "keys": [hash("2")], "data": "public"},
        },
    })
}

fn pointers(node: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match node {
        Value::Object(map) => map.iter().for_each(|(k, v)| pointers(v, &format!("{at}/{}", k.replace('/', "~1")), all)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| pointers(v, &format!("{at}/{i}"), all)),
        _ => {}
    }
}

/// Every place of a policy, removed, misspelt and filled with each kind of value.
#[test]
fn one_mistake_is_one_problem_wherever_it_is_and_no_word_of_a_parser() {
    let whole = whole();
    let from = |tree: &Value| super::super::from_value(tree).err().unwrap_or_default();
    assert_eq!(from(&whole), []);
    let mut all = Vec::new();
    pointers(&whole, "", &mut all);
    let values =
        [json!(null), json!(true), json!(-5), json!(1.5), json!("zzz"), json!(["zzz"]), json!({"zzz": 1}), json!([])];
    let mut many = Vec::new();
    let mut check = |what: String, tree: &Value| {
        let problems = from(tree);
        for problem in &problems {
            let message = problem.to_string();
            let words = ["Option", "variant", "struct", "u64", "u32", "f64", "i32", "tuple", "invalid", "map with"];
            assert!(!words.iter().any(|word| message.contains(word)), "{what}: {message}");
        }
        // This value takes the fields away that must be there.
        if problems.len() > 1 && !what.ends_with("{\"zzz\":1}") {
            let texts: Vec<_> = problems.iter().map(|problem| format!("  {problem}\n")).collect();
            many.push(format!("{what}\n{}", texts.concat()));
        }
    };
    for pointer in all.iter().filter(|pointer| !pointer.is_empty()) {
        for value in &values {
            let mut tree = whole.clone();
            *tree.pointer_mut(pointer).unwrap() = value.clone();
            check(format!("{pointer} = {value}"), &tree);
        }
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        let mut tree = whole.clone();
        if let Some(map) = tree.pointer_mut(parent).unwrap().as_object_mut() {
            let value = map.remove(&last.replace("~1", "/")).unwrap();
            check(format!("{pointer} is missing"), &tree);
            tree.pointer_mut(parent).unwrap()[format!("{last}z")] = value;
            check(format!("{pointer}z"), &tree);
        }
    }
    assert!(many.is_empty(), "{}\n{}", many.len(), many.concat());
}
