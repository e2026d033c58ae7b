//! A whole answer that is put together from a stream (`stream_upstream`) is the one that the provider gives unstreamed,
//! and one that is abandoned costs what was made of it.

use crate::clients::say;
use crate::quota_gateways::window;
use crate::standard::{ask, scripted};
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::environment;
use pointsman_integration::gateway::{Gateway, Shared};
use pointsman_integration::raw::Connection;
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::sync::LazyLock;

mod pairs;

/// One case of a test has a tenant of its own, so that it finds no charge of another.
const CASES: [&str; 9] = ["same", "left", "failed", "cached", "python", "greedy", "modest", "shaping", "bystander"];

fn gateway() -> Shared {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| {
        let tenants = CASES.map(|case| format!("  {case}: {{tier: metered, keys: [<sk-{case}>]}}\n")).concat();
        Gateway::start(&include_str!("assembled.yaml").replace("TENANTS\n", &tenants))
    });
    Shared::of(&GATEWAY)
}

fn send(gateway: &Shared, case: &str, request: &Value) -> Response {
    gateway.send(Call::chat_json(request).key(&format!("sk-{case}")))
}

fn sse(chunks: &[Value]) -> String {
    chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect::<String>() + "data: [DONE]\n\n"
}

fn calls(choice: &mut Value) -> impl Iterator<Item = &mut Value> {
    let calls = choice["message"].get_mut("tool_calls").and_then(Value::as_array_mut);
    calls.into_iter().flatten()
}

/// Returns the body without what differs from call to call.
fn timeless(response: &Response) -> Value {
    let mut body = response.json();
    for name in ["id", "created"] {
        assert!(body.get(name).is_some_and(|value| !value.is_null()), "{name}: {body}");
        body[name] = Value::Null;
    }
    // The simulator numbers its calls.
    for call in body["choices"].as_array_mut().unwrap().iter_mut().flat_map(calls) {
        assert!(call["id"].is_string(), "{call}");
        call["id"] = Value::Null;
    }
    body
}

