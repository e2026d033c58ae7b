//! A prompt of 20 MB passes unchanged. A body beyond the policy's limit is refused, however it is sent.

use crate::standard::{ask, gateway as standard};
use pointsman_integration::call::Call;
use pointsman_integration::gateway::{Gateway, Shared};
use pointsman_integration::raw::Connection;
use serde_json::json;
use std::sync::LazyLock;

const LIMIT: usize = 100_000;

fn small_limit() -> Shared {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| {
        Gateway::start(&format!(
            "
request: {{max_body_bytes: {LIMIT}}}
providers: {{vllm: {{dialect: openai, data: regulated}}}}
models: {{small: {{provider: vllm, model: q, level: local, context: 100000000, max_output_tokens: 512}}}}
tiers: {{free: {{models: [small]}}}}
tenants: {{acme: {{tier: free, keys: [<sk-acme>]}}}}
"
        ))
    });
    Shared::of(&GATEWAY)
}

/// Returns a request of exactly this many bytes.
fn of_size(bytes: usize, mark: &str) -> Vec<u8> {
    let empty = ask("small", mark).to_string();
    ask("small", &format!("{mark}{}", "x".repeat(bytes - empty.len()))).to_string().into_bytes()
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_body_of_the_limit_passes_and_one_byte_more_does_not() {
    let gateway = small_limit();
    for (bytes, status) in [(LIMIT, 200), (LIMIT + 1, 413), (LIMIT * 10, 413)] {
        let body = of_size(bytes, "sized");
        let pieces: Vec<_> = body.chunks(8192).map(<[u8]>::to_vec).collect();
        for call in [
            Call::chat(body.clone()),
            Call::chat(body.clone()).http2(),
            Call::chat("").pieces(pieces.clone()),
            Call::chat("").pieces(pieces.clone()).http2(),
            Call::chat("").http2().pieces(pieces.clone()).trailer("x-sum", "1"),
        ] {
            let answer = gateway.send(call.clone().key("sk-acme"));
            assert_eq!(answer.status, status, "{bytes}");
            if status == 413 {
                answer.assert_refusal(413, "request_too_large");
                assert_eq!(gateway.audit(answer.trace_id())["error_code"], "request_too_large");
            } else {
                assert_eq!(gateway.upstream(&answer).body.len(), bytes - "small".len() + "q".len());
            }
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_length_beyond_the_limit_is_refused_before_the_body_comes() {
    let gateway = small_limit();
    let mut connection = Connection::to(gateway.address);
    connection.send(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\ncontent-length: 99999999999\r\n\r\n",
    );
    let answer = connection.response();
    assert_eq!(answer.status, 413);
    assert!(answer.text().contains("request_too_large"), "{}", answer.text());
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn twenty_megabytes_pass_whole_over_http1_and_http2() {
    // A separate gateway, because the simulator keeps 64 MiB of bodies.
    let gateway = Gateway::start(&crate::standard::POLICY.replace("context: 1000000", "context: 100000000"));
    // The bytes differ, so that a lost or doubled piece shows.
    let prompt: String = (0..20_000_000).map(|at: u32| char::from(b'a' + (at % 23) as u8)).collect();
    let body = format!(r#"{{"model":"big","messages":[{{"role":"user","content":"{prompt}"}}]}}"#).into_bytes();
    let expected = format!(r#"{{"model":"gpt-4.1","messages":[{{"role":"user","content":"{prompt}"}}]}}"#);
    for call in [
        Call::chat(body.clone()),
        Call::chat("").pieces(body.chunks(60_000).map(<[u8]>::to_vec)),
        Call::chat(body.clone()).http2(),
    ] {
        let mark = gateway.simulator.mark();
        let answer = gateway.send(call.key("sk-acme"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = gateway.simulator.requests(mark);
        assert_eq!(seen.len(), 1);
        assert!(seen[0].body == expected.as_bytes(), "20 MB changed on their way");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_long_answer_passes_whole() {
    let gateway = standard();
    for stream in [false, true] {
        let behavior = json!({"chunks": 2000, "chunk_bytes": 1000});
        let mut request = ask("small", &format!("[[sim:{behavior}]]"));
        request["stream"] = stream.into();
        let answer = gateway.chat("sk-acme", &request);
        assert_eq!((answer.status, answer.complete), (200, true));
        let text = if stream { answer.streamed_text() } else { answer.content() };
        assert_eq!(text.len(), 2_000_000, "stream: {stream}");
        assert_eq!(gateway.audit(answer.trace_id())["output_tokens"], 2000);
    }
}
