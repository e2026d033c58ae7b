//! Anthropic's Messages on the wire: answers, refusals, and every fault in that dialect.

use serde_json::{Value, json};

use crate::process::Simulator;
use crate::raw::{Answer, End, exchange, exchange_until_silent, get, post, post_with};

const HEADERS: &str = "x-api-key: sk-test\r\nanthropic-version: 2023-06-01\r\ncontent-type: application/json\r\n";

fn send(sim: &Simulator, path: &str, body: &Value) -> Answer {
    exchange(sim.address(), &post_with(path, HEADERS, body.to_string().as_bytes()))
}

fn question(stream: bool, behavior: &Value) -> Value {
    let content = format!("[[sim:{behavior}]]");
    let messages = json!([{"role": "user", "content": content}]);
    json!({"model": "m", "max_tokens": 2048, "stream": stream, "messages": messages})
}

fn ask(sim: &Simulator, stream: bool, behavior: &Value) -> Answer {
    send(sim, "/v1/messages", &question(stream, behavior))
}

fn faulty(stream: bool, fault: &Value) -> Answer {
    let body = question(stream, &json!({"content": "a b c", "fault": fault})).to_string();
    let sim = Simulator::start();
    let hangs = fault.to_string().contains("hang");
    let exchange = if hangs { exchange_until_silent } else { exchange };
    exchange(sim.address(), &post_with("/v1/messages", HEADERS, body.as_bytes()))
}

fn names(answer: &Answer) -> Vec<String> {
    answer.named_events().into_iter().map(|(name, _)| name).collect()
}

fn text(answer: &Answer) -> String {
    let events = answer.named_events();
    events.iter().filter_map(|(_, event)| event.pointer("/delta/text")?.as_str()).collect()
}

#[test]
fn a_message_is_one_document_with_the_providers_headers() {
    let sim = Simulator::with(1, &["--name", "anthropic"]);
    let answer = send(&sim, "/v1/messages?beta=true", &question(false, &json!({"content": "Grüezi"})));
    assert_eq!((answer.status, answer.complete), (200, true));
    let document = answer.json();
    assert_eq!((&document["type"], &document["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(document["content"], json!([{"type": "text", "text": "Grüezi"}]));
    assert!(answer.header("request-id").unwrap().starts_with("req_sim"));
    assert_eq!(answer.header("anthropic-ratelimit-requests-limit"), Some("4000"));
    assert!(answer.header("anthropic-ratelimit-tokens-reset").unwrap().ends_with('Z'));
    assert_eq!(answer.header("server"), Some("pointsman-simulator"));
}

#[test]
fn a_stream_has_its_events_in_order() {
    let sim = Simulator::start();
    let answer = ask(&sim, true, &json!({"content": "one two", "cached_tokens": 3}));
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(answer.chunks.len(), names(&answer).len(), "an event is a chunk");
    let expected = [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ];
    assert_eq!((names(&answer), text(&answer).as_str()), (expected.map(str::to_owned).to_vec(), "one two"));
    let events = answer.named_events();
    assert_eq!(events[0].1["message"]["usage"]["cache_read_input_tokens"], 3);
    assert_eq!(events[6].1["usage"]["output_tokens"], 2);
    assert!(!answer.text().contains("[DONE]"));
}

#[test]
fn usage_is_as_told() {
    let sim = Simulator::start();
    let usage = json!({"input_tokens": 7, "output_tokens": 8});
    let told = ask(&sim, true, &json!({"usage": usage, "usage_start": {"input_tokens": 1, "output_tokens": 0}}));
    let events = told.named_events();
    assert_eq!(events[0].1["message"]["usage"], json!({"input_tokens": 1, "output_tokens": 0}));
    assert_eq!(events[events.len() - 2].1["usage"], usage);
    let told = ask(&sim, true, &json!({"usage": usage})).named_events();
    assert_eq!(told[0].1["message"]["usage"], json!({"input_tokens": 7, "output_tokens": 1}));
    assert!(!ask(&sim, true, &json!({"usage": "omit"})).text().contains("usage"));
    assert_eq!(ask(&sim, false, &json!({"usage": usage})).json()["usage"], usage);
}

#[test]
fn what_anthropic_refuses_is_refused_in_its_form() {
    let sim = Simulator::start();
    let body = question(false, &json!({})).to_string();
    let without_version = exchange(sim.address(), &post("/v1/messages", &body));
    assert_eq!(without_version.status, 400);
    assert_eq!(without_version.json()["error"]["message"], "anthropic-version: header is required");
    let refused = send(&sim, "/v1/messages", &json!({"model": "m", "messages": [{"role": "user", "content": "?"}]}));
    let document = refused.json();
    assert_eq!((refused.status, &document["type"]), (400, &json!("error")));
    assert_eq!(document["error"], json!({"type": "invalid_request_error", "message": "max_tokens: Field required"}));
    assert_eq!(document["request_id"].as_str(), refused.header("request-id"));
    assert_eq!(exchange(sim.address(), &get("/v1/messages")).json()["type"], "error");
    let misspelt = ask(&sim, false, &json!({"falut": "no_done"}));
    assert!(misspelt.json()["error"]["message"].as_str().unwrap().contains("unknown field `falut`"));
}

#[test]
fn a_status_has_its_type_of_error() {
    let sim = Simulator::start();
    for (status, kind) in [(401, "authentication_error"), (429, "rate_limit_error"), (529, "overloaded_error")] {
        let answer = ask(&sim, true, &json!({"status": status, "headers": [["retry-after", "2"]]}));
        assert_eq!((answer.status, answer.header("retry-after")), (status, Some("2")));
        assert_eq!(answer.json()["error"]["type"], kind);
    }
    assert!(ask(&sim, false, &json!({"status": 401})).text().contains("org-SimSecretTenant42"));
}

#[test]
fn tokens_are_counted_and_models_listed() {
    let sim = Simulator::start();
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "12345678"}]});
    assert_eq!(send(&sim, "/v1/messages/count_tokens", &body).json(), json!({"input_tokens": 5}));
    assert_eq!(send(&sim, "/v1/messages/count_tokens", &json!({"model": "m"})).status, 400);
    let models = |headers: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: s\r\n{headers}connection: close\r\n\r\n");
        exchange(sim.address(), request.as_bytes())
    };
    let listed = models(HEADERS, "/v1/models?limit=1000").json();
    assert_eq!((&listed["data"][0]["type"], &listed["last_id"]), (&json!("model"), &json!("sim-large")));
    assert_eq!(models("", "/v1/models").json()["object"], "list");
    assert_eq!(models(HEADERS, "/v1/models/sim-small").json()["display_name"], "sim-small (simulated)");
    assert_eq!(models("", "/v1/models/sim-small").json()["object"], "model");
    let unknown = models(HEADERS, "/v1/models/none");
    assert_eq!((unknown.status, &unknown.json()["error"]["type"]), (404, &json!("not_found_error")));
}

