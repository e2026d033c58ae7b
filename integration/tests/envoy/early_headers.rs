//! With `early_headers`, a stream's headers and comments reach the caller before the first event, and what comes after
//! the headers can no longer lead to the next model. What comes before them still does.

use crate::standard::ask;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, Shared};
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::sync::LazyLock;

fn gateway() -> Shared {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| Gateway::start(include_str!("early_headers.yaml")));
    Shared::of(&GATEWAY)
}

const COMMENTS: &str = ": PROCESSING\n\n: PROCESSING\n\n: PROCESSING\n\n";

/// Returns the behavior of a provider that streams exactly this, in pieces.
fn streams(text: &str) -> Value {
    json!({"body": text, "content_type": "text/event-stream", "split": {"bytes": 16, "ms": 30}})
}

fn request(task: &str, mark: &str) -> Value {
    let mut request = ask(task, mark);
    request["stream"] = true.into();
    request
}

/// Asks `task` for a stream, to which the provider of the first model answers like this. Returns also the providers
/// that were asked.
fn answer(gateway: &Gateway, task: &str, mark: &str, behavior: &Value) -> (Response, Vec<&'static str>) {
    gateway.simulator.rule("vllm", mark, behavior);
    let answer = gateway.chat("sk-acme", &request(task, mark));
    let asked = gateway.simulator.of(answer.trace_id()).iter().map(|seen| seen.provider).collect();
    (answer, asked)
}

fn reserved(gateway: &Gateway) -> u64 {
    let usage = gateway.send(Call::new("GET", "/v1/usage").key("sk-acme")).json();
    usage["windows"].as_array().expect("a list").iter().map(|w| w["reserved"].as_u64().unwrap_or(0)).sum()
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn headers_and_comments_reach_the_caller_while_the_model_thinks() {
    let gateway = gateway();
    for http2 in [false, true] {
        let mark = format!("early-thinks-{http2}");
        // It never sends an event.
        let thinks = json!({"body": COMMENTS, "content_type": "text/event-stream", "end_ms": 600_000});
        gateway.simulator.rule("vllm", &mark, &thinks);
        let call = Call::chat_json(&request("early", &mark)).key("sk-acme");
        let mut open = if http2 { call.http2() } else { call }.open(gateway.address);
        assert_eq!((open.status, open.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!(open.header("x-pointsman-model"), Some("first"));
        let trace_id = open.trace_id();
        assert!(!open.read_until(": PROCESSING").contains("data:"));
        drop(open);
        // A caller that leaves then is charged for its prompt, as one that leaves before the headers.
        let audit = gateway.audit(&trace_id);
        assert_eq!((&audit["error_code"], &audit["status"]), (&json!("client_disconnected"), &json!(499)), "{audit}");
        assert!(audit["input_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{audit}");
        assert_eq!(audit["time_to_first_token_ms"], Value::Null);
    }
    await_true("everything to be settled", || reserved(&gateway) == 0);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn tokens_follow_the_comments() {
    let gateway = gateway();
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}]});
    let last = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}});
    let text = format!("{COMMENTS}data: {chunk}\n\ndata: {last}\n\ndata: {usage}\n\ndata: [DONE]\n\n");
    let (got, asked) = answer(&gateway, "early", "early-tokens", &streams(&text));
    assert_eq!((got.status, &*asked), (200, &["vllm"][..]));
    assert!(got.text().starts_with(COMMENTS) && got.complete, "{}", got.text());
    assert_eq!((&*got.streamed_text(), got.events().last().map(String::as_str)), ("Hi", Some("[DONE]")));
    let audit = gateway.audit(got.trace_id());
    assert_eq!((&audit["output_tokens"], &audit["error_code"]), (&json!(1), &Value::Null), "{audit}");
    // It is kept as any other answer.
    answer(&gateway, "kept", "early-kept", &streams(&text));
    let (hit, asked) = answer(&gateway, "kept", "early-kept", &streams(&text));
    assert_eq!((hit.header("x-pointsman-cache"), &*hit.streamed_text(), asked.len()), (Some("hit"), "Hi", 0));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_fails_after_the_headers_ends_in_an_error_event_and_no_other_model_is_asked() {
    let gateway = gateway();
    for (mark, rest, code) in [
        ("early-error", "data: {\"error\":{\"message\":\"out of memory\",\"code\":503}}\n\n", "stream_error"),
        ("early-malformed", "data: {\"choices\n\n", "stream_malformed"),
        ("early-done", "data: [DONE]\n\n", "stream_truncated"),
        ("early-nothing", "", "stream_truncated"),
        ("early-unfinished", "data: {\"choices\":[{\"index\"", "stream_truncated"),
    ] {
        let (got, asked) = answer(&gateway, "early", mark, &streams(&format!("{COMMENTS}{rest}")));
        assert_eq!((got.status, &*asked), (200, &["vllm"][..]), "{mark}");
        assert!(got.text().starts_with(COMMENTS), "{mark}: {}", got.text());
        let events = got.events();
        let event: Value = serde_json::from_str(events.last().expect("an event")).expect("is JSON");
        assert_eq!((events.len(), &event["error"]["code"]), (1, &json!(code)), "{mark}: {events:?}");
        let audit = gateway.audit(got.trace_id());
        assert_eq!((&audit["error_code"], &audit["fallback_used"]), (&json!(code), &json!(false)), "{mark}: {audit}");
        // Nothing of an answer was seen.
        assert_eq!(audit["input_tokens"], Value::Null, "{mark}: {audit}");
        // Without the setting the next model serves.
        let (got, asked) = answer(&gateway, "held", mark, &streams(&format!("{COMMENTS}{rest}")));
        assert_eq!((got.status, &*asked), (200, &["vllm", "ollama"][..]), "{mark}");
        assert_eq!(got.events().last().map(String::as_str), Some("[DONE]"));
    }
    await_true("everything to be settled", || reserved(&gateway) == 0);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_fails_before_the_headers_still_leads_to_the_next_model() {
    let gateway = gateway();
    for (mark, behavior) in [
        ("early-503", json!({"status": 503})),
        ("early-401", json!({"status": 401})),
        ("early-reset", json!({"fault": "reset_before_headers"})),
        ("early-html", json!({"fault": "wrong_content_type"})),
        ("early-empty", json!({"fault": "empty_body"})),
        // What is not labelled as a stream must still prove to be one.
        ("early-json", json!({"json": {"error": {"message": "busy"}}})),
    ] {
        let (got, asked) = answer(&gateway, "early", mark, &behavior);
        assert_eq!((got.status, &*asked), (200, &["vllm", "ollama"][..]), "{mark}: {}", got.text());
        assert_eq!(got.header("x-pointsman-fallback"), Some("true"));
        assert_eq!(got.events().last().map(String::as_str), Some("[DONE]"), "{mark}");
        assert_eq!(gateway.audit(got.trace_id())["error_code"], Value::Null);
    }
    let refused = gateway.chat("sk-acme", &request("gone-early", "early-refused"));
    assert_eq!((refused.status, refused.header("x-pointsman-model")), (200, Some("second")), "{}", refused.text());
    // Without a stream nothing changes.
    gateway.simulator.rule("vllm", "early-whole", &json!({"json": {"error": {"message": "busy"}}}));
    let whole = gateway.chat("sk-acme", &ask("early", "early-whole"));
    assert_eq!((whole.status, whole.header("x-pointsman-model")), (200, Some("second")), "{}", whole.text());
}
