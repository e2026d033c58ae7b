//! Each suspicious setting has its exact message, and its neighbour, which is fine, has none.

use super::*;
use crate::fixture::{document, hash};
use crate::policy::parse::from_value;
use serde_json::{Value, json};

/// Returns the warnings about the fixture with these values put at these pointers.
#[track_caller]
fn with(changes: &[(&str, Value)]) -> Vec<String> {
    let mut policy = document();
    for (pointer, value) in changes {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let parent = policy.pointer_mut(parent).unwrap();
        parent.as_object_mut().unwrap().insert(name.to_owned(), value.clone());
    }
    let (config, policy) = from_value(&policy).unwrap_or_else(|problems| panic!("{problems:?}"));
    warnings(&config, &policy).iter().map(Problem::to_string).collect()
}

#[track_caller]
fn one(changes: &[(&str, Value)], warning: &str) {
    assert_eq!(with(changes), [warning]);
}

#[track_caller]
fn none(changes: &[(&str, Value)]) {
    assert_eq!(with(changes), [""; 0]);
}

#[test]
fn the_fixture_is_not_suspicious() {
    none(&[]);
}

#[test]
fn an_output_limit_that_leaves_no_room_for_a_prompt() {
    none(&[("/models/small/max_output_tokens", json!(999))]);
    one(
        &[("/models/small/max_output_tokens", json!(1000))],
        "models.small.max_output_tokens: 1000 is the model's whole context, which prompt and output share; no prompt \
         would fit",
    );
    one(
        &[("/models/small/max_output_tokens", json!(4096))],
        "models.small.max_output_tokens: 4096 is above the model's context of 1000 tokens, which prompt and output \
         share",
    );
    none(&[("/tasks/chat/max_output_tokens", json!(1000))]);
    one(
        &[("/tasks/chat/max_output_tokens", json!(1001))],
        "tasks.chat.max_output_tokens: 1001 has no effect: the models of the task have 1000 at most",
    );
}

#[test]
fn a_timer_that_is_never_reached() {
    none(&[("/resilience", json!({"request_timeout": "121s"}))]);
    one(
        &[("/resilience", json!({"request_timeout": "2m"}))],
        "resilience.request_timeout: 2m ends a request before attempt_timeout (2m) can, so a slow model is not \
         followed by the next one",
    );
    one(
        &[(
            "/resilience",
            json!({"first_token_timeout": "90s", "attempt_timeout": "80s", "request_timeout": "90s",
            "chunk_timeout": "89s"}),
        )],
        "resilience.first_token_timeout: 1m 30s is never reached: request_timeout (1m 30s) ends a request before, so a \
         slow model is not followed by the next one",
    );
    one(
        &[("/resilience", json!({"chunk_timeout": "20m"}))],
        "resilience.chunk_timeout: 20m is never reached: request_timeout (10m) ends a request before",
    );
    none(&[("/resilience", json!({"chunk_timeout": "30s"}))]);
    one(
        &[("/resilience", json!({"chunk_timeout": "10s"}))],
        "resilience.chunk_timeout: 10s is below first_token_timeout (30s), and Envoy has one idle timer for both: a \
         stream may be silent for 31s",
    );
    let of_task = |resilience: Value| vec![("/tasks/chat/resilience", resilience)];
    none(&of_task(json!({"request_timeout": "3m", "hedge": true})));
    one(
        &of_task(json!({"attempt_timeout": "10m"})),
        "tasks.chat.resilience.attempt_timeout: 10m is never reached: request_timeout (10m) ends a request before, so \
         a slow model is not followed by the next one",
    );
    one(
        &of_task(json!({"request_timeout": "1m"})),
        "tasks.chat.resilience.request_timeout: 1m ends a request before attempt_timeout (2m) can, so a slow model is \
         not followed by the next one",
    );
    none(&[("/tasks/chat/fallback", json!([])), ("/tasks/chat/resilience", json!({"request_timeout": "1m"}))]);
    let cached = [
        ("/tasks/chat/cache", json!({"ttl": "1h"})),
        ("/tasks/chat/resilience", json!({"request_timeout": "3m"})),
        ("/cache", json!({"wait": "3m"})),
    ];
    one(
        &cached,
        "tasks.chat.resilience.request_timeout: 3m is not above cache.wait (3m): a request that waits for an identical \
         one ends before it can go to a model",
    );
    none(&cached[1..]);
    one(
        &[("/tasks/chat/fallback", json!([])), ("/tasks/chat/resilience", json!({"hedge": true}))],
        "tasks.chat.resilience.hedge: has no effect on a task without `fallback`",
    );
}