#[test]
fn the_request_is_kept_byte_for_byte() {
    let sim = Simulator::start();
    let body = r#"{"max_tokens" : 9, "model":"m", "x": 1e2,"messages":[{"role":"user","content":"\u00e9"}]}"#;
    let headers = "x-api-key: sk-test\r\nanthropic-version: 2026-10-21\r\nanthropic-beta: a-1,b-2\r\n";
    let answer = exchange(sim.address(), &post_with("/v1/messages?beta=true", headers, body.as_bytes()));
    assert_eq!(answer.status, 200);
    let kept = sim.requests().pop().unwrap();
    assert_eq!((&kept["body_text"], &kept["path"]), (&json!(body), &json!("/v1/messages?beta=true")));
    for header in [["x-api-key", "sk-test"], ["anthropic-version", "2026-10-21"], ["anthropic-beta", "a-1,b-2"]] {
        assert!(kept["headers"].as_array().unwrap().contains(&json!(header)), "{header:?}");
    }
}

#[test]
fn nothing_before_headers_or_after_them() {
    for (fault, end) in [
        ("reset_before_headers", End::Reset),
        ("close_before_headers", End::Closed),
        ("hang_before_headers", End::Silent),
    ] {
        let answer = faulty(true, &json!(fault));
        assert_eq!((answer.status, answer.end), (0, end), "{fault}");
    }
    let answer = faulty(true, &json!("hang_after_headers"));
    assert_eq!((answer.status, answer.body.len(), answer.end), (200, 0, End::Silent));
}

