//! Every fault of a provider × {stream, not} × {fallback, none}: what the caller gets, and what is tried, recorded and
//! charged.

use crate::standard::{POLICY, ask, gateway, scripted};
use pointsman_integration::environment::envoy_version;
use pointsman_integration::gateway::{Gateway, cluster};
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// One fault of the first model, and its expected consequences.
struct Fault {
    name: &'static str,
    /// What the provider does.
    behavior: Value,
    /// The reason in the audit record if it fails before its first token.
    reason: &'static str,
    /// The status and code that a caller without a fallback gets.
    told: (u16, &'static str),
}

fn fault(name: &'static str, behavior: Value, reason: &'static str, status: u16, code: &'static str) -> Fault {
    Fault { name, behavior, reason, told: (status, code) }
}

/// Faults that show before the first token, streamed or not.
fn early() -> Vec<Fault> {
    let error = json!({"error": {"message": "overloaded", "code": 529}});
    vec![
        fault("429", json!({"status": 429}), "status_429", 429, "provider_rate_limited"),
        fault(
            "429-later",
            json!({"status": 429, "headers": [["retry-after", "7"]]}),
            "status_429",
            429,
            "provider_rate_limited",
        ),
        fault("408", json!({"status": 408}), "status_408", 504, "provider_timeout"),
        fault("500", json!({"status": 500}), "status_500", 502, "provider_error"),
        fault("502", json!({"status": 502}), "status_502", 502, "provider_error"),
        fault("503", json!({"status": 503}), "status_503", 503, "provider_unavailable"),
        fault("529", json!({"status": 529}), "status_529", 503, "provider_unavailable"),
        // A status without a standard name, as some proxies in front of providers send it.
        fault("520", json!({"status": 520}), "status_520", 502, "provider_error"),
        fault(
            "500-html",
            json!({"status": 500, "body": "<html>", "content_type": "text/html"}),
            "status_500",
            502,
            "provider_error",
        ),
        fault("reset", json!({"fault": "reset_before_headers"}), "no_response", 503, "provider_unreachable"),
        fault("close", json!({"fault": "close_before_headers"}), "no_response", 503, "provider_unreachable"),
        fault("html", json!({"fault": "wrong_content_type"}), "wrong_content_type", 502, "provider_error"),
        fault("empty", json!({"fault": "empty_body"}), "empty_body", 502, "provider_error"),
        fault("gzip", json!({"gzip": true}), "encoded_body", 502, "provider_error"),
        fault("headers", json!({"fault": "oversized_headers"}), "no_response", 503, "provider_unreachable"),
        fault(
            "error",
            json!({"fault": {"error_event": {"after_chunks": 0, "json": error}}}),
            "error_",
            503,
            "provider_unavailable",
        ),
        fault(
            "malformed",
            json!({"fault": {"malformed_json": {"after_chunks": 0}}}),
            "malformed_",
            502,
            "provider_error",
        ),
        fault("truncated", json!({"fault": {"truncate_event": {"after_chunks": 0}}}), "", 502, "provider_error"),
    ]
}

/// Faults that show only after a stream has begun. A whole answer is not forwarded before it is complete, so there they
/// count as early.
fn late() -> Vec<Fault> {
    let error = json!({"error": {"message": "overloaded in mid-stream"}});
    vec![
        fault(
            "late-error",
            json!({"fault": {"error_event": {"after_chunks": 2, "json": error}}}),
            "error_body",
            200,
            "stream_error",
        ),
        fault(
            "late-malformed",
            json!({"fault": {"malformed_json": {"after_chunks": 2}}}),
            "malformed_body",
            200,
            "stream_malformed",
        ),
        fault(
            "late-truncated",
            json!({"fault": {"truncate_event": {"after_chunks": 2}}}),
            "malformed_body",
            200,
            "stream_truncated",
        ),
        fault(
            "late-reset",
            json!({"fault": {"reset_mid_stream": {"after_chunks": 2}}}),
            "no_response",
            200,
            "stream_reset",
        ),
        fault(
            "late-close",
            json!({"fault": {"close_mid_stream": {"after_chunks": 2}}}),
            "no_response",
            200,
            "stream_reset",
        ),
    ]
}

/// Refusals of the gateway, because its key, account or configuration is wrong. Another provider may serve.
fn refusals_of_the_gateway() -> Vec<Fault> {
    let body = json!({"error": {"message": "No for org-AbC123 at 127.0.0.1:8000, key sk-proj-9."}}).to_string();
    let refusal = |name, status: u16, reason| {
        fault(name, json!({"status": status, "body": body}), reason, 502, "provider_refused_gateway")
    };
    vec![
        refusal("401", 401, "status_401"),
        refusal("402", 402, "status_402"),
        refusal("403", 403, "status_403"),
        refusal("404", 404, "status_404"),
        refusal("410", 410, "status_410"),
        refusal("424", 424, "status_424"),
        refusal("499", 499, "status_499"),
    ]
}

/// Refusals that another model would repeat, because the request is wrong. They are passed on without another attempt.
fn refusals() -> Vec<Fault> {
    let body = r#"{"error":{"message":"No for org-AbC123 at 127.0.0.1:8000, key sk-proj-9.","param":"temperature"}}"#;
    let refusal = |name, status: u16, told, code| {
        fault(name, json!({"status": status, "body": body}), name_of(status), told, code)
    };
    vec![
        refusal("400", 400, 400, "provider_rejected_request"),
        refusal("413", 413, 413, "provider_rejected_request"),
        refusal("422", 422, 422, "provider_rejected_request"),
    ]
}

fn name_of(status: u16) -> &'static str {
    match status {
        400 => "status_400",
        413 => "status_413",
        _ => "status_422",
    }
}

