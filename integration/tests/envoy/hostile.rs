//! Nothing that a caller or a provider sends makes the module trap: Envoy stays up, no VM is restarted, and the next
//! request works.

use crate::standard::{POLICY, ask, scripted};
use pointsman_integration::call::Call;
use pointsman_integration::gateway::{Gateway, Shared};
use pointsman_integration::raw::Connection;
use serde_json::json;
use std::sync::LazyLock;

/// Returns the gateway that these tests share. None of them does anything else to it than callers and providers can.
fn gateway() -> Shared {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| Gateway::start(POLICY));
    Shared::of(&GATEWAY)
}

/// A generator of the same numbers in every run (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }
}

/// Pieces of text that parsers stumble over.
const PIECES: [&[u8]; 24] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b"\\u",
    b"\\ud800",
    b"\\u0000",
    b",",
    b":",
    b"null",
    b"1e999",
    b"-",
    b"\xff",
    b"\xc3",
    b"\0",
    b"\"model\":",
    b"\"messages\":",
    b"\"stream\":true",
    b"\"stream_options\":{",
    b"\"max_tokens\":",
    b"99999999999999999999",
    b"\r\n\r\n",
];

fn seed_body(numbers: &mut Numbers) -> Vec<u8> {
    let all = [
        ask("small", "hello").to_string(),
        json!({"model": "extract", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
            "stream": true,
            "stream_options": {"include_usage": true}, "max_tokens": 5, "metadata": {"task": "extract"}, "user": "u",
            "n": 2})
        .to_string(),
        json!({"model": "spare", "seed": 1, "logit_bias": {"1": 2}, "messages": [{"role": "user", "content": "x"}],
            "max_completion_tokens": 9})
        .to_string(),
        json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "messages": [{"role": "user", "content": "x"}]})
        .to_string(),
    ];
    all[numbers.below(all.len())].clone().into_bytes()
}

fn mutate(body: &mut Vec<u8>, numbers: &mut Numbers) {
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(body.len() + 1);
        match numbers.below(6) {
            0 => drop(body.splice(at..at, PIECES[numbers.below(PIECES.len())].iter().copied())),
            1 if at < body.len() => body[at] = numbers.next() as u8,
            2 => drop(body.drain(at..(at + numbers.below(9)).min(body.len()))),
            3 => body.truncate(at),
            4 => {
                let from = numbers.below(body.len() + 1).min(at);
                let copy = body[from..at].to_vec();
                drop(body.splice(at..at, copy));
            }
            _ => {
                let count = numbers.below(200);
                drop(body.splice(at..at, std::iter::repeat_n(b'[', count)));
            }
        }
    }
}

/// Returns the statistics that change when a VM traps or is reloaded, and when Envoy itself restarts.
fn vms(gateway: &Gateway) -> Vec<(String, u64)> {
    let stats = gateway.stats();
    let moves = |name: &str| {
        name.contains("vm_reload")
            || name.contains("vm_failed")
            || name.ends_with("runtime.v8.created")
            || name == "server.restarts"
    };
    let mut all: Vec<_> = stats.into_iter().filter(|(name, _)| moves(name)).collect();
    all.sort();
    assert!(all.iter().any(|(name, value)| name.ends_with("runtime.v8.created") && *value > 0), "{all:?}");
    all
}