#[test]
fn the_middle_of_a_stream() {
    for (fault, end) in
        [("reset_mid_stream", End::Reset), ("close_mid_stream", End::Closed), ("hang_mid_stream", End::Silent)]
    {
        let answer = faulty(true, &json!({fault: {"after_chunks": 2}}));
        assert_eq!((answer.status, answer.complete, answer.end), (200, false, end), "{fault}");
        assert_eq!(text(&answer), "a b", "{fault}");
        let answer = faulty(true, &json!({fault: {}}));
        assert_eq!((names(&answer).len(), answer.end), (0, end), "{fault}");
        let answer = faulty(true, &json!({fault: {"after_head": true}}));
        assert_eq!((names(&answer), answer.end), (vec!["message_start".into(), "ping".into()], end), "{fault}");
        let answer = faulty(false, &json!({fault: {}}));
        assert_eq!((answer.complete, answer.body.is_empty(), answer.end), (false, false, end), "{fault}");
    }
}

#[test]
fn an_end_may_be_missing() {
    let answer = faulty(true, &json!("no_done"));
    assert!(answer.complete && names(&answer).last().unwrap() == "message_delta");
    let answer = faulty(true, &json!({"truncate_event": {"after_chunks": 1}}));
    assert!(answer.complete && text(&answer) == "a" && !answer.text().ends_with("\n\n"));
}

#[test]
fn an_error_comes_inside_a_stream() {
    let first = faulty(true, &json!({"error_event": {}}));
    let events = first.named_events();
    assert_eq!((first.status, first.complete, events.len()), (200, true, 1));
    assert_eq!((events[0].0.as_str(), &events[0].1["error"]["type"]), ("error", &json!("overloaded_error")));
    let later = faulty(true, &json!({"error_event": {"after_chunks": 1, "json": {"type": "error", "error": 7}}}));
    assert_eq!(text(&later), "a");
    assert_eq!(later.named_events().pop().unwrap(), ("error".to_owned(), json!({"type": "error", "error": 7})));
    let whole = faulty(false, &json!({"error_event": {}}));
    assert_eq!((whole.status, &whole.json()["error"]["type"]), (200, &json!("overloaded_error")));
}

#[test]
fn only_pings_come() {
    use std::io::Read as _;
    use std::io::Write as _;
    let sim = Simulator::start();
    for (strike, before) in [
        (json!({"every_ms": 1}), 0),
        (json!({"every_ms": 1, "after_head": true}), 2),
        (json!({"every_ms": 1, "after_chunks": 1}), 4),
    ] {
        let body = question(true, &json!({"content": "a b c", "fault": {"ping_only": strike}})).to_string();
        let mut stream = std::net::TcpStream::connect(sim.address()).unwrap();
        stream.write_all(&post_with("/v1/messages", HEADERS, body.as_bytes())).unwrap();
        let mut text = String::new();
        let mut piece = [0; 4096];
        while text.matches("event: ping").count() < 5 {
            let count = stream.read(&mut piece).unwrap();
            assert!(count > 0, "{text}");
            text.push_str(std::str::from_utf8(&piece[..count]).unwrap());
        }
        let first: Vec<_> = text.lines().filter(|line| line.starts_with("event: ")).take(before + 3).collect();
        assert_eq!(first[before..], ["event: ping"; 3], "{strike}");
        drop(stream);
        sim.last_request_until(|last| last["aborted"] == true);
    }
}

#[test]
fn a_body_may_be_none_of_its_kind() {
    let malformed = faulty(true, &json!({"malformed_json": {"after_chunks": 1}}));
    assert!(malformed.text().contains("\"te\n\n") && text(&malformed) == "a b c");
    let html = faulty(true, &json!("wrong_content_type"));
    assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(faulty(true, &json!("empty_body")).header("content-length"), Some("0"));
    assert!(faulty(false, &json!("oversized_headers")).header("x-simulator-oversized").is_some());
}

#[test]
fn lines_may_be_framed_otherwise() {
    let sim = Simulator::start();
    let bare = ask(&sim, true, &json!({"content": "a", "no_event_lines": true, "no_space": true}));
    assert!(bare.text().starts_with("data:{\"type\":\"message_start\"") && !bare.text().contains("event:"));
    let crlf = ask(&sim, true, &json!({"content": "a", "crlf": true, "comments": true}));
    assert!(crlf.text().starts_with(": keep-alive\r\n\r\nevent: message_start\r\nid: sim\r\ndata: {"));
}

#[test]
fn a_rule_fits_a_message_as_it_fits_a_completion() {
    let sim = Simulator::start();
    let rule = json!({"when": {"path_suffix": "/messages", "model": "m", "stream": true}, "respond": {"status": 529}});
    sim.control("POST", "rules", &rule);
    assert_eq!(ask(&sim, true, &json!({})).status, 529);
    assert_eq!(ask(&sim, false, &json!({})).status, 200);
    assert_eq!(sim.ask(true, &json!({})).status, 200);
}
