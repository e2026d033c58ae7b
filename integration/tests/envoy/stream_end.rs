//! A stream is over at its end marker or at an error, even if its provider holds the response open; and a caller that
//! does not read is not taken for a provider that has fallen silent.

use crate::unsteady::request;
use pointsman_integration::call::Call;
use pointsman_integration::environment::envoy_version;
use pointsman_integration::gateway::{Gateway, Shared, cluster};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::LazyLock;

/// `lone` takes one request at a time. `hinting` sends a 103 before its response.
const POLICY: &str = r#"
resilience: {chunk_timeout: 40s}
providers:
  dead: {dialect: openai, local: true, data: regulated}
  vllm: {dialect: openai, local: true, data: regulated}
  ollama: {dialect: openai, local: true, data: regulated}
  hinting: {dialect: openai, local: true, data: regulated}
models:
  gone: {provider: dead, model: gone-1, level: local, context: 32768, max_output_tokens: 512,
    price: {input: 2, output: 8}}
  lone: {provider: vllm, model: lone-1, level: local, context: 32768, max_output_tokens: 512,
    price: {input: 2, output: 8}, max_concurrent: 1}
  next: {provider: ollama, model: next-1, level: local, context: 32768, max_output_tokens: 512,
    price: {input: 2, output: 8}}
  hinting: {provider: hinting, model: hinting-1, level: local, context: 32768, max_output_tokens: 512,
    price: {input: 2, output: 8}}
tasks:
  backed: {primary: gone, fallback: [lone]}
  lone-first: {primary: lone, fallback: [next]}
  hinting-first: {primary: hinting, fallback: [next]}
tiers:
  all: {models: [gone, lone, next, hinting]}
tenants:
  acme: {tier: all, keys: [<sk-acme>]}
"#;

/// A provider that answers every request with these bytes.
fn provider(response: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = listener.local_addr().expect("has an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let mut bytes = vec![0; 64 << 10];
                while stream.read(&mut bytes).is_ok_and(|n| n > 0) {
                    // A request of these tests arrives at once, or in two parts: headers and body.
                    if bytes.windows(9).any(|window| window == b"\"messages") {
                        bytes.fill(0);
                        if stream.write_all(response.as_bytes()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

fn gateway() -> Shared {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| {
        let hinting = provider(
            "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n\
             HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\n{}",
        );
        Gateway::start_over(POLICY, &[], |_| vec![("hinting", cluster("hinting", hinting, ""))])
    });
    Shared::of(&GATEWAY)
}

fn call(task: &str, prompt: &str, stream: bool) -> Call {
    Call::chat_json(&request(task, prompt, stream)).key("sk-acme")
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_stream_that_is_over_frees_its_place_and_is_ended() {
    let gateway = gateway();
    let chunk = json!({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": null}]});
    let stop = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    for (mark, last, sees, code) in [
        ("over-by-error", "{\"error\":{\"message\":\"no memory\"}}", "stream_error", json!("stream_error")),
        ("over-by-garbage", "{oops", "stream_malformed", json!("stream_malformed")),
        ("over-by-marker", "[DONE]", "[DONE]", Value::Null),
    ] {
        let body = format!("data: {chunk}\n\ndata: {stop}\n\ndata: {last}\n\n");
        let behavior = json!({"body": body, "content_type": "text/event-stream", "end_ms": 600_000});
        for task in ["lone-first", "backed"] {
            let mark = format!("{mark}-{task}");
            gateway.simulator.rule("vllm", &mark, &behavior);
            let mut open = call(task, &mark, true).open(gateway.address);
            assert_eq!(open.header("x-pointsman-model"), Some("lone"), "{mark}");
            let text = open.read_until(sees);
            assert!(text.ends_with("\n\n") && text.contains("Hi"), "{mark}: {text}");
            // The only place is free, although the response is still open.
            let other = gateway.send(call("lone-first", "other", false));
            assert_eq!(other.header("x-pointsman-model"), Some("lone"), "{mark}: {other:?}");
            let trace_id = open.trace_id();
            assert_eq!(open.next_piece(), None, "{mark}: nothing follows, and it ends");
            gateway.simulator.await_request(&mark, "the provider's request to be cancelled", |seen| seen.aborted);
            let audit = gateway.audit(&trace_id);
            assert_eq!((&audit["error_code"], &audit["status"]), (&code, &json!(200)), "{mark}: {audit}");
            assert!(audit["estimated_cost_usd"].as_f64().is_some_and(|cost| cost > 0.0), "{mark}: {audit}");
        }
    }
    let other = gateway.send(call("lone-first", "the last", false));
    assert_eq!(other.header("x-pointsman-model"), Some("lone"));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_caller_that_does_not_read_is_recorded_as_such() {
    let gateway = gateway();
    // More than Envoy and both kernels hold, except Envoy 1.36, whose limit for requests applies to responses too.
    gateway.simulator.rule("ollama", "unread", &json!({"chunks": 6000, "chunk_bytes": 4096}));
    let (code, status) = match envoy_version() {
        version if version >= (1, 38) => (json!("client_slow"), 499),
        (1, 37) => (json!("chunk_timeout"), 200),
        _ => (Value::Null, 200),
    };
    let body = request("next", "unread", true).to_string();
    let mut caller = TcpStream::connect(gateway.address).expect("connects");
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\ncontent-length:";
    caller.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes()).expect("sends");
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        caller.read_exact(&mut byte).expect("has a head");
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let trace_id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).expect("has an x-request-id");
    let audit = gateway.audit(trace_id);
    assert_eq!((&audit["error_code"], &audit["status"]), (&code, &json!(status)), "{audit}");
    assert!(audit["output_tokens"].as_u64().is_some_and(|tokens| tokens > 1000), "charged for what passed: {audit}");
    let errors = |line: &String| line.starts_with("llm_provider_errors_total") && line.contains("ollama");
    assert_eq!(gateway.metrics().iter().any(errors), code == "chunk_timeout");
    gateway.simulator.await_request("unread", "the provider's request to end", |seen| seen.aborted != code.is_null());
    drop(caller);
}

/// Envoy's router gives up its retries at an informational response. When this fails, Envoy has learned to retry: then
/// take the sentence out of not-supported.md.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_provider_that_sends_an_informational_response_first_does_not_fall_back() {
    let gateway = gateway();
    for stream in [false, true] {
        let answer = gateway.send(call("hinting-first", "hello", stream));
        answer.assert_refusal(503, "provider_unavailable");
        let audit = gateway.audit(answer.trace_id());
        assert_eq!(audit["failed_attempts"], json!([{"model": "hinting", "reason": "status_503"}]), "{audit}");
        assert_eq!(audit["fallback_used"], false, "{audit}");
    }
}
