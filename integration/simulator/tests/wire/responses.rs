//! OpenAI's Responses on the wire: answers, what is stored, and every fault in that dialect.

use serde_json::{Value, json};

use crate::process::Simulator;
use crate::raw::{Answer, End, exchange, exchange_until_silent, get, post};

fn question(stream: bool, behavior: &Value) -> Value {
    json!({"model": "m", "stream": stream, "input": format!("[[sim:{behavior}]]")})
}

fn send(sim: &Simulator, listener: usize, body: &Value) -> Answer {
    exchange(sim.addresses[listener], &post("/v1/responses", &body.to_string()))
}

fn ask(sim: &Simulator, stream: bool, behavior: &Value) -> Answer {
    send(sim, 0, &question(stream, behavior))
}

fn faulty(stream: bool, fault: &Value) -> Answer {
    let body = question(stream, &json!({"content": "a b c", "fault": fault})).to_string();
    let sim = Simulator::start();
    let exchange = if fault.to_string().contains("hang") { exchange_until_silent } else { exchange };
    exchange(sim.address(), &post("/v1/responses", &body))
}

fn names(answer: &Answer) -> Vec<String> {
    let events = answer.named_events();
    for (number, (name, event)) in events.iter().enumerate() {
        assert_eq!((&event["type"], &event["sequence_number"]), (&json!(name), &json!(number)));
    }
    events.into_iter().map(|(name, _)| name).collect()
}

fn text(answer: &Answer) -> String {
    let events = answer.named_events();
    events.iter().filter_map(|(_, event)| event["delta"].as_str()).collect()
}

#[test]
fn a_response_is_one_document() {
    let sim = Simulator::start();
    let answer = ask(&sim, false, &json!({"content": "Grüezi", "cached_tokens": 3}));
    assert_eq!((answer.status, answer.complete, answer.header("content-type")), (200, true, Some("application/json")));
    let document = answer.json();
    assert_eq!((&document["object"], &document["status"]), (&json!("response"), &json!("completed")));
    assert_eq!(document["output"][0]["content"][0]["text"], "Grüezi");
    assert_eq!(document["usage"]["input_tokens_details"]["cached_tokens"], 3);
    assert_eq!(ask(&sim, false, &json!({"usage": "omit"})).json().get("usage"), None);
}

#[test]
fn a_stream_has_its_events_in_order() {
    let sim = Simulator::start();
    let answer = ask(&sim, true, &json!({"content": "one two"}));
    let expected = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!((names(&answer), text(&answer).as_str()), (expected.map(str::to_owned).to_vec(), "one two"));
    assert_eq!(answer.chunks.len(), expected.len(), "an event is a chunk");
    assert!(!answer.text().contains("[DONE]"));
    assert_eq!(sim.requests().pop().unwrap()["chunks_sent"], 2);
}

#[test]
fn what_openai_refuses_is_refused_in_its_form() {
    let sim = Simulator::start();
    for (body, code) in [
        (json!({"model": "m"}), json!("missing_required_parameter")),
        (json!({"model": "m", "input": "?", "previous_response_id": "resp_x"}), json!("previous_response_not_found")),
    ] {
        let refused = send(&sim, 0, &body);
        assert_eq!((refused.status, &refused.json()["error"]["code"]), (400, &code));
    }
    assert_eq!(exchange(sim.address(), &get("/v1/responses")).status, 405);
    assert_eq!(ask(&sim, true, &json!({"status": 429})).json()["error"]["code"], "rate_limit_exceeded");
}

#[test]
fn only_the_provider_that_stored_a_response_knows_it() {
    let sim = Simulator::with(2, &[]);
    let id = ask(&sim, true, &json!({})).named_events().pop().unwrap().1["response"]["id"].clone();
    let next = json!({"model": "m", "input": "more", "previous_response_id": id});
    assert_eq!([send(&sim, 0, &next).status, send(&sim, 1, &next).status], [200, 400]);
    let path = format!("/v1/responses/{}", id.as_str().unwrap());
    assert_eq!(exchange(sim.addresses[0], &get(&path)).json()["id"], id);
    assert_eq!(exchange(sim.addresses[1], &get(&path)).status, 404);
    let delete = String::from_utf8(get(&path)).unwrap().replacen("GET", "DELETE", 1);
    assert_eq!(exchange(sim.addresses[0], delete.as_bytes()).json()["deleted"], true);
    assert_eq!(send(&sim, 0, &next).status, 400);
}

