//! The model that serves is one that tenant, task, data class and request allow. A request that no model may serve is
//! refused.

use crate::standard::{ask, gateway, scripted};
use pointsman_integration::call::Call;
use pointsman_integration::gateway::Shared;
use pointsman_integration::response::Response;
use serde_json::{Value, json};

fn with(mut request: Value, members: Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

fn without_model(prompt: &str) -> Value {
    json!({"messages": [{"role": "user", "content": prompt}]})
}

fn send(gateway: &Shared, key: &str, request: &Value, headers: &[(&str, &str)]) -> Response {
    let call = headers.iter().fold(Call::chat_json(request).key(key), |call, (name, value)| call.header(name, value));
    gateway.send(call)
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn model_task_and_auto_name_who_serves() {
    let gateway = gateway();
    type Headers = &'static [(&'static str, &'static str)];
    const REASONING: Headers = &[("x-pointsman-task", "reasoning")];
    let metadata = |name: &str| json!({"metadata": {"task": name, "other": "1"}});
    let cases: [(Value, Headers, &str, &str, Value, &str); 12] = [
        (ask("small", "a"), &[], "vllm", "qwen2.5-7b-instruct", Value::Null, "model"),
        (ask("spare", "a"), &[], "ollama", "llama3.2:3b", Value::Null, "model"),
        (ask("extract", "a"), &[], "vllm", "qwen2.5-7b-instruct", json!("extract"), "task"),
        (ask("reasoning", "a"), &[], "openai", "gpt-4.1", json!("reasoning"), "task"),
        (ask("auto", "a"), &[], "vllm", "qwen2.5-7b-instruct", json!("chat"), "default_task"),
        (without_model("a"), &[], "vllm", "qwen2.5-7b-instruct", json!("chat"), "default_task"),
        (without_model("a"), REASONING, "openai", "gpt-4.1", json!("reasoning"), "task"),
        (ask("auto", "a"), REASONING, "openai", "gpt-4.1", json!("reasoning"), "task"),
        (with(ask("auto", "a"), metadata("reasoning")), &[], "openai", "gpt-4.1", json!("reasoning"), "task"),
        (
            with(ask("reasoning", "a"), metadata("reasoning")),
            REASONING,
            "openai",
            "gpt-4.1",
            json!("reasoning"),
            "task",
        ),
        (ask("spare", "a"), REASONING, "ollama", "llama3.2:3b", json!("reasoning"), "model"),
        // `metadata` is the caller's own.
        (
            with(ask("small", "a"), metadata("summarise invoices")),
            &[],
            "vllm",
            "qwen2.5-7b-instruct",
            Value::Null,
            "model",
        ),
    ];
    for (request, headers, provider, model, task, reason) in cases {
        let answer = send(&gateway, "sk-acme", &request, headers);
        assert_eq!(answer.status, 200, "{request}: {}", answer.text());
        let seen = gateway.upstream(&answer);
        assert_eq!((seen.provider, &seen.json()["model"]), (provider, &json!(model)), "{request}");
        let audit = gateway.audit(answer.trace_id());
        assert_eq!((&audit["task"], &audit["route_reason"]), (&task, &json!(reason)), "{request}");
        assert_eq!(answer.header("x-pointsman-provider"), Some(provider));
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_request_that_contradicts_itself_or_names_nothing_known_is_refused() {
    let gateway = gateway();
    let task = |name: &'static str| [("x-pointsman-task", name)];
    let metadata = |name: &str| json!({"metadata": {"task": name}});
    let mark = "refused-by-route";
    for (request, headers, status, code) in [
        (ask("extract", mark), &task("chat")[..], 400, "task_conflict"),
        (with(ask("auto", mark), metadata("extract")), &task("chat"), 400, "task_conflict"),
        (with(ask("extract", mark), metadata("chat")), &[], 400, "task_conflict"),
        (ask("auto", mark), &task("nothing"), 400, "task_not_found"),
        (with(ask("auto", mark), metadata("nothing")), &[], 400, "task_not_found"),
        (with(ask("chat", mark), metadata("nothing")), &[], 400, "task_not_found"),
        (ask("gpt-4.1", mark), &[], 404, "model_not_found"),
        (ask("", mark), &[], 404, "model_not_found"),
        (ask("Small", mark), &[], 404, "model_not_found"),
    ] {
        let answer = send(&gateway, "sk-acme", &request, headers);
        answer.assert_refusal(status, code);
        assert_eq!(gateway.audit(answer.trace_id())["error_code"], code);
    }
    assert!(gateway.simulator.with(mark).is_empty());
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_tier_allows_its_models_and_no_others() {
    let gateway = gateway();
    for model in ["big", "regional", "strict", "hosted"] {
        let answer = gateway.chat("sk-frugal", &ask(model, "beyond-the-tier"));
        answer.assert_refusal(403, "model_not_allowed");
        assert_eq!(answer.param().as_deref(), Some("model"));
    }
    assert!(gateway.simulator.with("beyond-the-tier").is_empty());
    // Of a chain, the models that the tier allows remain.
    let answer = gateway.chat("sk-frugal", &ask("reasoning", "what is left"));
    assert_eq!((answer.status, gateway.upstream(&answer).provider), (200, "vllm"));
    assert_eq!(gateway.audit(answer.trace_id())["plan"], json!(["small"]));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn confidential_data_never_reaches_a_provider_for_less() {
    let gateway = gateway();
    let mark = "confidential-of-the-clinic";
    gateway.simulator.rule("vllm", mark, &json!({"status": 503}));
    gateway.simulator.rule("azure", mark, &json!({"status": 503}));
    // openai may see internal data only, so it is out. azure may see confidential data. Everything that remains fails.
    for (model, status) in [("chat", 503), ("reasoning", 503), ("extract", 200), ("away", 503)] {
        let answer = gateway.chat("sk-clinic", &ask(model, mark));
        assert_eq!(answer.status, status, "{model}: {}", answer.text());
        assert!(gateway.simulator.of(answer.trace_id()).iter().all(|seen| seen.provider != "openai"), "{model}");
        assert_eq!(gateway.audit(answer.trace_id())["data_class"], "confidential");
    }
    for (key, class, model) in [
        ("sk-clinic", None, "big"),
        ("sk-clinic", Some("public"), "big"),
        ("sk-clinic", Some("internal"), "big"),
        ("sk-clinic", Some("regulated"), "regional"),
        ("sk-clinic", Some("regulated"), "hosted"),
        ("sk-acme", Some("confidential"), "big"),
        ("sk-acme", Some("regulated"), "hosted"),
    ] {
        let headers: Vec<_> = class.iter().map(|class| ("x-pointsman-data-class", *class)).collect();
        send(&gateway, key, &ask(model, mark), &headers).assert_refusal(403, "data_class_not_allowed");
    }
    assert!(gateway.simulator.with(mark).iter().all(|seen| seen.provider != "openai"));
    let fine = send(&gateway, "sk-acme", &ask("regional", "fine"), &[("x-pointsman-data-class", "confidential")]);
    assert_eq!(fine.status, 200);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_data_class_is_raised_and_never_lowered() {
    let gateway = gateway();
    for (key, asked, is) in [
        ("sk-acme", "public", "internal"),
        ("sk-acme", "confidential", "confidential"),
        ("sk-clinic", "public", "confidential"),
        ("sk-clinic", "regulated", "regulated"),
    ] {
        let answer = send(&gateway, key, &ask("small", "class"), &[("x-pointsman-data-class", asked)]);
        assert_eq!(gateway.audit(answer.trace_id())["data_class"], is, "{key} {asked}");
    }
    let unknown = send(&gateway, "sk-acme", &ask("small", "class"), &[("x-pointsman-data-class", "secret")]);
    unknown.assert_refusal(400, "invalid_value");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_model_is_not_asked_for_what_it_cannot_do() {
    let gateway = gateway();
    let tools = json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]});
    let schema =
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}});
    let image = json!({"messages": [{"role": "user", "content": [
        {"type": "text", "text": "what is this"}, {"type": "image_url",
        "image_url": {"url": "data:image/png;base64,AAAA"}}]}]});
    for (model, needs, param) in
        [("spare", &tools, "tools"), ("spare", &schema, "response_format"), ("small", &image, "messages")]
    {
        let answer = gateway.chat("sk-acme", &with(ask(model, "a"), needs.clone()));
        answer.assert_refusal(400, "unsupported_capability");
        assert_eq!(answer.param().as_deref(), Some(param));
    }
    // A provider decodes escapes, so the gateway must as well.
    let escaped = with(ask("small", "a"), image.clone()).to_string().replace("image_url", "image\\u005furl");
    let answer = gateway.send(Call::chat(escaped).key("sk-acme"));
    answer.assert_refusal(400, "unsupported_capability");
    assert!(answer.text().contains("supports images"), "{}", answer.text());
    for (model, needs, provider) in [("small", &tools, "vllm"), ("small", &schema, "vllm"), ("chat", &image, "openai")]
    {
        let answer = gateway.chat("sk-acme", &with(ask(model, "a"), needs.clone()));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(gateway.upstream(&answer).provider, provider);
    }
    // The same on fallback: spare, next in the chain, is left out.
    let answer = gateway.chat("sk-acme", &with(ask("extract", "a"), tools));
    assert_eq!(gateway.audit(answer.trace_id())["plan"], json!(["small", "big"]));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_field_that_a_model_does_not_take_is_refused_or_dropped_as_the_policy_says() {
    let gateway = gateway();
    let seed = json!({"seed": 7, "temperature": 0.50});
    let refused = gateway.chat("sk-acme", &with(ask("strict", "a"), seed.clone()));
    refused.assert_refusal(400, "unsupported_parameter");
    assert_eq!(refused.param().as_deref(), Some("seed"));
    let fine = gateway.chat("sk-acme", &with(ask("strict", "a"), json!({"temperature": 0.5})));
    assert_eq!(fine.status, 200);
    let dropped = gateway.chat("sk-acme", &with(ask("spare", "a"), seed.clone()));
    let body = gateway.upstream(&dropped).json();
    assert_eq!((body.get("seed"), &body["temperature"]), (None, &json!(0.5)));
    // The first model of the plan accepts the field, the second does not.
    let mark = "dropped-on-fallback";
    gateway.simulator.rule("vllm", mark, &json!({"status": 503}));
    let answer = gateway.chat("sk-acme", &with(ask("two-local", mark), seed));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = gateway.simulator.of(answer.trace_id());
    let seeds: Vec<_> = seen.iter().map(|seen| (seen.provider, seen.json().get("seed").cloned())).collect();
    assert_eq!(seeds, [("vllm", Some(json!(7))), ("ollama", None)]);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_output_limit_is_lowered_to_the_policys_and_goes_by_the_models_name_for_it() {
    let gateway = gateway();
    for (model, asked, sent) in [
        ("small", json!({}), json!({})),
        ("small", json!({"max_tokens": 512}), json!({"max_tokens": 512})),
        ("small", json!({"max_tokens": 513}), json!({"max_tokens": 512})),
        ("small", json!({"max_completion_tokens": 9999}), json!({"max_completion_tokens": 512})),
        ("extract", json!({"max_tokens": 257}), json!({"max_tokens": 256})),
        ("strict", json!({"max_tokens": 50}), json!({"max_completion_tokens": 50})),
        ("strict", json!({"max_tokens": 5000}), json!({"max_completion_tokens": 300})),
        ("spare", json!({"max_completion_tokens": 50}), json!({"max_tokens": 50})),
    ] {
        let answer = gateway.chat("sk-acme", &with(ask(model, "limits"), asked.clone()));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body = gateway.upstream(&answer).json();
        for name in ["max_tokens", "max_completion_tokens"] {
            assert_eq!(body.get(name), sent.get(name), "{model} {asked} {name}");
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_prompt_longer_than_a_context_window_goes_to_a_model_with_a_longer_one() {
    let gateway = gateway();
    let long = "word ".repeat(10_000);
    let refused = gateway.chat("sk-acme", &ask("spare", &long));
    refused.assert_refusal(400, "context_length_exceeded");
    let document = refused.json();
    let message = document["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("This model's maximum context length is 1024 tokens. However, your messages "),
        "{message}"
    );
    let answer = gateway.chat("sk-acme", &ask("two-local", &long));
    assert_eq!(answer.status, 200);
    assert_eq!(gateway.audit(answer.trace_id())["plan"], json!(["small"]));
    // Its counterpart, which fits.
    assert_eq!(gateway.chat("sk-acme", &scripted("spare", &json!({"content": "short"}))).status, 200);
}