/// Nothing listens where the provider should be.
fn refused() -> Fault {
    fault("refused", json!({}), "no_response", 503, "provider_unreachable")
}

/// A gateway whose first provider is [`refused`].
fn without_the_first() -> Gateway {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    Gateway::start_over(POLICY, &[], |_| vec![("openai", cluster("openai", nowhere, ""))])
}

/// Silence. Only a timer detects these faults, so they need a policy with short timeouts.
fn silent() -> Vec<Fault> {
    vec![
        fault("hang", json!({"fault": "hang_before_headers"}), "no_response", 504, "first_token_timeout"),
        fault("hang-after-headers", json!({"fault": "hang_after_headers"}), "no_response", 504, "first_token_timeout"),
        fault("slow", json!({"ttft_ms": 30_000}), "no_response", 504, "first_token_timeout"),
    ]
}

/// Returns whether the provider has the request and says nothing, so that it may have worked on it.
fn is_silent(fault: &Fault) -> bool {
    matches!(fault.told.1, "first_token_timeout" | "chunk_timeout")
}

/// Starts a gateway with short timeouts.
fn hasty() -> Gateway {
    let timers = "resilience: {first_token_timeout: 1s, attempt_timeout: 1s, chunk_timeout: 2s, max_retry_after: 1s}\n";
    Gateway::start(&format!("{timers}{POLICY}"))
}

/// Sends a request whose first model has the fault. `model` is the task with a fallback, or the model alone.
fn provoke(gateway: &Gateway, fault: &Fault, model: &str, stream: bool) -> Response {
    let mark = format!("fault-{}-{model}-{stream}", fault.name);
    let mut behavior = fault.behavior.clone();
    if behavior.get("body").is_none() {
        behavior["content"] = "one two three four".into();
    }
    gateway.simulator.rule("openai", &mark, &behavior);
    let mut request = ask(model, &mark);
    request["stream"] = stream.into();
    gateway.chat("sk-acme", &request)
}

/// Returns whether the fault shows only at the very end of the answer, on an Envoy that would crash if the attempt
/// failed then (`fails_at_end: false` in the rendering). There the error is reported and not charged, but there is no
/// fallback.
fn is_only_told(fault: &Fault, stream: bool) -> bool {
    let at_end = ["error", "malformed", "truncated", "late-error", "late-malformed", "late-truncated"];
    envoy_version() < (1, 38) && (fault.name == "truncated" || !stream && at_end.contains(&fault.name))
}