#[test]
fn input_tokens_are_counted() {
    let sim = Simulator::start();
    let counted = exchange(sim.address(), &post("/v1/responses/input_tokens", r#"{"model":"m","input":"12345678"}"#));
    assert_eq!(counted.json(), json!({"object": "response.input_tokens", "input_tokens": 5}));
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
        assert_eq!(names(&faulty(true, &json!({fault: {}}))).len(), 0, "{fault}");
        let answer = faulty(true, &json!({fault: {"after_head": true}}));
        assert_eq!((names(&answer).len(), answer.end), (2, end), "{fault}");
        let answer = faulty(false, &json!({fault: {}}));
        assert_eq!((answer.complete, answer.body.is_empty(), answer.end), (false, false, end), "{fault}");
    }
}

#[test]
fn an_end_may_be_missing_or_another() {
    let answer = faulty(true, &json!("no_done"));
    assert!(answer.complete && names(&answer).last().unwrap() == "response.output_item.done");
    let answer = faulty(true, &json!({"truncate_event": {"after_chunks": 1}}));
    assert!(answer.complete && text(&answer) == "a" && !answer.text().ends_with("\n\n"));
    let sim = Simulator::start();
    let incomplete = ask(&sim, true, &json!({"finish_reason": "length"}));
    let (name, last) = incomplete.named_events().pop().unwrap();
    assert_eq!(name, "response.incomplete");
    assert_eq!(last["response"]["incomplete_details"]["reason"], "max_output_tokens");
}

#[test]
fn an_error_comes_inside_a_stream() {
    let first = faulty(true, &json!({"error_event": {}}));
    assert_eq!((first.status, first.complete, names(&first)), (200, true, vec!["error".to_owned()]));
    let later = faulty(true, &json!({"error_event": {"after_chunks": 1}}));
    assert_eq!((text(&later).as_str(), names(&later).last().unwrap().as_str()), ("a", "error"));
    assert_eq!(later.named_events().pop().unwrap().1["code"], "server_error");
    let own = faulty(true, &json!({"error_event": {"json": {"type": "error", "code": "x"}}}));
    assert_eq!(own.named_events(), [("error".to_owned(), json!({"type": "error", "code": "x"}))]);
    assert!(faulty(false, &json!({"error_event": {}})).json()["error"].is_object());
}

#[test]
fn a_response_fails() {
    let error = json!({"code": "context_length_exceeded", "message": "Too long."});
    for (strike, before) in [
        (json!({"json": error}), 0),
        (json!({"json": error, "after_head": true}), 2),
        (json!({"json": error, "after_chunks": 1}), 5),
    ] {
        let failed = faulty(true, &json!({"failed": strike}));
        assert_eq!((failed.complete, names(&failed).len()), (true, before + 1));
        let (name, last) = failed.named_events().pop().unwrap();
        assert_eq!((name.as_str(), &last["response"]["status"]), ("response.failed", &json!("failed")));
        assert_eq!(last["response"]["error"], error);
    }
    let whole = faulty(false, &json!({"failed": {"json": error}}));
    assert_eq!((whole.status, &whole.json()["error"]), (200, &error));
    let chat = Simulator::start().ask(true, &json!({"fault": {"failed": {}}}));
    assert!(chat.events()[0].starts_with(r#"{"error":{"#), "another dialect has only its error event");
}

#[test]
fn a_body_may_be_none_of_its_kind() {
    let malformed = faulty(true, &json!({"malformed_json": {"after_chunks": 1}}));
    assert!(malformed.text().contains("\"del\n\n") && text(&malformed) == "a b c");
    let html = faulty(true, &json!("wrong_content_type"));
    assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(faulty(true, &json!("empty_body")).header("content-length"), Some("0"));
    assert!(faulty(false, &json!("oversized_headers")).header("x-simulator-oversized").is_some());
}
