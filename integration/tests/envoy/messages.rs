//! Anthropic's Messages reach a provider that speaks them as the caller wrote them, and what holds for chat holds for
//! them.

use crate::clients::say;
use pointsman_integration::call::Call;
use pointsman_integration::environment;
use pointsman_integration::gateway::{AZURE_SECRET, Gateway, OPENAI_SECRET, Shared};
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::sync::LazyLock;

fn gateway() -> Shared {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| Gateway::start(include_str!("messages.yaml")));
    Shared::of(&GATEWAY)
}

const VERSION: &str = "2023-06-01";

/// Returns a request that makes the provider behave like this.
fn ask(model: &str, behavior: &Value) -> Value {
    json!({"model": model, "max_tokens": 1024, "messages": [
        {"role": "user", "content": format!("[[sim:{behavior}]]")}]})
}

fn call(body: impl Into<Vec<u8>>) -> Call {
    Call::new("POST", "/v1/messages?beta=true")
        .header("content-type", "application/json")
        .header("x-api-key", "sk-acme")
        .header("anthropic-version", VERSION)
        .body(body)
}

fn send(request: &Value) -> Response {
    gateway().send(call(request.to_string()))
}

fn stream(mut request: Value) -> Response {
    request["stream"] = true.into();
    send(&request)
}

/// Checks that an answer is an error in Anthropic's form.
#[track_caller]
fn assert_error(answer: &Response, status: u16, kind: &str, code: &str) {
    let body = answer.json();
    assert_eq!((answer.status, &body["type"]), (status, &json!("error")), "{body}");
    assert_eq!((&body["error"]["type"], &body["error"]["code"]), (&json!(kind), &json!(code)), "{body}");
    assert_eq!(body["request_id"], answer.trace_id(), "{body}");
    assert_eq!(answer.header("request-id"), Some(answer.trace_id()));
}

