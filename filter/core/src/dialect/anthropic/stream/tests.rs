//! What is learned of each event.

use super::*;
use serde_json::{Value, json};

fn named(data: &Value) -> Vec<u8> {
    format!("event: {}\ndata: {data}\n\n", data["type"].as_str().unwrap()).into_bytes()
}

fn delta(text: &str) -> Vec<u8> {
    named(&json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}))
}

fn start() -> Vec<u8> {
    named(&json!({"type": "message_start", "message": {"id": "m", "type": "message", "content": [],
        "usage": {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 1, "service_tier": "standard"}}}))
}

fn chunk(event: StreamEvent) -> Chunk {
    match event {
        StreamEvent::Chunk(Ok(chunk)) => chunk,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_start_counts_is_told_with_the_first_part_and_does_not_cover_it() {
    let mut reader = StreamReader::new(None);
    assert_eq!(reader.event(&start()), StreamEvent::Silent);
    assert_eq!(reader.event(&named(&json!({"type": "ping"}))), StreamEvent::Silent);
    let first = chunk(reader.event(&delta("Hello")));
    assert_eq!(first.usage.map(|usage| (usage.input, usage.output)), Some((Some(100), 1)));
    assert!(first.is_usage_before && first.has_text && first.service_tier == Some(ServedTier::Base));
    assert_eq!(chunk(reader.event(&delta("Hello"))).usage, None);
    let end = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}});
    let end = chunk(reader.event(&named(&end)));
    assert_eq!(end.usage.map(|usage| (usage.input, usage.output)), Some((Some(100), 7)));
    assert!(!end.is_usage_before);
    assert_eq!(reader.event(END), StreamEvent::End);
}

#[test]
fn an_event_that_differs_in_its_text_only_is_known() {
    let mut reader = StreamReader::new(None);
    assert_eq!(reader.known_text(&delta("a")), None);
    reader.event(&delta("a"));
    assert_eq!(reader.known_text(&delta("b\n")), Some(&b"b\\n"[..]));
    let other = String::from_utf8(delta("b")).unwrap().replace("\"index\":0", "\"index\":1");
    assert_eq!(reader.known_text(other.as_bytes()), None);
    let thinking =
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "a"}});
    assert_eq!(reader.known_text(&named(&thinking)), None);
}

#[test]
fn errors_ends_and_what_is_unknown() {
    let mut reader = StreamReader::new(None);
    let error = named(&json!({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}));
    assert_eq!(reader.event(&error), StreamEvent::Error);
    let unnamed = json!({"type": "error", "error": {"type": "overloaded_error"}});
    assert_eq!(reader.event(format!("data: {unnamed}\n\n").as_bytes()), StreamEvent::Chunk(Err(Fault::Reported)));
    assert_eq!(reader.event(b": comment\n\n"), StreamEvent::Silent);
    assert_eq!(reader.event(&named(&json!({"type": "something_new", "x": 1}))), StreamEvent::Silent);
    for malformed in ["data: x\n\n", "data: {}\n\n", "data: {\"choices\":[]}\n\n", "data: [DONE]\n\n"] {
        assert_eq!(reader.event(malformed.as_bytes()), StreamEvent::Chunk(Err(Fault::Malformed)), "{malformed}");
    }
    assert!(is_end_event(b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n") && !is_end_event(&delta("a")));
    assert!(!is_end_event(b"data: {\"type\":\"message_st"));
}

#[test]
fn what_is_too_long_to_hold_is_a_block_or_a_part_of_one() {
    let long =
        |kind: &str| long_event(format!("event: {kind}\ndata: {{\"type\":\"{kind}\",\"index\":0,\"x\":\"y").as_bytes());
    assert_eq!(long("content_block_start"), LongEvent::Chunk);
    assert_eq!(long("content_block_delta"), LongEvent::Chunk);
    assert_eq!(long("error"), LongEvent::Malformed);
    assert_eq!(long("ping"), LongEvent::Malformed);
    assert_eq!(long_event(b": keep"), LongEvent::Silent);
}
