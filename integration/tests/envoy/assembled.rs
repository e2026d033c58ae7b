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

/// One case of a test has a tenant of its own, so that it finds no charge of another.
const CASES: [&str; 5] = ["same", "left", "failed", "cached", "python"];

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

/// A provider's stream and the whole answer to the same question, as OpenAI, DeepSeek and vLLM send them.
fn pairs() -> Vec<(&'static str, Vec<Value>, Value)> {
    let chunk = |choices: Value| {
        json!({"id": "chatcmpl-B", "object": "chat.completion.chunk", "created": 1_741_569_952, "model": "m-2",
            "service_tier": "default", "system_fingerprint": "fp_1", "choices": choices, "usage": null,
            "obfuscation": "x"})
    };
    let usage = json!({"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 6, "audio_tokens": 0}});
    let of = |deltas: &[Value], finish: &str| {
        let choice = |delta: &Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]);
        let mut chunks: Vec<Value> = deltas.iter().map(|delta| chunk(choice(delta))).collect();
        chunks.push(chunk(json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": finish}])));
        let mut last = chunk(json!([]));
        last["usage"] = usage.clone();
        chunks.push(last);
        chunks
    };
    let whole = |choices: Value| {
        json!({"id": "chatcmpl-B", "object": "chat.completion", "created": 1_741_569_952, "model": "m-2",
            "service_tier": "default", "system_fingerprint": "fp_1", "choices": choices, "usage": usage})
    };
    let one = |message: Value, finish: &str| {
        whole(json!([{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}]))
    };
    let token = |text: &str, logprob: f64| {
        json!({"token": text, "logprob": logprob, "bytes": text.as_bytes(),
               "top_logprobs": [{"token": text, "logprob": logprob, "bytes": text.as_bytes()}]})
    };
    let logged = |text: &str, logprob: f64| {
        chunk(json!([{"index": 0, "delta": {"content": text}, "finish_reason": null,
                      "logprobs": {"content": [token(text, logprob)], "refusal": null}}]))
    };
    let mut with_logprobs = of(&[json!({"role": "assistant", "content": "", "refusal": null})], "stop");
    with_logprobs.splice(1..1, [logged("Hé", -0.317_253_05), logged("llo", -1e-7)]);
    let calls = |arguments: [&str; 2]| {
        json!([{"id": "call_a", "type": "function", "function": {"name": "f", "arguments": arguments[0]}},
               {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": arguments[1]}}])
    };
    let call = |index: u64, of: Value| {
        let mut of = of;
        of["index"] = json!(index);
        json!({"tool_calls": [of]})
    };
    let begun = calls(["", ""]);
    let open_ai = json!({"role": "assistant", "content": null, "refusal": null});
    vec![
        (
            "logprobs",
            with_logprobs,
            whole(json!([{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Héllo", "refusal": null, "annotations": []},
                "logprobs": {"content": [token("Hé", -0.317_253_05), token("llo", -1e-7)], "refusal": null}}])),
        ),
        (
            "parallel-tools",
            of(
                &[
                    open_ai.clone(),
                    call(0, begun[0].clone()),
                    call(0, json!({"function": {"arguments": "{\"x\""}})),
                    call(0, json!({"function": {"arguments": ":1}"}})),
                    call(1, begun[1].clone()),
                    call(1, json!({"function": {"arguments": "{}"}})),
                ],
                "tool_calls",
            ),
            one(
                json!({"role": "assistant", "content": null, "refusal": null, "annotations": [],
                       "tool_calls": calls(["{\"x\":1}", "{}"])}),
                "tool_calls",
            ),
        ),
        (
            "older-function",
            of(
                &[
                    json!({"role": "assistant", "content": null, "refusal": null,
                           "function_call": {"name": "f", "arguments": ""}}),
                    json!({"function_call": {"arguments": "{\"x\":"}}),
                    json!({"function_call": {"arguments": "1}"}}),
                ],
                "function_call",
            ),
            one(
                json!({"role": "assistant", "content": null, "refusal": null, "annotations": [],
                       "function_call": {"name": "f", "arguments": "{\"x\":1}"}}),
                "function_call",
            ),
        ),
        (
            "reasoning",
            of(
                &[
                    json!({"role": "assistant", "content": null, "reasoning_content": ""}),
                    json!({"content": null, "reasoning_content": "Let me "}),
                    json!({"content": null, "reasoning_content": "see.\n"}),
                    json!({"content": "42", "reasoning_content": null}),
                ],
                "stop",
            ),
            one(json!({"role": "assistant", "content": "42", "reasoning_content": "Let me see.\n"}), "stop"),
        ),
        (
            "refusal",
            of(&[open_ai, json!({"refusal": "I can"}), json!({"refusal": "not."})], "stop"),
            one(json!({"role": "assistant", "content": null, "refusal": "I cannot.", "annotations": []}), "stop"),
        ),
    ]
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
    for (mark, chunks, whole) in pairs() {
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
