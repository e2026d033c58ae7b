//! Every fault, as the other end of the wire sees it.

use serde_json::{Value, json};

use crate::process::{Simulator, question};
use crate::raw::{Answer, End, exchange, exchange_until_silent, post};

fn faulty(stream: bool, fault: Value) -> Answer {
    let hangs = fault.to_string().contains("hang");
    let question = question(stream, &json!({"content": "a b c d e f", "fault": fault})).to_string();
    let sim = Simulator::start();
    let exchange = if hangs { exchange_until_silent } else { exchange };
    exchange(sim.address(), &post("/v1/chat/completions", &question))
}

#[test]
fn nothing_before_headers() {
    for (fault, end) in [
        ("reset_before_headers", End::Reset),
        ("close_before_headers", End::Closed),
        ("hang_before_headers", End::Silent),
    ] {
        let answer = faulty(true, json!(fault));
        assert_eq!((answer.status, answer.end), (0, end), "{fault}");
    }
}

#[test]
fn headers_then_nothing() {
    for stream in [true, false] {
        let answer = faulty(stream, json!("hang_after_headers"));
        assert_eq!((answer.status, answer.body.len(), answer.end), (200, 0, End::Silent));
    }
}

#[test]
fn the_middle_of_a_stream() {
    for (fault, end) in
        [("reset_mid_stream", End::Reset), ("close_mid_stream", End::Closed), ("hang_mid_stream", End::Silent)]
    {
        let answer = faulty(true, json!({fault: {"after_chunks": 3}}));
        assert_eq!((answer.status, answer.complete, answer.end), (200, false, end), "{fault}");
        assert_eq!(answer.streamed_text(), "a b c", "{fault}");
        let answer = faulty(true, json!({fault: {"after_chunks": 0}}));
        assert_eq!((answer.status, answer.events().len(), answer.end), (200, 0, end), "{fault}");
    }
}

#[test]
fn the_middle_of_a_document() {
    for (fault, end) in
        [("reset_mid_stream", End::Reset), ("close_mid_stream", End::Closed), ("hang_mid_stream", End::Silent)]
    {
        let answer = faulty(false, json!({fault: {}}));
        assert_eq!((answer.status, answer.complete, answer.end), (200, false, end), "{fault}");
        assert!(!answer.body.is_empty(), "{fault}");
    }
}

#[test]
fn an_event_is_truncated_though_the_response_ends_cleanly() {
    let answer = faulty(true, json!({"truncate_event": {"after_chunks": 2}}));
    assert_eq!((answer.complete, answer.end), (true, End::Closed));
    assert_eq!(answer.streamed_text(), "a b");
    assert!(answer.text().rsplit("\n\n").next().unwrap().starts_with("data: {"));
    let whole = faulty(true, json!({"truncate_event": {"after_chunks": 99}}));
    assert_eq!(whole.streamed_text(), "a b c d e f");
    assert!(whole.complete && !whole.text().contains("[DONE]"));
}

#[test]
fn done_is_missing() {
    let answer = faulty(true, json!("no_done"));
    assert!(answer.complete && !answer.text().contains("[DONE]"));
    assert_eq!(answer.streamed_text(), "a b c d e f");
}

