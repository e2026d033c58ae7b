//! How the bytes of an answer are cut, framed, paced and encoded.

use std::io::Read as _;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::process::{Simulator, question};
use crate::raw::{exchange, post};

#[test]
fn a_split_cuts_events_and_characters_anywhere() {
    let sim = Simulator::start();
    for bytes in [1, 7] {
        let answer = sim.ask(true, &json!({"content": "Grüße 🚂 an alle", "split": {"bytes": bytes}}));
        assert!(answer.complete);
        let (last, rest) = answer.chunks.split_last().unwrap();
        assert!(rest.iter().all(|&size| size == bytes) && *last <= bytes);
        assert_eq!(answer.streamed_text(), "Grüße 🚂 an alle");
    }
    let document = sim.ask(false, &json!({"content": "Grüße", "split": {"bytes": 3, "ms": 1}}));
    assert!(document.complete && document.header("content-length").is_some());
    assert_eq!(document.json()["choices"][0]["message"]["content"], "Grüße");
}

#[test]
fn a_split_stream_that_is_cut_has_all_that_came_before() {
    let sim = Simulator::start();
    let fault = json!({"reset_mid_stream": {"after_chunks": 2}});
    let answer = sim.ask(true, &json!({"content": "a b c", "split": {"bytes": 1000}, "fault": fault}));
    assert_eq!(answer.streamed_text(), "a b");
}

#[test]
fn lines_may_end_in_crlf_and_comments_may_come_between() {
    let sim = Simulator::start();
    let answer = sim.ask(true, &json!({"content": "a b", "crlf": true, "comments": true}));
    assert!(answer.text().starts_with(": keep-alive\r\n\r\nevent: message\r\nid: sim\r\ndata: {"));
    assert_eq!(answer.text().matches('\n').count(), answer.text().matches("\r\n").count());
    assert_eq!(answer.streamed_text(), "a b");
}

#[test]
fn bytes_may_trail() {
    let sim = Simulator::start();
    let answer = sim.ask(true, &json!({"trailing_bytes": true}));
    assert!(answer.text().ends_with("data: [DONE]\n\n: unfinished"));
    let document = sim.ask(false, &json!({"trailing_bytes": true}));
    assert!(document.text().ends_with("}\n\n\n") && document.complete);
}

#[test]
fn gzip_is_applied_to_documents_and_streams() {
    let sim = Simulator::start();
    for stream in [true, false] {
        let answer = sim.ask(stream, &json!({"content": "compressed", "gzip": true}));
        assert_eq!(answer.header("content-encoding"), Some("gzip"));
        let mut text = String::new();
        flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text).unwrap();
        assert!(text.contains("compressed"));
    }
}

#[test]
fn gzip_can_depend_on_what_the_request_accepts() {
    let sim = Simulator::start();
    for (accepted, coding) in [(None, Some("gzip")), (Some("gzip, br"), Some("gzip")), (Some("identity"), None)] {
        let body = question(false, &json!({"content": "compressed", "gzip": "unless_identity"})).to_string();
        let mut request = String::from_utf8(post("/v1/chat/completions", &body)).unwrap();
        if let Some(accepted) = accepted {
            request = request.replacen("\r\n", &format!("\r\naccept-encoding: {accepted}\r\n"), 1);
        }
        let answer = exchange(sim.address(), request.as_bytes());
        assert_eq!(answer.header("content-encoding"), coding, "{accepted:?}");
    }
}

#[test]
fn chunks_have_the_asked_number_and_size() {
    let sim = Simulator::start();
    let answer = sim.ask(true, &json!({"chunks": 5, "chunk_bytes": 100}));
    assert_eq!((answer.events().len(), answer.streamed_text().len()), (8, 500));
    let document = sim.ask(false, &json!({"content": "a b c d", "chunks": 2})).json();
    assert_eq!(document["usage"]["completion_tokens"], 2);
}

#[test]
fn a_raw_stream_is_sent_as_one() {
    let sim = Simulator::start();
    let body = "data: {\"own\":1}\r\rdata: [DONE]\n\n";
    let answer = sim.ask(true, &json!({"body": body, "content_type": "text/event-stream"}));
    assert_eq!((answer.text(), answer.complete, answer.header("content-length")), (body, true, None));
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
}

#[test]
fn usage_is_as_told() {
    let sim = Simulator::start();
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3});
    assert_eq!(sim.ask(false, &json!({"usage": usage})).json()["usage"], usage);
    let absent = sim.ask(false, &json!({"usage": "omit", "finish_reason": "length"})).json();
    assert_eq!((absent.get("usage"), &absent["choices"][0]["finish_reason"]), (None, &json!("length")));
    assert!(sim.ask(false, &json!({"usage": null})).text().contains(r#""usage":null"#));
}

#[test]
fn delays_are_kept() {
    let sim = Simulator::start();
    for (stream, behavior) in [
        (true, json!({"chunks": 3, "ttft_ms": 40, "chunk_ms": 20})),
        (false, json!({"chunks": 3, "ttft_ms": 40, "chunk_ms": 20})),
        (false, json!({"delay_headers_ms": 80})),
    ] {
        let start = Instant::now();
        assert!(sim.ask(stream, &behavior).complete);
        // A lower bound only: a busy machine may take longer, but a timer never fires early.
        assert!(start.elapsed() >= Duration::from_millis(75), "{behavior}");
    }
}
