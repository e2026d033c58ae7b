//! Streams that are reassembled in any chunking, and streams that cannot be.

use super::*;
use crate::cache::local::recording::RecordingBudget;
use crate::dialect::openai::read;
use serde_json::json;

fn kept(max_bytes: usize, budget: BudgetGuard) -> Transcript {
    Transcript::new(Recording { max_bytes, budget, is_for_caller: false })
}

fn hear(transcript: &mut Transcript, chunk: &str) {
    let mut parts = Vec::new();
    read::chunk(chunk.as_bytes(), Some(&mut parts)).unwrap();
    transcript.event(chunk.as_bytes(), &parts);
}

fn run_texts(chunks: &[&str]) -> Result<Value, NotKept> {
    let mut transcript = kept(10_000, RecordingBudget::default().guard());
    chunks.iter().for_each(|chunk| hear(&mut transcript, chunk));
    transcript.finish()
}

fn run(chunks: &[Value]) -> Result<Value, NotKept> {
    let chunks: Vec<String> = chunks.iter().map(Value::to_string).collect();
    run_texts(&chunks.iter().map(|chunk| &**chunk).collect::<Vec<_>>())
}

fn delta(delta: Value) -> Value {
    json!({"id": "x", "object": "chat.completion.chunk", "model": "m", "usage": null,
           "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]})
}

fn end(reason: &str) -> Value {
    json!({"id": "x", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

#[test]
fn text_and_usage_are_put_together() {
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}});
    let parts = [
        delta(json!({"role": "assistant", "content": ""})),
        delta(json!({"content": "Hé"})),
        delta(json!({"content": "llo", "reasoning_content": "hm"})),
        end("stop"),
        usage,
    ];
    let whole = run(&parts).unwrap();
    assert_eq!(
        whole["choices"][0]["message"],
        json!({"role": "assistant", "content": "Héllo", "reasoning_content": "hm"})
    );
    assert_eq!(
        (&whole["choices"][0]["finish_reason"], &whole["usage"]["completion_tokens"]),
        (&json!("stop"), &json!(2))
    );
    assert_eq!(whole["model"], "m");
}

#[test]
fn tool_calls_are_put_together_by_their_index() {
    let call = |index: u64, call: Value| {
        let mut call = call;
        call["index"] = index.into();
        delta(json!({"tool_calls": [call]}))
    };
    let parts = [
        call(0, json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}})),
        call(0, json!({"function": {"arguments": "{\"x\""}})),
        call(1, json!({"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}})),
        call(0, json!({"function": {"arguments": ":1}"}})),
        end("tool_calls"),
    ];
    let whole = run(&parts).unwrap();
    assert_eq!(
        whole["choices"][0]["message"]["tool_calls"],
        json!([
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ])
    );
    assert_eq!(run(&[call(5, json!({"id": "a"}))]), Err(NotKept("shape")));
}

/// Deltas of tool calls, each in an event of its own, and the calls as they are kept.
fn calls(deltas: &[Value]) -> Result<Value, NotKept> {
    let chunks: Vec<_> = deltas.iter().map(|call| delta(json!({"tool_calls": [call]}))).chain([end("stop")]).collect();
    let together = run(&[delta(json!({"tool_calls": deltas})), end("stop")]);
    let whole = run(&chunks);
    assert_eq!(whole, together, "calls in one event or in many are the same calls");
    whole.map(|mut whole| whole["choices"][0]["message"]["tool_calls"].take())
}

fn call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

fn indexed(index: u64, call: Value) -> Value {
    let mut call = call;
    call["index"] = index.into();
    call
}

#[test]
fn a_new_id_is_a_new_call_whatever_the_index() {
    let (read, write) = (call("call_a", "read_file", "{\"a\":1}"), call("call_b", "write_file", "{\"b\":2}"));
    let both = Ok(json!([read, write]));
    assert_eq!(calls(&[indexed(0, read.clone()), indexed(0, write.clone())]), both);
    assert_eq!(calls(&[indexed(0, read.clone()), indexed(1, write.clone())]), both);
    assert_eq!(calls(&[read.clone(), write.clone()]), both);
    // One after the other, each in pieces.
    let piece = |arguments: &str| json!({"index": 0, "id": "", "function": {"arguments": arguments}});
    let begin = |id, name| indexed(0, call(id, name, ""));
    let pieces = [
        begin("call_a", "read_file"),
        piece("{\"a\""),
        piece(":1}"),
        begin("call_b", "write_file"),
        piece("{\"b\""),
        piece(":2}"),
    ];
    assert_eq!(calls(&pieces), both);
    // The id again with every piece, and the first call once more after the second.
    let again = |id, arguments| json!({"index": 0, "id": id, "function": {"arguments": arguments}});
    let mixed = [
        begin("call_a", "read_file"),
        begin("call_b", "write_file"),
        again("call_a", "{\"a\":1}"),
        again("call_b", "{\"b\":2}"),
    ];
    assert_eq!(calls(&mixed), both);
}

#[test]
fn a_functions_name_is_assigned() {
    let piece = |name: &str, arguments: &str| indexed(0, call("call_a", name, arguments));
    let whole = Ok(json!([call("call_a", "read_file", "{\"a\":1}")]));
    assert_eq!(calls(&[piece("read_file", "{\"a\""), piece("read_file", ":1}")]), whole);
    assert_eq!(calls(&[piece("read_file", "{\"a\""), piece("", ":1}")]), whole);
    assert_eq!(calls(&[piece("", "{\"a\""), piece("read_file", ":1}")]), whole);
    // A name in pieces, or two calls under one id.
    assert_eq!(calls(&[piece("read_", "{\"a\""), piece("file", ":1}")]), Err(NotKept("shape")));

    let older = |name: &str, arguments: &str| delta(json!({"function_call": {"name": name, "arguments": arguments}}));
    let kept = run(&[older("read_file", "{"), older("read_file", "}"), end("function_call")]).unwrap();
    let function = &kept["choices"][0]["message"]["function_call"];
    assert_eq!(function, &json!({"name": "read_file", "arguments": "{}"}));
    assert_eq!(run(&[older("a", "{}"), older("b", "{}"), end("function_call")]), Err(NotKept("shape")));
    assert_eq!(run(&[older("a", "{}"), older("a", "{}"), end("function_call")]), Err(NotKept("shape")));
}

#[test]
fn calls_that_cannot_be_told_apart_are_not_kept() {
    let piece = |arguments: &str| json!({"index": 0, "function": {"name": "f", "arguments": arguments}});
    let cases: [&[Value]; 10] = [
        // Two calls without ids, and their arguments one after the other.
        &[piece("{}"), piece("{}")],
        &[json!({"function": {"name": "f", "arguments": "{}"}})],
        &[call("a", "f", "{}"), json!({"function": {"arguments": "{}"}})],
        &[indexed(0, call("a", "f", "{}")), call("b", "f", "{}")],
        &[indexed(0, call("a", "f", "{\"x\":"))],
        &[piece(""), piece("")],
        &[piece(""), piece("{}")],
        &[piece("{}"), indexed(0, call("b", "f", ""))],
        &[piece("{}"), json!({"index": 0, "id": "b", "function": {"arguments": ""}})],
        &[indexed(0, call("a", "f", "1")), indexed(0, call("a", "f", "2"))],
    ];
    for deltas in cases {
        assert_eq!(calls(deltas), Err(NotKept("shape")), "{deltas:?}");
    }
}

#[test]
fn choices_and_log_probabilities_are_kept_apart() {
    let piece = |index: u64, text: &str| {
        let logprobs = json!({"content": [{"token": text}]});
        json!({"choices": [{"index": index, "delta": {"content": text}, "logprobs": logprobs}]})
    };
    let whole = run(&[piece(1, "b"), piece(0, "a"), piece(1, "c")]).unwrap();
    assert_eq!(whole["choices"][1]["message"]["content"], "bc");
    assert_eq!(whole["choices"][1]["logprobs"]["content"], json!([{"token": "b"}, {"token": "c"}]));
    assert_eq!(whole["choices"][0]["message"]["content"], "a");
}

#[test]
fn what_servers_say_of_the_end_besides_is_kept() {
    let ends = |stop: Value| {
        let mut end = end("stop");
        end["choices"][0]["stop_reason"] = stop;
        end
    };
    let text = || delta(json!({"content": "a"}));
    assert_eq!(run(&[text(), ends(json!("#"))]).unwrap()["choices"][0]["stop_reason"], "#");
    assert_eq!(run(&[text(), ends(Value::Null)]).unwrap()["choices"][0]["stop_reason"], Value::Null);
    assert_eq!(run(&[text(), ends(json!("#")), ends(json!(7))]), Err(NotKept("shape")));
}

#[test]
fn a_choice_finishes_once() {
    let text = || delta(json!({"content": "a"}));
    assert_eq!(run(&[text(), end("stop"), end("stop")]).unwrap()["choices"][0]["finish_reason"], "stop");
    for (one, other) in [("stop", "content_filter"), ("content_filter", "stop"), ("length", "stop")] {
        assert_eq!(run(&[text(), end(one), end(other)]), Err(NotKept("shape")), "{one}, then {other}");
    }
}

#[test]
fn what_cannot_be_put_together_is_not_kept() {
    assert_eq!(run(&[delta(json!({"audio": {"data": "x"}}))]), Err(NotKept("shape")));
    assert_eq!(run(&[delta(json!({"content": "a"})), delta(json!({"content": 1}))]), Err(NotKept("shape")));
    assert_eq!(run(&[json!({"choices": [[]]})]), Err(NotKept("shape")));
    assert_eq!(run(&[delta(json!({"tool_calls": [1]}))]), Err(NotKept("shape")));
    let long = vec![delta(json!({"content": "x".repeat(600)})); 20];
    assert_eq!(run(&long), Err(NotKept("too_long")));
}

#[test]
fn it_takes_as_much_as_its_text_however_it_is_sent_and_nothing_once_that_is_too_long() {
    let logprobs = |token: &str| json!({"content": [{"token": token, "logprob": -0.5, "top_logprobs": [1, 2, 3]}]});
    let piece = |text: &str| json!({"choices": [{"index": 0, "delta": {"content": text}, "logprobs": logprobs(text)}]});
    for chunk in [
        delta(json!({"content": "x"})),
        delta(json!({"reasoning": "x", "content": ""})),
        delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]})),
        piece("x"),
        json!({"usage": {"completion_tokens": 1}, "model": "m", "choices": []}),
    ] {
        let text = chunk.to_string();
        let mut transcript = kept(10_000, RecordingBudget::default().guard());
        let mut events = 0;
        while transcript.unfit.is_none() && events < 20_000 {
            hear(&mut transcript, &text);
            events += 1;
            assert!(transcript.bytes <= 10_000);
        }
        let is_endless = chunk["choices"] == json!([]);
        assert_eq!(transcript.unfit.is_none(), is_endless, "{chunk}");
        assert!(is_endless || transcript.choices.is_empty() && transcript.members.is_empty());
        assert!(events > 100, "the frames of {events} events are not counted: {chunk}");
    }
    // An endless number of members.
    let mut transcript = kept(1000, RecordingBudget::default().guard());
    (0..2000).for_each(|n| hear(&mut transcript, &json!({format!("member-{n}"): n, "choices": []}).to_string()));
    assert!(transcript.unfit.is_some());
}