#[test]
fn an_error_comes_inside_a_stream() {
    let answer = faulty(true, json!({"error_event": {"after_chunks": 0}}));
    let events = answer.events();
    assert_eq!((answer.status, answer.complete, events.len()), (200, true, 1));
    assert!(events[0].starts_with(r#"{"error":{"#));
    let own = faulty(true, json!({"error_event": {"after_chunks": 2, "json": {"error": 7}}}));
    assert_eq!(own.streamed_text(), "a b");
    assert_eq!(own.events().last().map(String::as_str), Some(r#"{"error":7}"#));
}

#[test]
fn json_is_malformed() {
    let answer = faulty(true, json!({"malformed_json": {"after_chunks": 1}}));
    let broken = answer.events().iter().filter(|data| serde_json::from_str::<Value>(data).is_err()).count();
    assert_eq!(broken, 2, "the broken one and [DONE]");
    assert_eq!(answer.streamed_text(), "a b c d e f");
    let document = faulty(false, json!({"malformed_json": {}}));
    assert!(document.complete && serde_json::from_slice::<Value>(&document.body).is_err());
}

#[test]
fn another_body_than_expected() {
    let html = faulty(true, json!("wrong_content_type"));
    assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(html.text().starts_with("<html>"));
    let empty = faulty(true, json!("empty_body"));
    assert_eq!((empty.status, empty.header("content-length")), (200, Some("0")));
}

#[test]
fn headers_are_oversized() {
    let answer = faulty(false, json!("oversized_headers"));
    assert_eq!(answer.header("x-simulator-oversized").map(str::len), Some(102_400));
    assert!(answer.json()["choices"].is_array());
}

#[test]
fn a_status_has_the_error_of_the_provider() {
    let sim = Simulator::start();
    let answer = sim.ask(true, &json!({"status": 429, "headers": [["retry-after", "2"], ["x-a", "1"], ["x-a", "2"]]}));
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("2")));
    assert_eq!(answer.headers.iter().filter(|(name, _)| name == "x-a").count(), 2);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded");
    assert!(sim.ask(false, &json!({"status": 401})).text().contains("org-SimSecretTenant42"));
    let own = sim.ask(false, &json!({"status": 503, "body": "no", "content_type": "text/plain"}));
    assert_eq!((own.status, own.text(), own.header("content-type")), (503, "no", Some("text/plain")));
    assert_eq!(sim.ask(false, &json!({"json": {"a": 1}})).json(), json!({"a": 1}));
}

#[test]
fn a_misspelt_directive_is_an_error() {
    let answer = Simulator::start().chat(&question(false, &json!({"falut": "no_done"})));
    assert_eq!(answer.status, 400);
    assert!(answer.json()["error"]["message"].as_str().unwrap().contains("unknown field `falut`"));
}

#[test]
fn a_fault_is_not_the_clients_doing_but_a_disconnect_is() {
    let sim = Simulator::start();
    sim.ask(true, &json!({"content": "a b c", "fault": {"reset_mid_stream": {"after_chunks": 2}}}));
    let cut = sim.last_request_until(|_| true);
    assert_eq!((&cut["aborted"], &cut["finished"], &cut["chunks_sent"]), (&json!(false), &json!(false), &json!(2)));
    for (before, behavior) in [
        json!({"chunks": 100, "chunk_ms": 20}),
        json!({"fault": "hang_before_headers"}),
        json!({"delay_headers_ms": 60_000}),
    ]
    .into_iter()
    .enumerate()
    {
        use std::io::Write as _;
        let mut stream = std::net::TcpStream::connect(sim.address()).unwrap();
        stream.write_all(&post("/v1/chat/completions", &question(true, &behavior).to_string())).unwrap();
        sim.last_request_until(|_| sim.requests().len() == before + 2);
        drop(stream);
        let left = sim.last_request_until(|last| last["aborted"] == true);
        assert_eq!(left["finished"], false, "{behavior}");
        assert!(left["body_text"].as_str().unwrap().contains("sim:"));
    }
    assert_eq!(sim.control("GET", "requests/count", &Value::Null), json!({"count": 4, "active": 0, "max_active": 1}));
    assert_eq!(exchange(sim.address(), &post("/v1/chat/completions", "{")).status, 400);
}

#[test]
fn only_signs_of_life_come() {
    use std::io::{Read as _, Write as _};
    let sim = Simulator::start();
    let fault = json!({"ping_only": {"after_chunks": 1, "every_ms": 1}});
    let body = question(true, &json!({"content": "a b c", "fault": fault})).to_string();
    let mut stream = std::net::TcpStream::connect(sim.address()).unwrap();
    stream.write_all(&post("/v1/chat/completions", &body)).unwrap();
    let mut text = String::new();
    let mut piece = [0; 4096];
    while text.matches(": keep-alive\n\n").count() < 5 {
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "{text}");
        text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
    }
    assert!(text.contains(r#""content":"a""#) && !text.contains(r#""content":" b""#), "{text}");
    drop(stream);
    sim.last_request_until(|last| last["aborted"] == true);
}

#[test]
fn a_fault_may_wait_for_the_events_before_the_content() {
    let answer = faulty(true, json!({"error_event": {"after_head": true}}));
    assert_eq!(answer.events().len(), 2);
    assert!(answer.events()[0].contains(r#""role":"assistant""#));
}
