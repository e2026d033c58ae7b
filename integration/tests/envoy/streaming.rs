//! A stream reaches the caller as it arrives, however it is divided, and its usage is known even if the caller leaves
//! halfway.

use crate::standard::{gateway, streamed};
use pointsman_integration::call::Call;
use serde_json::{Value, json};

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_caller_sees_the_first_chunk_before_the_last_is_sent() {
    let gateway = gateway();
    for http2 in [false, true] {
        let mark = format!("paced-{http2}");
        let request = streamed("small", &json!({"content": format!("first {mark} middle last"), "chunk_ms": 250}));
        let call = Call::chat_json(&request).key("sk-acme");
        let mut open = if http2 { call.http2() } else { call }.open(gateway.address);
        let trace_id = open.trace_id();
        let start = open.read_until("first");
        assert!(!start.contains("last"));
        assert!(!gateway.simulator.only(&trace_id).finished, "the provider had sent everything already");
        let rest = open.finish();
        assert!(
            rest.complete && rest.text().contains("last") && rest.text().ends_with("data: [DONE]\n\n"),
            "{}",
            rest.text()
        );
        assert!(rest.arrivals.len() >= 3, "chunks were held back and sent together");
        let audit = gateway.audit(&trace_id);
        let (first, all) = (audit["time_to_first_token_ms"].as_u64().unwrap(), audit["latency_ms"].as_u64().unwrap());
        assert!(first < all, "{audit}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn usage_is_asked_of_the_provider_and_shown_to_who_asked_for_it() {
    let gateway = gateway();
    for (options, shown) in [
        (Value::Null, false),
        (json!({}), false),
        (json!({"include_usage": false}), false),
        (json!({"include_usage": true}), true),
    ] {
        let mut request = streamed("big", &json!({"content": "one two three"}));
        if !options.is_null() {
            request["stream_options"] = options.clone();
        }
        let answer = gateway.chat("sk-acme", &request);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
        assert_eq!(gateway.upstream(&answer).json()["stream_options"]["include_usage"], true);
        let events = answer.events();
        assert_eq!(answer.streamed_text(), "one two three");
        assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
        let extra = |event: &&String| event.contains("\"choices\":[]");
        assert_eq!(events.iter().filter(extra).count(), usize::from(shown), "{options}");
        let audit = gateway.audit(answer.trace_id());
        assert_eq!((&audit["output_tokens"], &audit["usage_estimated"]), (&json!(3), &json!(false)));
        assert_eq!(audit["stream"], true);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_pieces_of_a_stream_do_not_matter() {
    let gateway = gateway();
    let content = "naïve 😀 \"quoted\" \\ data: x\n\ny";
    for dress in [
        json!({}),
        json!({"split": {"bytes": 1}}),
        json!({"split": {"bytes": 3, "ms": 1}}),
        json!({"crlf": true}),
        json!({"crlf": true, "split": {"bytes": 1}}),
        json!({"comments": true}),
        json!({"comments": true, "crlf": true, "split": {"bytes": 2}}),
        json!({"trailing_bytes": true}),
        json!({"chunk_bytes": 1}),
    ] {
        let mut behavior = dress.clone();
        behavior["content"] = content.into();
        let answer = gateway.chat("sk-acme", &streamed("big", &behavior));
        assert_eq!((answer.status, answer.complete), (200, true), "{dress}");
        assert_eq!(answer.streamed_text(), content, "{dress}");
        assert!(!answer.text().contains("\"choices\":[]"), "{dress}");
        assert!(answer.events().contains(&"[DONE]".to_owned()), "{dress}");
        let audit = gateway.audit(answer.trace_id());
        assert_eq!((&audit["usage_estimated"], &audit["error_code"]), (&json!(false), &Value::Null), "{dress}");
        assert!(audit["output_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{dress}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_stream_without_usage_is_charged_by_its_text() {
    let gateway = gateway();
    for usage in [json!("omit"), Value::Null] {
        let mut request = streamed("big", &json!({"content": "twenty bytes of text", "usage": usage}));
        request["stream_options"] = json!({"include_usage": true});
        let answer = gateway.chat("sk-acme", &request);
        let audit = gateway.audit(answer.trace_id());
        assert_eq!((&audit["usage_estimated"], &audit["output_tokens"]), (&json!(true), &json!(6)), "{audit}");
        assert!(audit["estimated_cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{audit}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_caller_that_leaves_cancels_the_provider_and_is_charged_for_what_it_saw() {
    let gateway = gateway();
    for http2 in [false, true] {
        let mark = format!("abandoned-{http2}");
        let behavior = json!({"chunks": 10_000, "chunk_bytes": 40, "chunk_ms": 20});
        let mut request = streamed("big", &behavior);
        request["user"] = mark.clone().into();
        let call = Call::chat_json(&request).key("sk-acme");
        let mut open = if http2 { call.http2() } else { call }.open(gateway.address);
        let trace_id = open.trace_id();
        for _ in 0..5 {
            assert!(open.next_piece().is_some());
        }
        drop(open);
        let seen =
            gateway.simulator.await_request(&mark, "the provider's request to be cancelled", |seen| seen.aborted);
        assert!(seen.chunks_sent < 5000, "{}", seen.chunks_sent);
        let audit = gateway.audit(&trace_id);
        assert_eq!(
            (&audit["error_code"], &audit["usage_estimated"]),
            (&json!("client_disconnected"), &json!(true)),
            "{audit}"
        );
        // It had got a 200, but that is not how it ended.
        assert_eq!(audit["status"], 499, "{audit}");
        let labels =
            [("tenant_tier", "pro"), ("task", "none"), ("provider", "openai"), ("model", "big"), ("status", "499")];
        assert!(crate::metrics::value(&gateway.metrics(), "llm_requests_total", &labels) >= Some(1));
        let tokens = audit["output_tokens"].as_u64().unwrap();
        // Some ten tokens for each forty bytes: no more than the provider sent, and no less than the caller read.
        assert!((50..=30 * (seen.chunks_sent + 1)).contains(&tokens), "{tokens} for {} chunks", seen.chunks_sent);
        assert!(audit["estimated_cost_usd"].as_f64().is_some_and(|cost| cost > 0.0));
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_caller_that_leaves_before_the_first_token_cancels_the_provider_and_is_charged_for_its_prompt() {
    let gateway = gateway();
    for stream in [false, true] {
        let mark = format!("left-early-{stream}");
        let mut request = streamed("big", &json!({"delay_headers_ms": 60_000}));
        request["stream"] = stream.into();
        request["user"] = mark.clone().into();
        let call = Call::chat_json(&request).key("sk-acme");
        let start = std::time::Instant::now();
        let connection = {
            use std::io::Write as _;
            let body = request.to_string();
            let head = format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let mut stream = std::net::TcpStream::connect(gateway.address).unwrap();
            stream.write_all((head + &body).as_bytes()).unwrap();
            stream
        };
        drop(call);
        let seen = gateway.simulator.await_request(&mark, "the request to reach the provider", |_| true);
        drop(connection);
        gateway.simulator.await_request(&mark, "the provider's request to be cancelled", |seen| seen.aborted);
        let audit = gateway.audit(seen.header("x-request-id").unwrap());
        assert_eq!(
            (&audit["error_code"], &audit["failed_attempts"], &audit["status"]),
            (&json!("client_disconnected"), &json!([]), &json!(499)),
            "{audit}"
        );
        // The provider has read the prompt, and may have generated for as long as it was asked.
        let most = u64::try_from(start.elapsed().as_millis()).unwrap().div_ceil(10);
        assert!(audit["output_tokens"].as_u64() <= Some(most), "{audit}");
        assert_eq!(audit["usage_estimated"], true, "{audit}");
        assert!(audit["estimated_cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{audit}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn tool_calls_are_streamed_and_their_names_audited() {
    let gateway = gateway();
    let mut request =
        streamed("small", &json!({"tool_calls": [{"name": "look_up", "arguments": {"city": "Bern", "n": 12}}]}));
    request["tools"] = json!([
        {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "send_mail", "parameters": {"type": "object"}}},
    ]);
    let answer = gateway.chat("sk-acme", &request);
    let events: Vec<Value> = answer.events().iter().filter_map(|data| serde_json::from_str(data).ok()).collect();
    let arguments: String =
        events.iter().filter_map(|e| e.pointer("/choices/0/delta/tool_calls/0/function/arguments")?.as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), json!({"city": "Bern", "n": 12}));
    assert!(events.iter().any(|e| e.pointer("/choices/0/finish_reason") == Some(&json!("tool_calls"))));
    assert_eq!(gateway.audit(answer.trace_id())["tool_names"], json!(["look_up", "send_mail"]));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn several_choices_are_streamed_together() {
    let gateway = gateway();
    let mut request = streamed("big", &json!({"content": "a b"}));
    request["n"] = 3.into();
    let answer = gateway.chat("sk-acme", &request);
    let indexes: Vec<u64> = answer
        .events()
        .iter()
        .filter_map(|data| serde_json::from_str::<Value>(data).ok()?.pointer("/choices/0/index")?.as_u64())
        .collect();
    assert!([0, 1, 2].iter().all(|index| indexes.contains(index)), "{indexes:?}");
    assert_eq!(gateway.audit(answer.trace_id())["output_tokens"], 6);
}