fn check_told_at_the_end(gateway: &Gateway, fault: &Fault, model: &str, stream: bool) -> Result<(), String> {
    let answer = provoke(gateway, fault, model, stream);
    let audit = gateway.audit(answer.trace_id());
    let event = answer.text().strip_prefix("data: ").unwrap_or(answer.text());
    let document: Value = serde_json::from_str(event).unwrap_or_default();
    let code = if stream { "stream_truncated" } else { fault.told.1 };
    let code = if code.starts_with("stream") && !stream { "provider_error" } else { code };
    let holds = [
        ("status", if stream { answer.status == 200 } else { (502..=503).contains(&answer.status) }),
        ("code", document["error"]["code"] == code),
        ("no [DONE]", !answer.text().contains("[DONE]")),
        ("one attempt", gateway.simulator.of(answer.trace_id()).len() == 1),
        ("audit: error_code", audit["error_code"] == code),
        ("audit: model", audit["model"] == "big"),
        ("not charged", audit["estimated_cost_usd"].is_null() && audit["output_tokens"].is_null()),
    ];
    said(fault, stream, model, &holds, &answer, &audit)
}

fn check_served_by_fallback(gateway: &Gateway, fault: &Fault, stream: bool) -> Result<(), String> {
    if is_only_told(fault, stream) {
        return check_told_at_the_end(gateway, fault, "away", stream);
    }
    let answer = provoke(gateway, fault, "away", stream);
    let audit = gateway.audit(answer.trace_id());
    let text = if stream { answer.streamed_text() } else { answer.text().to_owned() };
    let tried: Vec<_> = gateway.simulator.of(answer.trace_id()).iter().map(|seen| seen.provider).collect();
    let failed = &audit["failed_attempts"];
    let holds = [
        ("status 200", answer.status == 200),
        ("the fallback's answer alone", text.contains("for model qwen2.5-7b-instruct")),
        ("[DONE]", !stream || answer.text().contains("[DONE]")),
        ("two attempts", tried == ["openai", "vllm"] || fault.name == "refused" && tried == ["vllm"]),
        ("x-pointsman-attempts 2", answer.header("x-pointsman-attempts") == Some("2")),
        ("x-pointsman-model", answer.header("x-pointsman-model") == Some("small")),
        ("audit: model", audit["model"] == "small"),
        ("audit: retry_count", audit["retry_count"] == 1),
        ("audit: fallback_used", audit["fallback_used"] == true),
        ("audit: no error", audit["error_code"].is_null()),
        ("audit: which failed", failed.as_array().is_some_and(|all| all.len() == 1) && failed[0]["model"] == "big"),
        ("audit: why", failed[0]["reason"].as_str().is_some_and(|reason| reason.starts_with(fault.reason))),
        ("charged for the fallback", audit["estimated_cost_usd"].as_f64() == Some(0.0)),
        ("and for silence only", is_silent(fault) == (audit["abandoned_attempts"][0]["model"] == "big")),
    ];
    said(fault, stream, "with fallback", &holds, &answer, &audit)
}