#[test]
fn what_has_too_many_parts_is_too_long() {
    let call = |n: u64| json!({"tool_calls": [{"index": n, "id": n.to_string()}]});
    let choice = |n: u64| json!({"choices": [{"index": n, "delta": {"content": "x"}}]});
    let makers: [&dyn Fn(u64) -> Value; 4] = [
        &|n| delta(call(n)),
        &choice,
        &|n| delta(json!({format!("member-{n}"): "x"})),
        &|n| json!({format!("member-{n}"): n, "choices": []}),
    ];
    for make in makers {
        for (parts, fits) in [(128, true), (513, false), (20_000, false)] {
            let recording =
                Recording { max_bytes: 8 << 20, budget: RecordingBudget::default().guard(), is_for_caller: true };
            let mut transcript = Transcript::new(recording);
            (0..parts).for_each(|n| hear(&mut transcript, &make(n).to_string()));
            assert_eq!(transcript.unfit(), (!fits).then_some(NotKept(TOO_LONG)), "{parts} times {}", make(1));
        }
    }
}

#[test]
fn all_streams_together_take_what_there_is_and_what_is_not_recorded_gives_it_back() {
    let all = RecordingBudget::new(1000);
    let text = |n: usize| delta(json!({"content": "x".repeat(n)})).to_string();
    let mut first = kept(10_000, all.guard());
    let mut second = kept(10_000, all.guard());
    hear(&mut first, &text(500));
    hear(&mut second, &text(500));
    assert_eq!(second.finish(), Err(NotKept(FULL)));
    // The second transcript's share is free for the first.
    hear(&mut first, &text(300));
    assert!(first.finish().is_ok());
    let mut third = kept(10_000, all.guard());
    hear(&mut third, &text(800));
    assert!(third.finish().is_ok());
}

