//! Bodies that never end: each tenant holds a bounded part of Envoy's memory, and Envoy a bounded part of the
//! machine's.

use crate::standard::{POLICY, ask};
use pointsman_integration::call::Call;
use pointsman_integration::deadline::{await_some, await_true};
use pointsman_integration::gateway::Gateway;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// The standard policy with these bounds on requests.
fn with(bounds: &str) -> String {
    let (before, after) = POLICY.split_once("request: {max_nesting: 20}").expect("the policy has bounds");
    format!("{before}{bounds}{after}")
}

/// Begins an upload of `length` bytes and sends `sent` of them. Returns the connection, or the status of an answer that
/// came before the end.
fn begin(gateway: &Gateway, key: &str, length: usize, sent: usize) -> Result<TcpStream, u16> {
    let mut stream = TcpStream::connect(gateway.address).expect("connects");
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: {length}\r\n\r\n"
    );
    let piece = [b' '; 65_536];
    let mut write = || {
        stream.write_all(head.as_bytes())?;
        (0..sent / piece.len()).try_for_each(|_| stream.write_all(&piece))
    };
    // An answer that came early ends the connection, perhaps before all is written.
    let is_broken = write().is_err();
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("sets an option");
    let mut answer = [0; 64];
    match stream.read(&mut answer) {
        Ok(read) => Err(std::str::from_utf8(&answer[9..12.min(read)]).unwrap_or_default().parse().unwrap_or(0)),
        Err(_) if is_broken => Err(0),
        Err(_) => Ok(stream),
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_tenants_unfinished_uploads_are_bounded_by_number() {
    // Two workers, each of which holds three.
    let gateway = Gateway::start(&with("request: {tenant_uploads: 3}"));
    let begun: Vec<_> = (0..40).map(|_| begin(&gateway, "sk-acme", 1 << 20, 1 << 16)).collect();
    let (held, refused): (Vec<_>, Vec<_>) = begun.into_iter().partition(Result::is_ok);
    assert!((3..=6).contains(&held.len()), "{} are held", held.len());
    assert!(refused.iter().all(|refused| matches!(refused, Err(429 | 0))), "{refused:?}");
    // A request in one piece is no unfinished upload, and other tenants have their own.
    assert_eq!(gateway.chat("sk-acme", &ask("small", "hello")).status, 200);
    assert!(begin(&gateway, "sk-frugal", 1 << 20, 1 << 16).is_ok());
    let one_more = await_some("an upload that is refused", || {
        let call = Call::chat("").pieces(vec![vec![b' '; 1 << 16]; 12]).key("sk-acme");
        let answer = gateway.send(call);
        (answer.status == 429).then_some(answer)
    });
    one_more.assert_refusal(429, "too_many_uploads");
    assert_eq!(one_more.header("retry-after"), Some("1"));
    assert_eq!(gateway.audit(one_more.trace_id())["error_code"], "too_many_uploads");
    drop(held);
    await_true("all places to be free again", || {
        let again: Vec<_> = (0..3).map(|_| begin(&gateway, "sk-acme", 1 << 20, 1 << 16)).collect();
        again.iter().all(Result::is_ok)
    });
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_tenants_unfinished_uploads_are_bounded_by_size() {
    let bounds = "request: {max_body_bytes: 1048576, tenant_upload_bytes: 2097152}";
    let gateway = Gateway::start(&with(bounds));
    let begun: Vec<_> = (0..16).map(|_| begin(&gateway, "sk-acme", 1 << 20, 15 << 16)).collect();
    let held = begun.iter().filter(|begun| begun.is_ok()).count();
    assert!((2..=4).contains(&held), "{held} are held by two workers");
    assert!(begin(&gateway, "sk-frugal", 1 << 20, 15 << 16).is_ok());
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn envoy_refuses_requests_before_its_memory_is_full_and_recovers() {
    let bounds = "request: {tenant_uploads: 1000000, tenant_upload_bytes: 17179869184}";
    let gateway = Gateway::start_with(&with(bounds), &["--max-heap", "192MiB"]);
    let mut held = Vec::new();
    let refused = await_some("Envoy to refuse", || {
        held.extend(begin(&gateway, "sk-acme", 30 << 20, 28 << 20).ok());
        let answer = gateway.chat("sk-frugal", &ask("small", "hello"));
        (answer.status == 503).then_some(answer)
    });
    refused.assert_refusal(503, "gateway_error");
    drop(held);
    await_true("Envoy to recover", || gateway.chat("sk-frugal", &ask("small", "hello")).status == 200);
}