#[test]
fn a_stream_without_usage_from_which_no_whole_response_is_assembled() {
    let streams = ("/tasks/chat/stream_upstream", json!(true));
    none(std::slice::from_ref(&streams));
    let refuses = ("/models/small/unsupported_params", json!(["stream_options"]));
    none(std::slice::from_ref(&refuses));
    one(
        &[streams, refuses],
        "tasks.chat.stream_upstream: has no effect with the model \"small\", which does not accept `stream_options`: \
         its streams have no usage",
    );
}

#[test]
fn a_limit_that_another_one_always_precedes() {
    let price = ("/quota", json!({"default_price": {"input": 1, "output": 1}}));
    let of_tier = |limits: Value| vec![price.clone(), ("/tiers/pro/limits", limits)];
    none(&of_tier(json!({"budget_usd_per_day": 5, "budget_usd_per_month": 5})));
    one(
        &of_tier(json!({"budget_usd_per_day": 5.5, "budget_usd_per_month": 5})),
        "tiers.pro.limits.budget_usd_per_day: \"budget_usd_per_day\" of 5.5 USD is never reached: \
         \"budget_usd_per_month\" ends at 5 USD",
    );
    one(
        &of_tier(json!({"per_user": {"tokens_per_minute": 20, "tokens_per_day": 10}})),
        "tiers.pro.limits.per_user.tokens_per_minute: \"tokens_per_minute\" of 20 tokens is never reached: \
         \"tokens_per_day\" ends at 10 tokens",
    );
    let mut inherited = of_tier(json!({"budget_usd_per_day": 5, "per_user": {"budget_usd_per_day": 2}}));
    inherited.push(("/tenants/acme/limits", json!({"users": {"u": {"budget_usd_per_month": 1}}})));
    one(
        &inherited,
        "tenants.acme.limits.users.u.budget_usd_per_month: \"budget_usd_per_day\" of 2 USD is never reached: \
         \"budget_usd_per_month\" ends at 1 USD",
    );
}

#[test]
fn what_no_request_can_use() {
    one(
        &[("/providers/spare", json!({"dialect": "openai", "data": "public"}))],
        "providers.spare: no model has this provider, so it is never used",
    );
    let model = json!({"provider": "local", "model": "x", "context": 10, "max_output_tokens": 5});
    one(&[("/models/spare", model.clone())], "models.spare: no tier lists this model, so no tenant can use it");
    assert_eq!(
        with(&[("/models/spare", model), ("/tasks/odd", json!({"primary": "spare"}))]),
        [
            "models.spare: no tier lists this model, so no tenant can use it",
            "tasks.odd: no tier lists a model of this task, so no tenant can use it",
        ]
    );
    one(&[("/tiers/gold", json!({"models": ["big"]}))], "tiers.gold: no tenant has this tier");
    one(
        &[("/tenants/new", json!({"tier": "free"}))],
        "tenants.new: has no key, so no request can come from it; add `keys`",
    );
    let by_header = ("/identity", json!({"source": "header", "tenant": "x-tenant"}));
    let named = |keys: Value| {
        let tenants = json!({"acme": {"tier": "pro", "keys": keys}, "guest": {"tier": "free"}});
        with(&[by_header.clone(), ("/tenants", tenants)])
    };
    assert_eq!(named(json!([])), [""; 0]);
    assert_eq!(
        named(json!([hash("sk-acme")])),
        ["tenants.acme: its keys are not used: a header names the tenant (`identity`)"]
    );
}