/// Returns the text of a stream.
fn text(answer: &Response) -> String {
    let deltas = answer.events();
    let text = |event: &String| {
        let event: Value = serde_json::from_str(event).unwrap();
        event["delta"]["text"].as_str().unwrap_or_default().to_owned()
    };
    deltas.iter().map(text).collect()
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn anthropics_client_works() {
    let gateway = gateway();
    let (passed, said) = say(&gateway, &environment::path("POINTSMAN_PYTHON"), "python/anthropic_cases.py");
    assert!(passed && said.lines().filter(|line| line.starts_with("ok ")).count() == 7, "{said}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_request_passes_byte_for_byte_but_for_its_head() {
    let gateway = gateway();
    // Members, blocks and an order that no gateway has heard of; spaces, escapes and numbers as they are.
    let rest = r#" "max_tokens" : 1024, "system":[{"type":"text","text":"x-anthropic-billing-header: a",
        "cache_control":{"type":"ephemeral","ttl":"1h"}}],
        "messages": [{"role":"user","content":[{"type":"text","text":"caf\u00e9 [[sim:{\"content\":\"ok\"}]]"},
        {"type":"new_block","x":1e2}]},
        {"role":"assistant","content":[{"type":"text","text":"t\/"}]},{"role":"system","content":"s"}],
        "context_management":{"edits":[]},"future":{"a":[1.0,2.50]},"tools":[{"name":"f","input_schema":{"type":"object"}}]}"#;
    let body = format!("{{\"model\":\"local\",{rest}");
    let answer =
        gateway.send(call(&*body).header("anthropic-beta", "claude-code-20250219,context-1m").header("x-app", "cli"));
    let seen = gateway.simulator.only(answer.trace_id());
    assert_eq!(answer.status, 200, "{}", answer.text());
    // The limit of the model is lower.
    let lowered = rest.trim_start().strip_prefix("\"max_tokens\" : 1024,").unwrap();
    assert_eq!(seen.text(), format!("{{\"model\":\"qwen\",\"max_tokens\":512,{lowered}"));
    assert_eq!((seen.path.as_str(), seen.header("anthropic-version")), ("/v1/messages", Some(VERSION)));
    assert_eq!(seen.header("anthropic-beta"), Some("claude-code-20250219,context-1m"));
    for name in ["x-app", "x-api-key", "authorization"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    let version =
        gateway.send(Call::new("POST", "/v1/messages").key("sk-acme").body(ask("local", &json!({})).to_string()));
    assert_eq!(gateway.upstream(&version).header("anthropic-version"), Some(VERSION));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_answer_passes_as_the_provider_sent_it() {
    let behavior = json!({"reasoning": "Let me see.", "tool_calls": [{"name": "f", "arguments": {"b": 1, "a": [2]}}],
        "content": "Well", "cached_tokens": 5});
    let whole = send(&ask("claude", &behavior));
    assert_eq!((whole.status, whole.header("x-pointsman-model")), (200, Some("claude")), "{}", whole.text());
    let document = whole.json();
    assert_eq!((&document["type"], &document["model"]), (&json!("message"), &json!("claude-opus-4")));
    let kinds: Vec<_> = document["content"].as_array().unwrap().iter().map(|block| block["type"].clone()).collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use"]);
    assert_eq!(whole.header("request-id"), Some(whole.trace_id()));

    let streamed = stream(ask("claude", &behavior));
    assert_eq!(streamed.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let first: Value = serde_json::from_str(&streamed.events()[0]).unwrap();
    assert_eq!((&first["type"], &first["message"]["model"]), (&json!("message_start"), &json!("claude-opus-4")));
    assert!(
        streamed.text().contains("event: content_block_start\ndata: ") && streamed.text().contains("event: ping\n")
    );
    assert!(streamed.text().trim_end().ends_with("data: {\"type\":\"message_stop\"}"), "{}", streamed.text());
    assert_eq!(text(&streamed), "Well");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn usage_is_counted_once_whole_or_streamed() {
    let gateway = gateway();
    let usage = json!({"input_tokens": 1000, "cache_read_input_tokens": 2000, "cache_creation_input_tokens": 400,
        "output_tokens": 100});
    for streamed in [false, true] {
        let mut request = ask("claude", &json!({"content": "hello", "usage": usage}));
        request["stream"] = streamed.into();
        request["metadata"] = json!({"user_id": "ann"});
        let answer = send(&request);
        let audit = gateway.audit(answer.trace_id());
        let said =
            ["input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens"].map(|name| &audit[name]);
        assert_eq!(said, [&json!(3400), &json!(2000), &json!(400), &json!(100)], "{audit}");
        // 1000 × 10 + 2000 × 1 + 400 × 12.5 + 100 × 50, per million.
        assert_eq!(audit["estimated_cost_usd"], json!(0.022), "{audit}");
        assert_eq!((&audit["endpoint"], &audit["provider"]), (&json!("messages"), &json!("openai")), "{audit}");
        assert!(audit["user_id_hash"].is_string() && audit["usage_estimated"] != true, "{audit}");
        assert!(answer.header("anthropic-ratelimit-requests-limit") == Some("100000"), "{:?}", answer.headers);
        let reset = answer.header("anthropic-ratelimit-tokens-reset").unwrap();
        assert!(reset.ends_with('Z') && reset.contains('T'), "{reset}");
        assert_eq!(answer.header("x-ratelimit-limit-requests"), None);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn refusals_have_anthropics_form() {
    let gateway = gateway();
    let good = ask("claude", &json!({}));
    let post =
        |key: &str, body: &str| gateway.send(Call::new("POST", "/v1/messages").header("x-api-key", key).body(body));
    assert_error(&post("sk-nobody", &good.to_string()), 401, "authentication_error", "invalid_api_key");
    assert_error(&post("sk-acme", "{"), 400, "invalid_request_error", "invalid_json");
    assert_error(&send(&ask("nothing", &json!({}))), 404, "not_found_error", "model_not_found");
    assert_error(&send(&ask("chat-only", &json!({}))), 400, "invalid_request_error", "unsupported_api");
    let mut request = good.clone();
    request.as_object_mut().unwrap().remove("max_tokens");
    assert_error(&send(&request), 400, "invalid_request_error", "missing_required_parameter");
    request = ask("claude", &json!({}));
    request["tools"] = json!([{"type": "web_search_20250305", "name": "web_search"}]);
    assert_error(&send(&request), 400, "invalid_request_error", "unsupported_capability");
    let poor = post("sk-poor", &ask("claude", &json!({})).to_string());
    assert_error(&poor, 429, "rate_limit_error", "insufficient_quota");
    let method = gateway.send(Call::new("GET", "/v1/messages").key("sk-acme"));
    assert_error(&method, 405, "invalid_request_error", "method_not_allowed");
    // A model of Anthropic's API alone is none for chat.
    let chat = gateway.chat("sk-acme", &json!({"model": "claude", "messages": [{"role": "user", "content": "x"}]}));
    chat.assert_refusal(400, "unsupported_api");
    // A task whose chain has both kinds serves each.
    let answer = send(&ask("mixed", &json!({})));
    assert_eq!((answer.status, answer.header("x-pointsman-model")), (200, Some("local")), "{}", answer.text());
    let audit = gateway.audit(answer.trace_id());
    assert_eq!(audit["left_out"], json!([{"model": "chat-only", "reason": "dialect"}]), "{audit}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_next_model_serves_if_one_fails_before_its_first_content() {
    let gateway = gateway();
    for (mark, respond) in [
        ("busy-status", json!({"status": 529})),
        ("busy-event", json!({"fault": {"error_event": {"after_chunks": 0}}})),
        ("busy-after-head", json!({"fault": {"error_event": {"after_chunks": 0, "after_head": true}}})),
        ("cut-after-head", json!({"fault": {"close_mid_stream": {"after_chunks": 0, "after_head": true}}})),
        ("limited", json!({"status": 429})),
        ("refused", json!({"status": 401})),
    ] {
        gateway.simulator.rule("openai", mark, &respond);
        let mut request = ask("ask", &json!({"content": "served"}));
        request["stream"] = true.into();
        request["system"] = mark.into();
        let answer = gateway.send(call(request.to_string()).header("anthropic-beta", "b"));
        assert_eq!((answer.status, text(&answer).as_str()), (200, "served"), "{mark}: {}", answer.text());
        assert_eq!(answer.header("x-pointsman-model"), Some("backup"), "{mark}");
        let seen = gateway.simulator.of(answer.trace_id());
        let of = |provider: &str| seen.iter().find(|seen| seen.provider == provider).unwrap();
        let (first, second) = (of("openai"), of("azure"));
        assert_eq!((first.header("x-api-key"), first.header("authorization")), (Some(OPENAI_SECRET), None), "{mark}");
        let bearer = format!("Bearer {AZURE_SECRET}");
        assert_eq!((second.header("x-api-key"), second.header("authorization")), (None, Some(&*bearer)), "{mark}");
        assert_eq!((second.path.as_str(), second.header("anthropic-beta")), ("/anthropic/v1/messages", Some("b")));
        // Its own limit is lower.
        assert_eq!((&second.json()["model"], &second.json()["max_tokens"]), (&json!("claude-backup"), &json!(1000)));
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_stream_that_breaks_off_ends_with_an_error_event() {
    let gateway = gateway();
    for fault in [
        json!("no_done"),
        json!({"truncate_event": {"after_chunks": 2}}),
        json!({"error_event": {"after_chunks": 2}}),
        json!({"malformed_json": {"after_chunks": 2}}),
    ] {
        let answer = stream(ask("claude", &json!({"chunks": 4, "fault": fault})));
        assert_eq!(answer.status, 200, "{fault}");
        let events = answer.events();
        let last: Value = serde_json::from_str(events.last().unwrap()).unwrap();
        assert_eq!(last["type"], "error", "{fault}: {}", answer.text());
        assert_eq!(last["error"]["type"], "api_error", "{fault}");
        assert!(!answer.text().contains("message_stop"), "{fault}: {}", answer.text());
        let audit = gateway.audit(answer.trace_id());
        assert!(audit["error_code"].as_str().is_some_and(|code| code.starts_with("stream_")), "{audit}");
        assert!(audit["output_tokens"].as_u64() > Some(0), "{audit}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_providers_refusal_keeps_its_words() {
    let gateway = gateway();
    let words = "Input tag 'memory_20250818' found using 'type' does not match any of the expected tags";
    let error = json!({"type": "error", "error": {"type": "invalid_request_error", "message": words}});
    let answer = send(&ask("claude", &json!({"status": 400, "json": error})));
    assert_error(&answer, 400, "invalid_request_error", "provider_rejected_request");
    assert_eq!(answer.json()["error"]["message"], words);
    let long = "prompt is too long: 210000 tokens > 200000 maximum";
    let error = json!({"type": "error", "error": {"type": "invalid_request_error", "message": long}});
    let answer = send(&ask("claude", &json!({"status": 400, "json": error})));
    assert_error(&answer, 400, "invalid_request_error", "context_length_exceeded");
    assert_eq!(answer.json()["error"]["message"], long);
    let answer = send(&ask("claude", &json!({"status": 529})));
    assert_error(&answer, 529, "overloaded_error", "provider_unavailable");
    let answer = send(&ask("claude", &json!({"status": 500})));
    assert_error(&answer, 500, "api_error", "provider_error");
    assert!(gateway.stat("cluster.openai.outlier_detection.ejections_active") == 0);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn counting_tokens_is_a_request_that_costs_nothing() {
    let gateway = gateway();
    let body = json!({"model": "claude", "messages": [{"role": "user", "content": "How many?"}]});
    let count_as = |key: &str, body: &Value| {
        let call = Call::new("POST", "/v1/messages/count_tokens").header("x-api-key", key);
        gateway.send(call.header("anthropic-version", VERSION).body(body.to_string()))
    };
    let count = |body: &Value| count_as("sk-counted", body);
    let answer = count(&body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.json()["input_tokens"].as_u64() > Some(0), "{}", answer.text());
    let seen = gateway.upstream(&answer);
    assert_eq!((seen.path.as_str(), &seen.json()["model"]), ("/v1/messages/count_tokens", &json!("claude-opus-4")));
    let audit = gateway.audit(answer.trace_id());
    assert_eq!((&audit["endpoint"], &audit["input_tokens"]), (&json!("count_tokens"), &json!(0)), "{audit}");
    assert_eq!(audit["estimated_cost_usd"], json!(0.0), "{audit}");
    let usage = gateway.send(Call::new("GET", "/v1/usage").key("sk-counted")).json();
    let used = |window: &str| {
        let all = usage["tenant"]["windows"].as_array().or(usage["windows"].as_array()).cloned().unwrap_or_default();
        all.iter().find(|one| one["window"] == window).map(|one| one["used"].clone())
    };
    assert_eq!(used("tokens_per_day"), Some(json!(0)), "{usage}");
    // Limits on tokens refuse the same prompt only where it is to be answered.
    let mut long = ask("claude", &json!({"content": "a long prompt for a small limit ".repeat(10)}));
    assert_eq!(count_as("sk-tiny", &long).status, 200);
    long["max_tokens"] = 1.into();
    let refused = gateway.send(Call::new("POST", "/v1/messages").header("x-api-key", "sk-tiny").body(long.to_string()));
    assert_error(&refused, 400, "invalid_request_error", "context_length_exceeded");
    assert_error(&count(&json!({"model": "claude"})), 400, "invalid_request_error", "missing_required_parameter");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_list_of_models_is_in_the_form_that_the_caller_asks_for() {
    let gateway = gateway();
    let list = gateway.send(
        Call::new("GET", "/v1/models?limit=1000").header("x-api-key", "sk-acme").header("anthropic-version", VERSION),
    );
    let ids: Vec<Value> = list.json()["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(ids, ["ask", "kept", "mixed", "backup", "claude", "local"]);
    assert_eq!((&list.json()["has_more"], &list.json()["first_id"]), (&json!(false), &json!("ask")));
    assert_eq!(list.json()["data"][4]["display_name"], "claude");
    let one = gateway.send(Call::new("GET", "/v1/models/claude").key("sk-acme").header("anthropic-version", VERSION));
    assert_eq!((one.status, &one.json()["type"]), (200, &json!("model")));
    let none =
        gateway.send(Call::new("GET", "/v1/models/chat-only").key("sk-acme").header("anthropic-version", VERSION));
    assert_error(&none, 404, "not_found_error", "model_not_found");
    let openai = gateway.send(Call::new("GET", "/v1/models").key("sk-acme")).json();
    assert_eq!((&openai["object"], openai["data"].as_array().map(Vec::len)), (&json!("list"), Some(7)));
    let probe = gateway.send(Call::new("HEAD", "/"));
    assert_eq!((probe.status, probe.text()), (200, ""));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_kept_answer_serves_whole_and_streamed_and_each_beta_has_its_own() {
    let gateway = gateway();
    let behavior =
        json!({"reasoning": "Hm.", "content": "cached-messages", "tool_calls": [{"name": "f", "arguments": {"b": 1}}]});
    let ask = |streamed: bool, beta: Option<&str>| {
        let mut request = ask("kept", &behavior);
        request["stream"] = streamed.into();
        let call = call(request.to_string());
        let answer = gateway.send(match beta {
            Some(beta) => call.header("anthropic-beta", beta),
            None => call,
        });
        let cached = answer.header("x-pointsman-cache").unwrap_or_default().to_owned();
        (answer, cached)
    };
    let (first, cached) = ask(true, None);
    assert_eq!(cached, "miss", "{}", first.text());
    let (whole, cached) = ask(false, None);
    assert_eq!(cached, "hit", "{}", whole.text());
    let kinds: Vec<_> = whole.json()["content"].as_array().unwrap().iter().map(|block| block["type"].clone()).collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use"]);
    assert_eq!(
        (&whole.json()["content"][2]["input"], &whole.json()["stop_reason"]),
        (&json!({"b": 1}), &json!("tool_use"))
    );
    let (again, cached) = ask(true, None);
    assert_eq!((cached.as_str(), text(&again).as_str()), ("hit", "cached-messages"));
    assert!(again.text().ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
    assert_eq!(ask(false, Some("other")).1, "miss");
    assert_eq!(ask(false, Some("other")).1, "hit");
}