#[test]
fn it_is_put_together_from_the_text_however_that_is_written() {
    let chunks = [
        r#"{ "choices" : [ { "delta" : {"content":"H\u00e9\n"} , "logprobs": {"content": [ {"a": 1.50} , 2 ]}, "index" : 0 } ], "x": { "b" : [] } }"#,
        r#"{"choices":[{"index":0,"logprobs":{"content":[ ]},"delta":{"content":"llo","tool_calls":[{"function":{"arguments":"{\"a\""},"index":0}]}}]}"#,
        r#"{"choices":[{"index":0,"logprobs":{"content":[3]},"delta":{"tool_calls":[{"id":"c","index":0,"function":{"arguments":":1}"}}]},"finish_reason":"stop"}]}"#,
    ];
    let whole = run_texts(&chunks).unwrap();
    let call = json!({"id": "c", "function": {"arguments": "{\"a\":1}"}});
    let message = json!({"role": "assistant", "content": "Hé\nllo", "tool_calls": [call]});
    assert_eq!(whole["choices"][0]["message"], message);
    assert_eq!(whole["choices"][0]["logprobs"], json!({"content": [{"a": 1.5}, 2, 3]}));
    assert_eq!(whole["x"], json!({"b": []}));
}

#[test]
fn what_can_be_read_in_two_ways_is_not_kept() {
    for twice in [
        r#"{"choices":[],"choices":[]}"#,
        r#"{"x":1,"choices":[{"delta":{}}],"x":2}"#,
        r#"{"choices":[{"delta":{"content":"a"},"delta":{"reasoning":"b"}}]}"#,
        r#"{"choices":[{"delta":{"content":"a","content":"b"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"index":0}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"a"},"function":{"arguments":"b"}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"a","name":"b"}}]}}]}"#,
        r#"{"choices":[{"delta":{"c\u006fntent":"a","content":"b"}}]}"#,
        r#"{"choices":[{"delta":{"content":"\ud800"}}]}"#,
    ] {
        assert_eq!(run_texts(&[twice]), Err(NotKept("shape")), "{twice}");
    }
    let two = r#"{"choices":[{"delta":{"content":"a"},"index":0},{"delta":{"content":"b"},"index":1}]}"#;
    assert!(run_texts(&[two]).is_ok());
}