fn check_told(gateway: &Gateway, fault: &Fault, stream: bool) -> Result<(), String> {
    if stream && is_only_told(fault, stream) {
        return check_told_at_the_end(gateway, fault, "big", stream);
    }
    let answer = provoke(gateway, fault, "big", stream);
    let audit = gateway.audit(answer.trace_id());
    let (status, code) = match fault.told {
        // The same timer, under its name for an answer that is not streamed.
        (status, "first_token_timeout") if !stream => (status, "attempt_timeout"),
        told => told,
    };
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let later = fault.name != "429-later" || answer.header("retry-after") == Some("7");
    let leaks = ["sk-", "org-", "simulator", "127.0.0.1"].iter().any(|word| answer.text().contains(word));
    let reason = audit["failed_attempts"][0]["reason"].as_str().unwrap_or_default();
    let holds = [
        ("status", answer.status == status),
        ("code", document["error"]["code"] == code),
        ("type", document["error"]["type"].is_string()),
        ("retry-after", later),
        ("nothing of the provider's internals", !leaks),
        ("one attempt", gateway.simulator.of(answer.trace_id()).len() == usize::from(fault.name != "refused")),
        ("x-pointsman-attempts 1", answer.header("x-pointsman-attempts") == Some("1")),
        ("audit: status", audit["status"] == status),
        ("audit: error_code", audit["error_code"] == code),
        // Where Envoy itself failed the attempt, the reason is the caller's error code.
        (
            "audit: why",
            !reason.is_empty() && (reason.starts_with(fault.reason) || fault.reason == "no_response" && reason == code),
        ),
        ("charged for silence only", is_silent(fault) != audit["estimated_cost_usd"].is_null()),
        ("likewise", is_silent(fault) != audit["output_tokens"].is_null()),
    ];
    said(fault, stream, "alone", &holds, &answer, &audit)
}

/// A refusal is passed to the caller even where there is a fallback.
fn check_not_retried(gateway: &Gateway, fault: &Fault, stream: bool) -> Result<(), String> {
    let answer = provoke(gateway, fault, "away", stream);
    let audit = gateway.audit(answer.trace_id());
    let (status, code) = fault.told;
    let holds = [
        ("status", answer.status == status),
        ("code", answer.json()["error"]["code"] == code),
        ("x-should-retry", answer.header("x-should-retry") == Some("false")),
        ("one attempt", gateway.simulator.of(answer.trace_id()).len() == 1),
        ("x-pointsman-attempts 1", answer.header("x-pointsman-attempts") == Some("1")),
        ("x-pointsman-model", answer.header("x-pointsman-model") == Some("big")),
        ("audit: error_code", audit["error_code"] == code),
        ("audit: no fallback", audit["fallback_used"] == false && audit["retry_count"] == 0),
        ("audit: why", audit["failed_attempts"] == json!([{"model": "big", "reason": fault.reason}])),
        ("not charged", audit["estimated_cost_usd"].is_null() && audit["output_tokens"].is_null()),
    ];
    said(fault, stream, "away", &holds, &answer, &audit)
}

/// Checks a stream that broke: an error event instead of `[DONE]`, no other model, and a charge for what arrived.
fn check_broken(gateway: &Gateway, fault: &Fault, model: &str) -> Result<(), String> {
    let answer = provoke(gateway, fault, model, true);
    let audit = gateway.audit(answer.trace_id());
    let events = answer.events();
    let last: Value = events.last().and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default();
    // Where Envoy itself cuts the connection to the caller, no event can be added. The caller sees the cut.
    let cut = matches!(fault.told.1, "stream_reset" | "chunk_timeout");
    let holds = [
        ("status 200", answer.status == 200),
        ("what came goes on", answer.streamed_text().starts_with("one two")),
        ("no [DONE]", !answer.text().contains("[DONE]")),
        (
            "an error event at the end, or a visible cut",
            last["error"]["code"] == fault.told.1 || cut && !answer.complete,
        ),
        ("one attempt", gateway.simulator.of(answer.trace_id()).len() == 1),
        ("audit: error_code", audit["error_code"] == fault.told.1),
        ("audit: model", audit["model"] == "big"),
        ("charged for what came", audit["estimated_cost_usd"].as_f64().is_some_and(|cost| cost > 0.0)),
        ("as an estimate", audit["usage_estimated"] == true),
    ];
    said(fault, true, model, &holds, &answer, &audit)
}

/// Reports every condition that does not hold, so that one run shows all of them.
fn said(
    fault: &Fault,
    stream: bool,
    case: &str,
    holds: &[(&str, bool)],
    answer: &Response,
    audit: &Value,
) -> Result<(), String> {
    let missing: Vec<_> = holds.iter().filter(|(_, holds)| !holds).map(|(what, _)| *what).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let body: String = answer.text().chars().take(300).collect();
    let (name, status, missing) = (fault.name, answer.status, missing.join("; "));
    Err(format!(
        "{name}, stream: {stream}, {case}: not so: {missing}\n  {status} {:?}\n  {body}\n  {audit}",
        answer.headers
    ))
}