/// Sends a question unstreamed and put together, and checks that the answers and all that is told of them are equal.
fn assert_same(gateway: &Shared, request: &Value, http2: bool) {
    let ask_of = |task: &str| {
        let mut request = request.clone();
        request["model"] = json!(task);
        let call = Call::chat_json(&request).key("sk-same");
        gateway.send(if http2 { call.http2() } else { call })
    };
    let (plain, assembled) = (ask_of("plain"), ask_of("assembled"));
    assert_eq!((plain.status, assembled.status), (200, 200), "{plain:?} {assembled:?}");
    assert_eq!(timeless(&assembled), timeless(&plain), "{request}");
    let streams = [&plain, &assembled].map(|response| gateway.upstream(response).json()["stream"] == true);
    assert_eq!(streams, [false, true], "{request}");
    assert_eq!(assembled.header("content-type"), Some("application/json"));
    let length = assembled.body.len().to_string();
    assert_eq!(assembled.header("content-length"), Some(&*length));
    let names = |response: &Response| {
        let mut names: Vec<String> = response.headers.keys().map(ToString::to_string).collect();
        names.sort();
        names
    };
    assert_eq!(names(&assembled), names(&plain));
    let [plain, assembled] = [&plain, &assembled].map(|response| gateway.audit(response.trace_id()));
    for name in [
        "stream",
        "status",
        "model",
        "input_tokens",
        "cached_input_tokens",
        "output_tokens",
        "usage_estimated",
        "service_tier",
        "estimated_cost_usd",
        "error_code",
        "policy_decision",
        "tool_names",
        "retry_count",
    ] {
        assert_eq!(assembled[name], plain[name], "{name}: {assembled}");
    }
    assert!(plain["time_to_first_token_ms"].is_null() && assembled["time_to_first_token_ms"].is_u64(), "{assembled}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn it_is_the_answer_that_the_provider_gives_unstreamed() {
    let gateway = gateway();
    let tools = json!([{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object",
        "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]);
    let with = |behavior: &Value, name: &str, value: Value| {
        let mut request = scripted("x", behavior);
        request[name] = value;
        request
    };
    for http2 in [false, true] {
        for request in [
            scripted("x", &json!({"content": "Grüezi 😀 \"quoted\" \\ \n line"})),
            with(&json!({"content": "a b c"}), "n", json!(3)),
            with(&json!({"content": "{\"a\": 1}"}), "response_format", json!({"type": "json_object"})),
            with(&json!({"content": "a b c d", "finish_reason": "length"}), "max_tokens", json!(2)),
            with(&json!({}), "tools", tools.clone()),
            scripted("x", &json!({"content": "a", "usage": {"prompt_tokens": 5, "completion_tokens": 7, "x": [1.50]}})),
            scripted("x", &json!({"content": "a b c", "split": {"bytes": 1}, "crlf": true, "comments": true})),
            scripted("x", &json!({"content": "a b c", "trailing_bytes": true})),
            // More than Envoy's buffers hold.
            scripted("x", &json!({"chunks": 8000, "chunk_bytes": 20})),
        ] {
            assert_same(&gateway, &request, http2);
        }
    }
    for (mark, chunks, whole) in pairs::pairs() {
        let mark = format!("pair-{mark}");
        for (stream, respond) in [
            (true, json!({"body": sse(&chunks), "content_type": "text/event-stream"})),
            (false, json!({"json": whole})),
        ] {
            let when = json!({"body_contains": mark, "stream": stream});
            gateway.simulator.add_rule(&json!({"when": when, "respond": respond}));
        }
        assert_same(&gateway, &ask("x", &mark), false);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_request_whose_answer_may_differ_goes_as_it_is() {
    let gateway = gateway();
    for (name, value) in [
        ("best_of", json!(2)),
        ("tools", json!([{"type": "custom", "custom": {"name": "c"}}])),
        ("stream_options", json!({"include_usage": true})),
    ] {
        let mut request = scripted("assembled", &json!({"content": "as it is"}));
        request[name] = value;
        let response = send(&gateway, "same", &request);
        assert_eq!(response.status, 200, "{response:?}");
        assert_ne!(gateway.upstream(&response).json()["stream"], true, "{name}");
    }
    // A caller's own stream is one as before.
    let mut request = scripted("assembled", &json!({"content": "a b"}));
    request["stream"] = json!(true);
    let response = send(&gateway, "same", &request);
    assert_eq!(response.streamed_text(), "a b");
    assert_eq!(gateway.audit(response.trace_id())["stream"], true);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_tenant_that_fills_its_share_of_the_memory_takes_none_of_another_tenants() {
    let gateway = gateway();
    gateway.simulator.rule("openai", "greedy-hold", &json!({"content": "held", "hold": "greedy"}));
    let (mark, many) = ("greedy-hold", 12);
    let mut request = ask("patient", mark);
    // Each needs nearly eight million bytes, and the share of a worker is 32 MiB.
    request["n"] = json!(6);
    let answers: Vec<Response> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..many).map(|_| scope.spawn(|| send(&gateway, "greedy", &request))).collect();
        await_true("all requests to arrive", || gateway.simulator.with(mark).len() == many);
        // While they hang, another tenant's answer is put together as before.
        let other = send(&gateway, "modest", &scripted("patient", &json!({"content": "mine"})));
        assert_eq!((other.status, other.content()), (200, "mine".to_owned()));
        assert_eq!(gateway.audit(other.trace_id())["assembly"], "assembled");
        gateway.simulator.release("greedy");
        threads.into_iter().map(|thread| thread.join().expect("a response")).collect()
    });
    let mut forms = Vec::new();
    for answer in &answers {
        assert_eq!((answer.status, answer.content()), (200, "held".to_owned()), "{answer:?}");
        let audit = gateway.audit(answer.trace_id());
        let is_stream = gateway.upstream(answer).json()["stream"] == true;
        assert_eq!(audit["assembly"], if is_stream { "assembled" } else { "no_room" }, "{audit}");
        forms.push(is_stream);
    }
    let streams = forms.iter().filter(|is_stream| **is_stream).count();
    // Four at each worker that got as many.
    assert!((4..=8).contains(&streams), "{forms:?}");
    let counted = |line: &String| {
        line.starts_with("llm_not_assembled_total{") && line.contains("\"no_room\"") && line.contains("\"patient\"")
    };
    await_true("the metric", || gateway.metrics().iter().any(counted));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_doubt_about_the_answer_to_one_tenant_switches_nothing_for_another_and_is_told() {
    let gateway = gateway();
    let chunk = |note: &str| json!({"choices": [{"index": 0, "delta": {"content": "a", "note": note}}]});
    let respond = json!({"body": sse(&[chunk("b"), chunk("c")]), "content_type": "text/event-stream"});
    let when = json!({"body_contains": "shaped-doubt", "stream": true});
    gateway.simulator.add_rule(&json!({"when": when, "respond": respond}));
    // Each worker learns it by itself.
    let mut forms = Vec::new();
    for _ in 0..12 {
        let answer = send(&gateway, "shaping", &ask("assembled", "shaped-doubt"));
        let audit = gateway.audit(answer.trace_id());
        forms.push((answer.status, audit["assembly"].as_str().unwrap_or_default().to_owned()));
        if answer.status == 502 {
            answer.assert_refusal(502, "stream_malformed");
            assert!(audit["output_tokens"].as_u64() > Some(0), "what was made is charged: {audit}");
        }
        let other = send(&gateway, "bystander", &scripted("assembled", &json!({"content": "x"})));
        assert_eq!(gateway.audit(other.trace_id())["assembly"], "assembled");
    }
    let told = |status: u16, word: &str| forms.iter().filter(|form| **form == (status, word.to_owned())).count();
    let doubts = told(502, "doubtful");
    assert!((1..=2).contains(&doubts) && doubts + told(200, "doubted") == forms.len(), "{forms:?}");
    let warning = "did not say for certain what the whole response is (task assembled";
    let log = gateway.process.lines().join("\n");
    assert_eq!(log.matches(warning).count(), doubts, "{log}");
    assert!(log.contains("for tenant shaping.") && !log.contains("for tenant bystander."), "{log}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_envoy_answers_for_a_stream_that_broke_off_names_its_model_its_cost_and_the_same_cause() {
    let gateway = gateway();
    let first =
        json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": "some words of an answer"}}]});
    // Comments keep the stream alive until the request's own timer ends it.
    let body = format!("data: {first}\n\n{}", ": still here\n\n".repeat(200));
    let comments = json!({"body": body, "content_type": "text/event-stream", "split": {"bytes": 100, "ms": 300}});
    let after = |name: &str| json!({"fault": {name: {"after_chunks": 3}}, "chunks": 10});
    for (task, behavior, status, code) in [
        ("timed", comments, 504, "deadline_exceeded"),
        ("assembled", after("reset_mid_stream"), 503, "provider_unreachable"),
        ("assembled", after("hang_mid_stream"), 504, "chunk_timeout"),
    ] {
        let response = send(&gateway, "failed", &scripted(task, &behavior));
        response.assert_refusal(status, code);
        let audit = gateway.audit(response.trace_id());
        assert_eq!((&audit["error_code"], &audit["status"]), (&json!(code), &json!(status)), "{audit}");
        assert_eq!(response.header("x-pointsman-model"), Some("first"), "{response:?}");
        assert_eq!(response.header("x-pointsman-attempts"), Some("1"), "{response:?}");
        let cost: f64 = response.header("x-pointsman-cost-usd").expect("the cost").parse().expect("a number");
        assert_eq!(audit["estimated_cost_usd"].as_f64(), Some(cost), "{audit}");
    }
    // No such header where nothing was assembled.
    let whole = json!({"fault": {"reset_mid_stream": {}}});
    let response = send(&gateway, "failed", &scripted("plain", &whole));
    assert!(response.status >= 500 && response.header("x-pointsman-cost-usd").is_none(), "{response:?}");
    // A part of a body is no answer, streamed or not.
    for task in ["plain", "assembled"] {
        let response = send(&gateway, "failed", &scripted(task, &json!({"content": "a part", "status": 206})));
        assert_eq!(response.status, 502, "{task}: {response:?}");
        let failed = gateway.audit(response.trace_id())["failed_attempts"].clone();
        assert_eq!(failed, json!([{"model": "first", "reason": "status_206"}]), "{task}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_caller_that_leaves_pays_for_what_was_made() {
    let gateway = gateway();
    let behavior = json!({"chunks": 400, "chunk_bytes": 40, "fault": {"hang_mid_stream": {"after_chunks": 300}}});
    gateway.simulator.rule("openai", "left-in-the-middle", &behavior);
    let mut request = ask("assembled", "left-in-the-middle");
    request["max_tokens"] = json!(4000);
    let body = request.to_string();
    let mut connection = Connection::to(gateway.address);
    connection.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-left\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let mark = "left-in-the-middle";
    gateway.simulator.await_request(mark, "the chunks to go out", |seen| seen.chunks_sent == 300);
    // They are on their way.
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop(connection);
    let seen = gateway.simulator.await_request(mark, "it to be cancelled", |seen| seen.aborted);
    let audit = gateway.audit(seen.header("x-request-id").expect("a trace id"));
    assert_eq!((&audit["error_code"], &audit["status"]), (&json!("client_disconnected"), &json!(499)), "{audit}");
    // Of 12,000 bytes that were made, as for a stream.
    assert!(audit["output_tokens"].as_u64() > Some(1000) && audit["usage_estimated"] == true, "{audit}");
    let charged = audit["input_tokens"].as_u64().unwrap() + audit["output_tokens"].as_u64().unwrap();
    await_true("the charge", || {
        let day = window(&gateway, "sk-left", "tokens_per_day");
        day["used"] == charged && day["reserved"] == 0
    });
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_fails_before_the_first_token_leads_to_the_next_model() {
    let gateway = gateway();
    for (mark, behavior, reason) in [
        ("chain-status", json!({"status": 503}), "status_503"),
        ("chain-reset", json!({"fault": "reset_before_headers"}), "no_response"),
        (
            "chain-event",
            json!({"fault": {"error_event": {"json": {"error": {"message": "x", "code": 503}}}}}),
            "error_event",
        ),
        ("chain-late", json!({"fault": "hang_after_headers"}), "no_response"),
        ("chain-html", json!({"fault": "wrong_content_type"}), "wrong_content_type"),
    ] {
        gateway.simulator.rule("openai", mark, &behavior);
        gateway.simulator.rule("vllm", mark, &json!({"content": "the second serves"}));
        let response = send(&gateway, "failed", &ask("chain", mark));
        assert_eq!((response.status, response.content()), (200, "the second serves".to_owned()), "{mark}");
        assert_eq!(response.header("x-pointsman-model"), Some("second"), "{mark}");
        assert_eq!(response.header("x-pointsman-attempts"), Some("2"), "{mark}");
        assert!(gateway.simulator.of(response.trace_id()).iter().all(|seen| seen.json()["stream"] == true), "{mark}");
        let audit = gateway.audit(response.trace_id());
        assert_eq!(audit["failed_attempts"], json!([{"model": "first", "reason": reason}]), "{mark}: {audit}");
    }
    gateway.simulator.rule("openai", "alone-late", &json!({"fault": "hang_after_headers"}));
    let response = send(&gateway, "failed", &ask("assembled", "alone-late"));
    response.assert_refusal(504, "first_token_timeout");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_fails_after_it_is_an_error_with_a_status_and_costs_what_was_made() {
    let gateway = gateway();
    let after = |name: &str| json!({"fault": {name: {"after_chunks": 3}}, "chunks": 10});
    for (behavior, status, told, code) in [
        (after("error_event"), 502, "stream_error", "stream_error"),
        (after("malformed_json"), 502, "stream_malformed", "stream_malformed"),
        (after("truncate_event"), 502, "stream_truncated", "stream_truncated"),
        (after("reset_mid_stream"), 503, "provider_unreachable", "provider_unreachable"),
        (after("close_mid_stream"), 503, "provider_unreachable", "provider_unreachable"),
        (after("hang_mid_stream"), 504, "chunk_timeout", "chunk_timeout"),
    ] {
        for http2 in [false, true] {
            let call = Call::chat_json(&scripted("assembled", &behavior)).key("sk-failed");
            let response = gateway.send(if http2 { call.http2() } else { call });
            response.assert_refusal(status, told);
            assert_eq!(response.header("content-type"), Some("application/json"), "{behavior}");
            let audit = gateway.audit(response.trace_id());
            assert_eq!((&audit["error_code"], &audit["status"]), (&json!(code), &json!(status)), "{behavior}: {audit}");
            assert_eq!((&audit["model"], &audit["stream"]), (&json!("first"), &json!(false)), "{behavior}: {audit}");
            assert!(audit["output_tokens"].as_u64() > Some(0), "{behavior}: {audit}");
            assert_eq!(audit["usage_estimated"], true, "{behavior}: {audit}");
        }
    }
    // Nothing ends the answer but the end of its choice.
    let response = send(&gateway, "failed", &scripted("assembled", &json!({"content": "a b", "fault": "no_done"})));
    assert_eq!((response.status, response.content()), (200, "a b".to_owned()));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_cache_keeps_the_same_entry() {
    let gateway = gateway();
    let behavior =
        json!({"content": "kept é", "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}});
    let run = |task: &str| {
        let request = scripted(task, &behavior);
        let (miss, hit) = (send(&gateway, "cached", &request), send(&gateway, "cached", &request));
        let caches = [&miss, &hit].map(|response| response.header("x-pointsman-cache").map(str::to_owned));
        assert_eq!(caches, [Some("miss".to_owned()), Some("hit".to_owned())], "{task}");
        let mut stream = request;
        stream["stream"] = json!(true);
        let streamed = send(&gateway, "cached", &stream);
        assert_eq!(streamed.header("x-pointsman-cache"), Some("hit"), "{task}");
        // Its chunks without id and time.
        let chunks: Vec<Value> = streamed.events().iter().filter_map(|data| serde_json::from_str(data).ok()).collect();
        let chunks: Vec<Value> = chunks.into_iter().map(|chunk| chunk["choices"].clone()).collect();
        (timeless(&hit), chunks, timeless(&miss))
    };
    let assembled = run("cached");
    assert_eq!(assembled, run("plain-cached"));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_python_client_sees_no_difference() {
    let gateway = gateway();
    let (passed, said) = say(&gateway, &environment::path("POINTSMAN_PYTHON"), "python/assembled.py");
    assert!(passed, "{said}");
    for case in ["text", "choices", "tools", "schema", "error_in_the_middle", "timeout"] {
        assert!(said.lines().any(|line| line == format!("ok {case}")), "{case}: {said}");
    }
}
