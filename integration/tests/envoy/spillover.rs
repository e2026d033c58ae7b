//! A full model is left out of the plan, so that the next one serves without a failed attempt, and no count ever leaks.

use crate::unsteady::{LIMITED, at_once, call, gateway, is_served, open, request, script, slow};
use pointsman_integration::call::Call;
use pointsman_integration::deadline::{await_some, await_true};
use pointsman_integration::gateway::Gateway;
use pointsman_integration::response::Open;
use serde_json::{Value, json};
use std::io::Write as _;

fn model(open: &Open) -> String {
    open.header("x-pointsman-model").unwrap_or_default().to_owned()
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_model_never_serves_more_than_it_may_and_the_next_one_serves_the_rest_at_once() {
    let gateway = gateway();
    for round in 0..2 {
        LIMITED.forget();
        let answers = at_once(40, |_| gateway.send(call(&request("spilling", &slow(8, 50), true))));
        assert_eq!(LIMITED.active().1, 2, "round {round}: most at a time");
        let mut spilt = 0;
        for answer in &answers {
            assert!(is_served(answer, true), "{answer:?}");
            assert_eq!(answer.header("x-pointsman-attempts"), Some("1"));
            let audit = gateway.audit(answer.trace_id());
            assert_eq!(audit["failed_attempts"], json!([]), "{audit}");
            if answer.header("x-pointsman-model") == Some("local") {
                spilt += 1;
                assert_eq!(audit["left_out"], json!([{"model": "few", "reason": "overloaded"}]), "{audit}");
            } else {
                assert_eq!(audit["left_out"], json!([]), "{audit}");
            }
        }
        assert!((1..=38).contains(&spilt), "round {round}: {spilt} of 40 spilt over");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn with_no_next_model_the_caller_is_told_to_come_back_and_so_it_is_by_the_circuit_breaker() {
    let gateway = gateway();
    // The policy's limit of one, and a circuit breaker that lets one request through.
    let busy = ["lone", "narrow"].map(|model| {
        let first = open(&gateway, model, &slow(200, 50));
        let refused = [false, true].map(|stream| gateway.send(call(&request(model, "one too many", stream))));
        for answer in &refused {
            answer.assert_refusal(503, "model_overloaded");
            assert_eq!(answer.header("retry-after"), Some("1"), "{answer:?}");
            assert_eq!(answer.header("x-should-retry"), None);
            let audit = gateway.audit(answer.trace_id());
            assert_eq!(audit["error_code"], "model_overloaded");
            if model == "lone" {
                let full = json!([{"model": "lone", "reason": "overloaded"}]);
                assert_eq!((&audit["left_out"], &audit["route_reason"]), (&full, &json!("model")), "{audit}");
                assert_eq!((&audit["plan"], &audit["data_class"]), (&json!([]), &json!("internal")), "{audit}");
            }
        }
        drop(first);
        refused
    });
    let [by_policy, by_breaker] = busy.map(|refused| refused.map(|answer| answer.json()));
    assert_eq!(by_policy, by_breaker, "the same words");
    // Envoy does not retry an overflow. The policy's limit, which does spill over, applies first.
    await_true("the breaker to close", || gateway.send(call(&request("narrow", "alone", false))).status == 200);
    let first = open(&gateway, "narrow", &slow(200, 50));
    let overflow = gateway.send(call(&request("overflow", "one too many", true)));
    overflow.assert_refusal(503, "model_overloaded");
    drop(first);
}

/// Checks that exactly two requests of `pair` fit at a time: none leaked, and none is released twice.
fn exactly_two_fit(gateway: &Gateway, after: &str) {
    await_true(&format!("room for two after {after}"), || {
        let two = [0, 1].map(|_| open(gateway, "paired", &slow(200, 50)));
        let all = two.iter().all(|open| model(open) == "pair");
        if all {
            let third = open(gateway, "paired", &slow(1, 0));
            assert_eq!(model(&third), "local", "a third request was let in after {after}");
        }
        all
    });
}

/// Sends a request that its provider leaves unanswered, and disconnects. If earlier ones are still counted, it is sent
/// again.
fn ask_and_leave(gateway: &Gateway, document: &Value, mark: &str) {
    let body = document.to_string();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\ncontent-length:";
    await_true("the request to reach the provider", || {
        let mut socket = std::net::TcpStream::connect(gateway.address).expect("connects");
        socket.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).expect("writes");
        (0..20).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            !gateway.simulator.with(mark).is_empty()
        })
    });
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn no_way_in_which_a_request_ends_leaves_it_counted() {
    let gateway = gateway();
    exactly_two_fit(&gateway, "the start");
    let error = json!({"error": {"message": "x"}});
    let ways = [
        ("a whole answer", json!({}), false),
        ("a stream", json!({}), true),
        ("a long answer", json!({"chunks": 20, "chunk_bytes": 100_000}), false),
        ("a provider's error", json!({"status": 503}), true),
        ("a provider's refusal", json!({"status": 400}), false),
        ("a reset before the headers", json!({"fault": "reset_before_headers"}), false),
        ("a reset in mid-stream", json!({"fault": {"reset_mid_stream": {"after_chunks": 2}}}), true),
        ("a truncated stream", json!({"fault": {"truncate_event": {"after_chunks": 2}}}), true),
        ("an error event", json!({"fault": {"error_event": {"after_chunks": 2, "json": error}}}), true),
        ("an error event at once", json!({"fault": {"error_event": {"after_chunks": 0, "json": error}}}), true),
        ("a body that is no JSON", json!({"fault": {"malformed_json": {"after_chunks": 0}}}), false),
    ];
    for (way, behavior, stream) in &ways {
        for task in ["paired", "backed", "pair"] {
            at_once(2, |_| gateway.send(call(&request(task, &script(behavior), *stream))));
            at_once(2, |_| gateway.send(call(&request(task, &script(behavior), *stream))));
        }
        exactly_two_fit(&gateway, way);
    }
    for task in ["paired", "backed", "pair"] {
        for _ in 0..3 {
            let mut stream = await_some("a stream of the counted model", || {
                Some(open(&gateway, task, &slow(200, 50))).filter(|open| model(open) == "pair" && open.status == 200)
            });
            stream.read_until("choices");
        }
        exactly_two_fit(&gateway, &format!("{task}: callers that left in mid-stream"));
        for number in 0..3 {
            let mut document = request(task, &script(&json!({"fault": "hang_before_headers"})), true);
            let mark = format!("left-{task}-{number}");
            document["user"] = mark.clone().into();
            ask_and_leave(&gateway, &document, &mark);
            let mut late = request(task, &script(&json!({"fault": "hang_before_headers"})), false);
            late["user"] = format!("late-{task}-{number}").into();
            let late = await_some("an answer that is late", || {
                let answer = gateway.send(call(&late).header("x-pointsman-deadline-ms", "100"));
                (answer.status == 504).then_some(answer)
            });
            late.assert_refusal(504, "deadline_exceeded");
        }
        exactly_two_fit(&gateway, &format!("{task}: callers that left and deadlines that passed"));
    }
    for body in ["{", "{\"model\":\"paired\"}", "{\"model\":\"paired\",\"messages\":[]}"] {
        gateway.send(Call::chat(body).key("sk-acme"));
    }
    exactly_two_fit(&gateway, "requests that were refused");
}

/// The second try of a model is part of the same request. It neither blocks itself, nor counts as another request.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_second_try_is_not_a_second_request() {
    let gateway = gateway();
    let when = json!({"listener": 1, "body_contains": "lone-second-try"});
    gateway.simulator.add_rule(&json!({"when": when, "times": 1, "respond": {"status": 500}}));
    let answer = gateway.send(call(&request("lone-again", "lone-second-try", true)));
    assert!(is_served(&answer, true), "{answer:?}");
    assert_eq!(answer.header("x-pointsman-attempts"), Some("2"));
    assert_eq!(gateway.audit(answer.trace_id())["left_out"], json!([]));
    await_true("room for the next", || is_served(&gateway.send(call(&request("lone-again", "another", false))), false));
}
