//! Every wait is limited and ends with its own code: first token, gap between chunks, whole request, a caller that
//! leaves.

use crate::unsteady::{call, gateway, is_served, open, request, script};
use pointsman_integration::gateway::Gateway;
use pointsman_integration::raw::Connection;
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Sets how `provider` answers requests with this mark.
fn rule(gateway: &Gateway, provider: &str, mark: &str, respond: Value) {
    gateway.simulator.rule(provider, mark, &respond);
}

/// Returns the result of `make`, which must not come sooner than this. It may come later, because machines that run
/// tests are sometimes slow. So what a test must not wait for lasts longer than any test waits.
#[track_caller]
fn no_sooner(limit_ms: u64, make: impl FnOnce() -> Response) -> Response {
    let start = Instant::now();
    let answer = make();
    let took = start.elapsed();
    // Envoy rounds the start time of a timer.
    assert!(took + Duration::from_millis(20) >= Duration::from_millis(limit_ms), "{took:?}: {answer:?}");
    answer
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_provider_that_stalls_before_its_first_token_is_left_for_the_next() {
    let gateway = gateway();
    for (fault, stream) in [
        ("hang_before_headers", true),
        ("hang_after_headers", true),
        ("hang_before_headers", false),
        ("hang_after_headers", false),
    ] {
        let mark = format!("stalls-{fault}-{stream}");
        rule(&gateway, "openai", &mark, json!({"fault": fault}));
        let answer = no_sooner(500, || gateway.send(call(&request("hasty", &mark, stream))));
        assert!(is_served(&answer, stream), "{mark}: {answer:?}");
        let said = ["x-pointsman-model", "x-pointsman-attempts"].map(|name| answer.header(name));
        assert_eq!(said, [Some("second"), Some("2")]);
        let first = gateway.simulator.of(answer.trace_id()).remove(0);
        assert_eq!((first.provider, first.finished), ("openai", false));
        gateway.simulator.await_request(&mark, "the stalled attempt to be cancelled", |seen| seen.aborted);
        let audit = gateway.audit(answer.trace_id());
        assert_eq!(audit["failed_attempts"].as_array().map(Vec::len), Some(1), "{audit}");

        let alone = gateway.send(call(&request("hasty-alone", &mark, stream)));
        let code = if stream { "first_token_timeout" } else { "attempt_timeout" };
        alone.assert_refusal(504, code);
        assert_eq!(gateway.audit(alone.trace_id())["error_code"], code);
    }
}

/// Envoy cuts the connection of a stream that has begun, so the caller sees that its answer is incomplete.
fn check_cut(gateway: &Gateway, answer: &Response, code: &str) {
    assert_eq!(answer.status, 200);
    assert!(answer.streamed_text().starts_with("one two"), "{answer:?}");
    assert!(!answer.complete && !answer.text().contains("[DONE]"), "{answer:?}");
    let audit = gateway.audit(answer.trace_id());
    assert_eq!(audit["error_code"], code, "{audit}");
    assert_eq!((&audit["model"], &audit["usage_estimated"]), (&json!("first"), &json!(true)), "{audit}");
    assert!(audit["output_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{audit}");
    assert!(audit["estimated_cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{audit}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_stream_that_falls_silent_is_cut_and_charged_for_what_came() {
    let gateway = gateway();
    let mark = "falls-silent";
    rule(
        &gateway,
        "openai",
        mark,
        json!({"content": "one two three", "fault": {"hang_mid_stream": {"after_chunks": 2}}}),
    );
    for task in ["hasty-alone", "hasty"] {
        let answer = no_sooner(1000, || gateway.send(call(&request(task, mark, true))));
        check_cut(&gateway, &answer, "chunk_timeout");
    }
    gateway.simulator.await_request(mark, "the silent stream to be cancelled", |seen| seen.aborted);
    // The timeout is for the gap between two chunks. It does not affect a stream that takes longer in total.
    let steady = script(&json!({"chunks": 6, "chunk_ms": 300}));
    assert!(is_served(&gateway.send(call(&request("hasty", &steady, true))), true));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_whole_request_has_a_deadline_that_a_caller_can_only_shorten() {
    let gateway = gateway();
    let mark = "too-late";
    rule(&gateway, "openai", mark, json!({"fault": "hang_before_headers"}));
    // The policy's own deadline for `brief` is a second. `failing` has a fallback, which serves once the first attempt
    // times out.
    for (task, deadline, limit) in [
        ("brief", None, 1000),
        ("brief", Some("300"), 300),
        ("brief", Some("600000"), 1000),
        ("brief", Some("18446744073709551615"), 1000),
        ("failing", Some("400"), 400),
    ] {
        for stream in [false, true] {
            let mut call = call(&request(task, mark, stream));
            if let Some(ms) = deadline {
                call = call.header("x-pointsman-deadline-ms", ms);
            }
            let answer = no_sooner(limit, || gateway.send(call));
            answer.assert_refusal(504, "deadline_exceeded");
            assert_eq!(answer.header("x-should-retry"), Some("false"));
            assert_eq!(gateway.audit(answer.trace_id())["error_code"], "deadline_exceeded");
        }
    }
    for wrong in ["0", "-1", "1.5", "soon", "", "18446744073709551616"] {
        let answer = gateway.send(call(&request("brief", "x", true)).header("x-pointsman-deadline-ms", wrong));
        answer.assert_refusal(400, "invalid_value");
        assert_eq!(answer.param().as_deref(), Some("x-pointsman-deadline-ms"));
    }
}

/// An answer that has begun and is held until it is complete is no special case: the caller gets the same error.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_deadline_that_passes_while_an_answer_is_held_is_told_as_one() {
    let gateway = gateway();
    rule(&gateway, "openai", "held-too-long", json!({"fault": "hang_after_headers"}));
    for task in ["first", "failing"] {
        let call = call(&request(task, "held-too-long", false)).header("x-pointsman-deadline-ms", "700");
        let answer = gateway.send(call);
        answer.assert_refusal(504, "deadline_exceeded");
        let said = ["x-pointsman-attempts", "x-should-retry"].map(|name| answer.header(name));
        assert_eq!(said, [Some("1"), Some("false")], "{task}: {answer:?}");
        let audit = gateway.audit(answer.trace_id());
        assert_eq!((&audit["error_code"], &audit["model"]), (&json!("deadline_exceeded"), &json!("first")), "{audit}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_deadline_counts_from_the_requests_first_byte() {
    let gateway = gateway();
    let body = request("failing", "sent slowly", false).to_string();
    let send_slowly = |deadline: &str| {
        let mut connection = Connection::to(gateway.address);
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\n\
             x-pointsman-deadline-ms: {deadline}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        connection.send(head);
        std::thread::sleep(Duration::from_millis(500));
        connection.send(&body).response()
    };
    let late = send_slowly("300");
    assert!(late.status == 504 && late.text().contains("deadline_exceeded"), "{late:?}");
    let trace_id = late.header("x-request-id").expect("a trace id");
    assert_eq!(gateway.audit(trace_id)["error_code"], "deadline_exceeded");
    assert_eq!(gateway.simulator.of(trace_id).len(), 0);
    assert_eq!(send_slowly("20000").status, 200);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_deadline_ends_a_stream_that_has_begun() {
    let gateway = gateway();
    let mark = "runs-late";
    rule(
        &gateway,
        "openai",
        mark,
        json!({"content": "one two three four five six seven eight nine ten", "chunk_ms": 300}),
    );
    let answer = no_sooner(1000, || gateway.send(call(&request("brief", mark, true))));
    check_cut(&gateway, &answer, "deadline_exceeded");
    let call = call(&request("failing", mark, true)).header("x-pointsman-deadline-ms", "1000");
    check_cut(&gateway, &gateway.send(call), "deadline_exceeded");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_caller_that_leaves_cancels_the_provider_and_is_charged_for_what_it_saw() {
    let gateway = gateway();
    for task in ["failing", "hedged"] {
        let mark = format!("leaves-{task}");
        rule(&gateway, "openai", &mark, json!({"chunks": 1000, "chunk_ms": 20}));
        let mut stream = open(&gateway, task, &mark);
        stream.read_until("choices");
        let trace_id = stream.trace_id();
        drop(stream);
        gateway.simulator.await_request(&mark, "the provider's request to be cancelled", |seen| seen.aborted);
        let audit = gateway.audit(&trace_id);
        assert_eq!(
            (&audit["error_code"], &audit["usage_estimated"]),
            (&json!("client_disconnected"), &json!(true)),
            "{audit}"
        );
        assert!(audit["estimated_cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{audit}");
    }
}

/// What the two providers of a hedged task do, and which one must win.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_hedged_attempt_gives_one_answer_and_the_record_says_whose() {
    let gateway = gateway();
    for stream in [false, true] {
        for (name, first_ms, second_ms, winner, attempts) in [
            ("second-wins", 600_000, 0, "second", "2"),
            ("first-wins", 600, 600_000, "first", "2"),
            ("no-need", 0, 0, "first", "1"),
        ] {
            let mark = format!("hedge-{name}-{stream}");
            rule(&gateway, "openai", &mark, json!({"ttft_ms": first_ms, "content": "of the first"}));
            rule(&gateway, "azure", &mark, json!({"ttft_ms": second_ms, "content": "of the second one"}));
            let answer = gateway.send(call(&request("hedged", &mark, stream)));
            assert!(is_served(&answer, stream), "{mark}: {answer:?}");
            let text = if stream { answer.streamed_text() } else { answer.content() };
            assert!(text == format!("of the {winner}") || text == format!("of the {winner} one"), "{mark}: {text}");
            assert_eq!(answer.header("x-pointsman-model"), Some(winner), "{mark}");
            assert_eq!(answer.header("x-pointsman-attempts"), Some(attempts), "{mark}");
            let audit = gateway.audit(answer.trace_id());
            let provider = if winner == "first" { "openai" } else { "azure" };
            assert_eq!((&audit["model"], &audit["provider"]), (&json!(winner), &json!(provider)), "{mark}: {audit}");
            assert_eq!(audit["retry_count"].to_string(), if attempts == "2" { "1" } else { "0" }, "{mark}: {audit}");
            assert_eq!(audit["output_tokens"], if winner == "first" { 3 } else { 4 }, "{mark}: {audit}");
            assert_eq!(
                (&audit["usage_estimated"], &audit["error_code"]),
                (&json!(false), &Value::Null),
                "{mark}: {audit}"
            );
            let seen = gateway.simulator.of(answer.trace_id());
            assert_eq!(seen.len().to_string(), attempts, "{mark}: {seen:?}");
            let failed: Vec<_> =
                audit["failed_attempts"].as_array().into_iter().flatten().map(|f| f["reason"].clone()).collect();
            let reason = match (attempts, winner) {
                ("1", _) => vec![],
                (_, "first") => vec![json!("cancelled")],
                _ => vec![json!("hedged")],
            };
            assert_eq!(failed, reason, "{mark}: {audit}");
            if attempts == "2" {
                let loser = if winner == "first" { "azure" } else { "openai" };
                pointsman_integration::deadline::await_true("the loser to be cancelled", || {
                    gateway.simulator.of(answer.trace_id()).iter().any(|seen| seen.provider == loser && seen.aborted)
                });
            }
        }
    }
}