#[track_caller]
fn report(results: impl Iterator<Item = Result<(), String>>) {
    let wrong: Vec<_> = results.filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_fault_before_the_first_token_is_not_the_callers_problem() {
    let gateway = gateway();
    let both = |fault: Fault| [false, true].map(|stream| check_served_by_fallback(&gateway, &fault, stream));
    report(early().into_iter().chain(refusals_of_the_gateway()).flat_map(both));
    report(late().iter().map(|fault| check_served_by_fallback(&gateway, fault, false)));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn without_a_fallback_the_caller_is_told_what_failed_in_its_own_dialect() {
    let gateway = gateway();
    let all = early().into_iter().chain(refusals()).chain(refusals_of_the_gateway());
    report(all.flat_map(|fault| [false, true].map(|stream| check_told(&gateway, &fault, stream))));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_refusal_that_another_model_would_repeat_is_not_retried() {
    let gateway = gateway();
    report(
        refusals()
            .into_iter()
            .flat_map(|fault| [false, true].map(|stream| check_not_retried(&gateway, &fault, stream))),
    );
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_connection_that_is_refused_is_a_fault_like_any_other() {
    let gateway = without_the_first();
    report([false, true].into_iter().map(|stream| check_served_by_fallback(&gateway, &refused(), stream)));
    report([false, true].into_iter().map(|stream| check_told(&gateway, &refused(), stream)));
}

/// A whole answer that breaks off was never begun, so its caller gets the same error as for an early fault, whether or
/// not the provider needs a credential.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_whole_answer_that_breaks_off_is_told_in_the_callers_dialect() {
    let gateway = gateway();
    for fault in late() {
        for model in ["small", "big", "regional"] {
            let mut behavior = fault.behavior.clone();
            behavior["content"] = "one two three four".into();
            let answer = gateway.chat("sk-acme", &scripted(model, &behavior));
            let (status, text) = (answer.status, answer.text());
            assert_eq!(answer.header("content-type"), Some("application/json"), "{model} {}: {text}", fault.name);
            let code = answer.json()["error"]["code"].clone();
            let reset = matches!(fault.name, "late-reset" | "late-close");
            let expected = if reset { "provider_unreachable" } else { "provider_error" };
            assert!(code == expected && (502..=503).contains(&status), "{model} {}: {status} {text}", fault.name);
            let audit = gateway.audit(answer.trace_id());
            assert!(audit["estimated_cost_usd"].is_null(), "{audit}");
            assert_eq!(audit["error_code"], expected, "{model} {}: {audit}", fault.name);
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_stream_that_breaks_ends_with_an_error_and_is_charged_for_what_came() {
    let gateway = gateway();
    let both = |fault: Fault| ["away", "big"].map(|model| check_broken(&gateway, &fault, model));
    report(late().into_iter().flat_map(both));
    // Every choice has come to its end: nothing is missing but the marker.
    let no_done = fault("no-done", json!({"fault": "no_done"}), "", 200, "");
    let answer = provoke(&gateway, &no_done, "big", true);
    assert_eq!(answer.events().last().map(String::as_str), Some("[DONE]"), "{}", answer.text());
    assert_eq!(gateway.audit(answer.trace_id())["error_code"], Value::Null);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn silence_is_a_fault_like_any_other() {
    let gateway = hasty();
    let both = |fault: Fault| [false, true].map(|stream| check_served_by_fallback(&gateway, &fault, stream));
    report(silent().into_iter().flat_map(both));
    report(silent().into_iter().flat_map(|fault| [false, true].map(|stream| check_told(&gateway, &fault, stream))));
    let midway = json!({"fault": {"hang_mid_stream": {"after_chunks": 2}}});
    let midway = fault("hang-midway", midway, "no_response", 200, "chunk_timeout");
    report(["away", "big"].into_iter().map(|model| check_broken(&gateway, &midway, model)));
    report([check_served_by_fallback(&gateway, &midway, false)].into_iter());
}
