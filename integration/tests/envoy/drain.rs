//! `pointsman up` stops without cutting off a request: it takes no new connections and waits for what is in flight.

use crate::standard::{POLICY, ask, streamed};
use pointsman_integration::call::Call;
use pointsman_integration::deadline::{PATIENCE, await_true};
use pointsman_integration::gateway::Gateway;
use pointsman_integration::raw::Connection;
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// Longer than the test waits for anything.
const LONG: &[&str] = &["--drain", "1h"];

fn says(gateway: &Gateway, words: &str) {
    gateway.process.await_line(words, |line| line.contains(words).then_some(()));
}

/// Waits until it has ended, and returns its exit status.
fn ends(gateway: &mut Gateway) -> Option<i32> {
    await_true("it to end", || !gateway.process.is_running());
    gateway.process.end()
}

/// A request by hand over a connection that stays open.
const MODELS: &str = "GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-acme\r\n\r\n";

/// An HTTP/2 connection whose frames are read by hand.
struct Http2(TcpStream);

impl Http2 {
    fn to(gateway: &Gateway) -> Self {
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
        Self(stream)
    }

    /// Sends GET /healthz.
    fn ask(&mut self) {
        // HPACK: GET, http, then the path and the authority as literals.
        let head = b"\x82\x86\x04\x08/healthz\x01\x01x";
        let mut frame = vec![0, 0, u8::try_from(head.len()).unwrap(), 1, 5, 0, 0, 0, 1];
        frame.extend_from_slice(head);
        self.0.write_all(&frame).unwrap();
    }

    /// Reads up to the first frame of this type.
    fn await_frame(&mut self, kind: u8) {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).unwrap();
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            self.0.read_exact(&mut payload).unwrap();
            if head[3] == kind {
                return;
            }
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_is_in_flight_ends_as_it_would_have_and_nothing_new_begins() {
    let mut gateway = Gateway::start_with(POLICY, LONG);
    let stream = |http2: bool| {
        let call = Call::chat_json(&streamed("big", &json!({"chunks": 60, "chunk_ms": 100}))).key("sk-acme");
        let mut open = if http2 { call.http2() } else { call }.open(gateway.address);
        assert!(open.next_piece().is_some());
        open
    };
    let mut idle = Connection::to(gateway.address);
    assert_eq!(idle.send(MODELS).response().status, 200);
    let mut idle_http2 = Http2::to(&gateway);
    idle_http2.await_frame(4);
    let streams = [stream(false), stream(true)];
    let ids = streams.each_ref().map(|open| open.trace_id());

    // Ctrl-C in a terminal reaches the whole process group.
    gateway.process.signal_group("INT");
    says(&gateway, "draining: 2 requests in flight; waiting for up to 3600 s");
    // Load balancers see it, and new connections are refused.
    assert_eq!(Call::new("GET", "/ready").send(gateway.admin).status, 503);
    await_true("new connections to be refused", || TcpStream::connect(gateway.address).is_err());
    // Connections that are open serve one more request, which is told to be the last.
    let last = idle.send(MODELS).response();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert!(idle.is_closed());
    idle_http2.ask();
    idle_http2.await_frame(7);

    let got = streams.map(|open| open.finish());
    for response in &got {
        assert!(response.complete && response.text().ends_with("data: [DONE]\n\n"), "{}", response.text());
    }
    for id in ids {
        assert_eq!(gateway.audit(&id)["error_code"], Value::Null);
    }
    assert_eq!(ends(&mut gateway), Some(0));
    assert!(!gateway.process.lines().iter().any(|line| line.contains("cut off")));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_the_end_of_the_drain_or_a_second_signal_cuts_off_is_recorded_as_such() {
    for (drain, signals) in [("100ms", 1), ("1h", 2), ("0s", 1)] {
        let mut gateway = Gateway::start_with(POLICY, &["--drain", drain]);
        let endless = json!({"chunks": 10_000, "chunk_bytes": 40, "chunk_ms": 20});
        let mut open = Call::chat_json(&streamed("big", &endless)).key("sk-acme").open(gateway.address);
        assert!(open.next_piece().is_some());
        let trace_id = open.trace_id();
        // One that has no answer yet.
        let mut silent = Connection::to(gateway.address);
        let mut request = ask("big", "[[sim:{\"delay_headers_ms\": 600000}]]");
        request["user"] = drain.into();
        let body = request.to_string();
        silent.send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-acme\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        let seen = gateway.simulator.await_request(drain, "the request to reach the provider", |_| true);

        gateway.process.signal("TERM");
        if signals == 2 {
            says(&gateway, "draining: 2 requests in flight");
            gateway.process.signal("TERM");
        }
        if drain != "0s" {
            says(&gateway, "stopping: 2 requests in flight cut off");
        }
        await_true("it to end", || !gateway.process.is_running());
        let audit = gateway.audit(&trace_id);
        assert_eq!((&audit["error_code"], &audit["status"]), (&json!("gateway_shutdown"), &json!(200)), "{audit}");
        // The provider did not fail, and what it sent is paid for.
        assert_eq!(audit["failed_attempts"], json!([]), "{audit}");
        assert!(audit["output_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{audit}");
        let audit = gateway.audit(seen.header("x-request-id").unwrap());
        assert_eq!((&audit["error_code"], &audit["status"]), (&json!("gateway_shutdown"), &json!(0)), "{audit}");
        assert_eq!((&audit["failed_attempts"], &audit["usage_estimated"]), (&json!([]), &json!(true)), "{audit}");
        assert_eq!(gateway.process.end(), Some(0));
    }
}

/// The signal that follows a finished request finds nothing to wait for.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn without_a_request_in_flight_it_ends_at_once() {
    let mut gateway = Gateway::start_with(POLICY, LONG);
    assert_eq!(gateway.chat("sk-acme", &ask("big", "hello")).status, 200);
    // A connection without a request is nothing to wait for either.
    let mut idle = Connection::to(gateway.address);
    assert_eq!(idle.send(MODELS).response().status, 200);
    gateway.process.signal("TERM");
    assert_eq!(ends(&mut gateway), Some(0));
    assert!(!gateway.process.lines().iter().any(|line| line.contains("draining")));
}