#[track_caller]
fn unharmed(gateway: &Gateway, before: &[(String, u64)]) {
    assert_eq!(vms(gateway), before, "a VM was lost");
    for _ in 0..8 {
        assert_eq!(gateway.chat("sk-acme", &ask("small", "still there")).status, 200);
    }
    assert!(gateway.process.is_running());
    let trap = gateway.process.lines().into_iter().find(|line| line.contains("panicked") || line.contains("Uncaught"));
    assert_eq!(trap, None);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn no_body_makes_it_trap() {
    let gateway = gateway();
    let before = vms(&gateway);
    let mut numbers = Numbers(0x00C0_FFEE);
    let mut statuses = std::collections::BTreeMap::new();
    for i in 0..1500 {
        let mut body = seed_body(&mut numbers);
        mutate(&mut body, &mut numbers);
        let shown = String::from_utf8_lossy(&body).into_owned();
        let call = match i % 3 {
            0 => Call::chat(body),
            1 => Call::chat("").pieces(body.chunks(1 + numbers.below(40)).map(<[u8]>::to_vec).collect::<Vec<_>>()),
            _ => Call::chat(body).http2(),
        };
        let status = gateway.send(call.key("sk-acme")).status;
        assert!(matches!(status, 200 | 400 | 404), "{status}: {shown}");
        *statuses.entry(status).or_insert(0) += 1;
    }
    // A fuzzer whose bodies are all refused for the same reason shows little.
    assert!(statuses.get(&200) > Some(&30) && statuses.get(&400) > Some(&300), "{statuses:?}");
    unharmed(&gateway, &before);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn no_head_makes_it_trap() {
    let gateway = gateway();
    let before = vms(&gateway);
    let mut numbers = Numbers(0xDECADE);
    let names = [
        "authorization",
        "x-api-key",
        "api-key",
        "x-pointsman-task",
        "x-pointsman-data-class",
        "content-encoding",
        "x-request-id",
        "content-type",
        "traceparent",
        "x-forwarded-proto",
        "x-forwarded-for",
        "x-envoy-max-retries",
        "accept",
        "x-\u{7f}",
        "cookie",
        "te",
    ];
    let paths =
        ["/v1/chat/completions", "/v1/models", "/healthz", "/", "*", "/v1/chat/completions?", "/%", "/\u{7f}", "x"];
    let methods = ["POST", "GET", "HEAD", "PUT", "CONNECT", "TRACE", "P"];
    for _ in 0..400 {
        let (method, path) = (methods[numbers.below(methods.len())], paths[numbers.below(paths.len())]);
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n").into_bytes();
        if numbers.below(2) == 0 {
            head.extend_from_slice(b"x-api-key: sk-acme\r\n");
        }
        for _ in 0..numbers.below(6) {
            head.extend_from_slice(names[numbers.below(names.len())].as_bytes());
            head.extend_from_slice(b": ");
            for _ in 0..numbers.below(20) {
                let byte = numbers.next() as u8;
                head.push(if matches!(byte, b'\r' | b'\n' | 0) { b'x' } else { byte });
            }
            head.extend_from_slice(b"\r\n");
        }
        let body = ask("small", "x").to_string();
        head.extend_from_slice(format!("connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes());
        let mut connection = Connection::to(gateway.address);
        connection.send(head);
        let answer = connection.response_to_head();
        assert!(answer.status < 500 || answer.status == 501, "{answer:?}");
    }
    unharmed(&gateway, &before);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn no_answer_makes_it_trap() {
    let gateway = gateway();
    let before = vms(&gateway);
    let mut numbers = Numbers(0xFACADE);
    let pieces: [&str; 16] = [
        "data: ",
        "\n\n",
        "\r\n\r\n",
        "\r",
        "{\"choices\":[{\"delta\":{\"content\":\"x\"}}]}",
        "[DONE]",
        "{",
        "}",
        ":",
        "event: x\n",
        "\"usage\":{\"prompt_tokens\":-1}",
        "{\"usage\":{\"prompt_tokens\":1e30}}",
        "{\"choices\":[]}",
        "null",
        "{\"error\":{}}",
        "é😀",
    ];
    for i in 0..400 {
        let body: String = (0..numbers.below(12)).map(|_| pieces[numbers.below(pieces.len())]).collect();
        let stream = i % 2 == 0;
        let kind = if stream { "text/event-stream" } else { "application/json" };
        let status = [200, 200, 200, 400, 500][numbers.below(5)];
        let mut request = scripted(
            "small",
            &json!({"status": status, "body": body, "content_type": kind, "split": {"bytes": 1 + numbers.below(9)}}),
        );
        request["stream"] = stream.into();
        let answer = gateway.chat("sk-acme", &request);
        assert!(matches!(answer.status, 200 | 400 | 502), "{}: {body:?}", answer.status);
    }
    unharmed(&gateway, &before);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn many_callers_at_once_that_leave_at_any_point_do_it_no_harm() {
    let gateway = gateway();
    let before = vms(&gateway);
    std::thread::scope(|scope| {
        for seed in 1..=8 {
            let gateway = &gateway;
            scope.spawn(move || {
                use std::io::{Read as _, Write as _};
                let mut numbers = Numbers(seed);
                for _ in 0..60 {
                    let mut request = scripted(
                        "away",
                        &json!({"chunks": 20, "chunk_ms": 2,
                        "ttft_ms": numbers.below(10)}),
                    );
                    request["stream"] = (numbers.below(2) == 0).into();
                    let body = request.to_string();
                    let text = format!(
                        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\ncontent-length: {}\r\n\
                         \r\n{body}",
                        body.len()
                    );
                    let mut stream = std::net::TcpStream::connect(gateway.address).unwrap();
                    let sent = if numbers.below(3) == 0 { numbers.below(text.len()) } else { text.len() };
                    stream.write_all(&text.as_bytes()[..sent]).unwrap();
                    if sent == text.len() {
                        let mut some = vec![0; numbers.below(600)];
                        let _ = stream.read(&mut some);
                    }
                }
            });
        }
    });
    unharmed(&gateway, &before);
}