#[test]
fn a_price_or_a_window_unlike_that_of_a_well_known_model() {
    let known = |price: Value, context: u64| {
        vec![
            ("/models/big/model", json!("gpt-4.1")),
            ("/models/big/price", price),
            ("/models/big/context", json!(context)),
        ]
    };
    none(&known(json!({"input": 0.21, "output": 79}), 1_047_576));
    one(
        &known(json!({"input": 0.002, "output": 8}), 1_000_000),
        "models.big.price.input: 0.002 is far from the list price of gpt-4.1, 2; prices are in USD per million tokens",
    );
    one(
        &known(json!({"input": 2, "output": 0}), 1_000_000),
        "models.big.price.output: 0 is far from the list price of gpt-4.1, 8; prices are in USD per million tokens",
    );
    one(
        &known(json!({"input": 2, "output": 8}), 2_000_000),
        "models.big.context: 2000000 is above the context of gpt-4.1, 1047576 tokens",
    );
    let tier = |input: f64, output: f64| {
        known(json!({"input": 2, "output": 8, "tiers": {"priority": {"input": input, "output": output}}}), 1_000_000)
    };
    none(&tier(19.0, 0.9));
    one(
        &tier(3.5, 0.000_035),
        "models.big.price.tiers.priority.output: 0.000035 is far from the price outside `tiers`, 8; prices are in USD \
         per million tokens",
    );
    assert_eq!(with(&tier(0.0, 0.0)).len(), 2);
    assert_eq!(with(&tier(21.0, 81.0)).len(), 2);
    let mut local = known(json!({"input": 0, "output": 0}), 2_000_000);
    local.push(("/models/big/provider", json!("local")));
    none(&local);
}

#[test]
fn the_former_name_of_a_models_level() {
    let model = |field: &str| {
        let mut model = document()["models"]["small"].clone();
        let fields = model.as_object_mut().unwrap();
        fields.remove("level");
        fields.remove("tier");
        fields.insert(field.to_owned(), json!("mid"));
        model
    };
    none(&[("/models/small", model("level"))]);
    one(&[("/models/small", model("tier"))], "models.small.tier: a former name; call it `level`");
}

#[test]
fn a_capability_that_the_price_does_not_cover_under_a_budget() {
    let budget = ("/tiers/pro/limits", json!({"budget_usd_per_day": 5}));
    let lists = |listed: &[&str]| ("/models/big/capabilities", json!(listed));
    let priced = json!({"input": 2, "output": 8, "audio_input": 4, "audio_output": 9, "web_search": 10});
    // Another model of the tier needs a price too.
    let other = ("/quota", json!({"default_price": {"input": 1, "output": 1}}));
    none(&[budget.clone(), other.clone(), lists(&["tools", "vision", "files"])]);
    none(&[budget.clone(), other.clone(), ("/models/big/price", priced), lists(&["audio", "web_search"])]);
    for (listed, warning) in [
        (
            "audio",
            "`audio` needs `audio_input` and `audio_output` in the price: under a budget, requests for audio \
                 without them are refused",
        ),
        (
            "web_search",
            "`web_search` needs `web_search` in the price: under a budget, requests for a search are refused",
        ),
        (
            "other",
            "`other` lets through what no price covers: a budget is charged for its tokens alone, whatever the \
             provider charges",
        ),
        (
            "routing",
            "`routing` lets the provider choose another model: a budget is charged this model's price, whatever the \
             provider charges",
        ),
    ] {
        none(&[lists(&[listed])]);
        one(&[budget.clone(), other.clone(), lists(&[listed])], &format!("models.big.capabilities: {warning}"));
        none(&[
            budget.clone(),
            other.clone(),
            lists(&[listed]),
            ("/models/big/price", json!({"input": 0, "output": 0})),
        ]);
    }
}
