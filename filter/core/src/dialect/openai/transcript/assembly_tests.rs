//! Whole answers that are sent as streams and put together again: the same answer, and no doubt about it.

use super::*;
use crate::cache::local::recording::RecordingBudget;
use crate::dialect::openai::read;
use serde_json::{Map, json};

/// Puts chunks together for a caller. Returns the answer and whether there is a doubt.
fn assemble(chunks: &[String]) -> Result<(String, bool), NotKept> {
    let budget = RecordingBudget::default().guard();
    let mut transcript = Transcript::new(Recording { max_bytes: 100_000, budget, is_for_caller: true });
    for chunk in chunks {
        let mut parts = Vec::new();
        read::chunk(chunk.as_bytes(), Some(&mut parts)).unwrap();
        transcript.event(chunk.as_bytes(), &parts);
    }
    transcript.text().map(|text| (text, transcript.is_doubtful()))
}

fn whole(chunks: &[Value]) -> (Value, bool) {
    let chunks: Vec<String> = chunks.iter().map(Value::to_string).collect();
    let (text, is_doubtful) = assemble(&chunks).unwrap();
    (serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")), is_doubtful)
}

/// SplitMix64 (public domain, Vigna).
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn text(&mut self) -> String {
        const PIECES: [&str; 8] = ["a", "é", "\n", "\"", "\\", "🚂", "{\"x\":[", " word"];
        (0..self.below(9)).map(|_| PIECES[self.below(PIECES.len())]).collect()
    }

    /// Splits a text between characters.
    fn split(&mut self, text: &str) -> Vec<String> {
        let mut pieces = vec![String::new()];
        for c in text.chars() {
            if self.below(3) == 0 {
                pieces.push(String::new());
            }
            pieces.last_mut().unwrap().push(c);
        }
        pieces
    }

    fn call(&mut self, id: usize) -> Value {
        json!({"id": format!("call_{id}"), "type": "function",
               "function": {"name": format!("f{id}"), "arguments": json!({"a": self.text()}).to_string()}})
    }

    fn choice(&mut self, index: usize) -> Value {
        let calls: Vec<Value> = (0..self.below(3)).map(|id| self.call(id)).collect();
        let content = if calls.is_empty() { json!(self.text()) } else { Value::Null };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null, "annotations": []});
        if !calls.is_empty() {
            message["tool_calls"] = json!(calls);
        }
        if self.below(2) == 0 {
            message["reasoning_content"] = json!(format!("r{}", self.text()));
        }
        let logprobs = match self.below(2) {
            0 => Value::Null,
            _ => {
                let token = json!({"token": self.text(), "logprob": -0.25, "bytes": [1, 2], "top_logprobs": []});
                let tokens = vec![token; 1 + self.below(4)];
                json!({"content": tokens, "refusal": null})
            }
        };
        json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": "stop"})
    }

    fn completion(&mut self) -> Value {
        let choices: Vec<Value> = (0..1 + self.below(3)).map(|index| self.choice(index)).collect();
        json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "m",
            "choices": choices,
            "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7,
                      "completion_tokens_details": {"reasoning_tokens": 0}},
            "service_tier": "default", "system_fingerprint": null})
    }

    /// Returns the deltas of a choice's message, in order.
    fn deltas(&mut self, message: &Map<String, Value>) -> Vec<Value> {
        let content = if message["content"].is_null() { Value::Null } else { json!("") };
        let mut deltas = vec![json!({"role": "assistant", "content": content, "refusal": null})];
        for name in ["reasoning_content", "content"] {
            let Some(Value::String(text)) = message.get(name) else { continue };
            deltas.extend(self.split(text).into_iter().map(|piece| json!({name: piece})));
        }
        for (index, call) in message.get("tool_calls").and_then(Value::as_array).into_iter().flatten().enumerate() {
            let mut head = call.clone();
            head["index"] = json!(index);
            head["function"]["arguments"] = json!("");
            deltas.push(json!({"tool_calls": [head]}));
            let arguments = call["function"]["arguments"].as_str().unwrap();
            deltas.extend(
                self.split(arguments)
                    .into_iter()
                    .map(|piece| json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})),
            );
        }
        deltas
    }

    /// Returns the chunks of a completion. The choices take turns.
    fn chunks(&mut self, completion: &Value) -> Vec<Value> {
        let chunk = |choices: Value, usage: &Value| {
            json!({"id": completion["id"], "object": "chat.completion.chunk", "created": completion["created"],
                "model": "m", "service_tier": "default", "system_fingerprint": null, "choices": choices, "usage": usage,
                "obfuscation": "xyz"})
        };
        let mut queues: Vec<(u64, Vec<Value>)> = Vec::new();
        for choice in completion["choices"].as_array().unwrap() {
            let index = choice["index"].as_u64().unwrap();
            let deltas = self.deltas(choice["message"].as_object().unwrap());
            let tokens = choice["logprobs"]["content"].as_array();
            let mut queue: Vec<Value> = deltas
                .into_iter()
                .map(|delta| json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null}))
                .collect();
            for token in tokens.into_iter().flatten() {
                let logprobs = json!({"content": [token], "refusal": null});
                queue.push(json!({"index": index, "delta": {}, "logprobs": logprobs, "finish_reason": null}));
            }
            queue.push(json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": "stop"}));
            queue.reverse();
            queues.push((index, queue));
        }
        let mut chunks = Vec::new();
        while !queues.is_empty() {
            let at = self.below(queues.len());
            match queues[at].1.pop() {
                Some(choice) => chunks.push(chunk(json!([choice]), &Value::Null)),
                None => drop(queues.remove(at)),
            }
        }
        chunks.push(chunk(json!([]), &completion["usage"]));
        chunks
    }
}

#[test]
fn a_whole_answer_sent_as_a_stream_is_the_same_whole_answer() {
    let mut random = Random(7);
    for round in 0..2000 {
        let completion = random.completion();
        let chunks = random.chunks(&completion);
        assert_eq!(whole(&chunks), (completion, false), "round {round}: {chunks:?}");
    }
}

fn delta(delta: Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn message(deltas: &[Value]) -> (Value, bool) {
    let chunks: Vec<Value> = deltas.iter().cloned().map(delta).collect();
    let (mut whole, is_doubtful) = whole(&chunks);
    (whole["choices"][0]["message"].take(), is_doubtful)
}

#[test]
fn numbers_keep_their_digits_and_halves_of_a_character_meet() {
    let chunks = [
        r#"{"id":"x","choices":[{"delta":{"content":"\ud83d"},"logprobs":{"content":[{"logprob":-1.50e-5}]}}]}"#,
        r#"{"id":"x","choices":[{"delta":{"content":"\ude82"},"logprobs":{"content":[{"logprob":NaN}]}}]}"#,
        r#"{"choices":[],"usage":{"total_tokens":1.0}}"#,
    ];
    let expected = r#"{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"\ud83d\ude82"},"logprobs":{"content":[{"logprob":-1.50e-5},{"logprob":NaN}]},"finish_reason":null}],"usage":{"total_tokens":1.0}}"#;
    assert_eq!(assemble(&chunks.map(str::to_owned)), Ok((expected.to_owned(), false)));
}

#[test]
fn what_a_server_says_once_or_in_the_same_way_again_is_no_doubt() {
    let (whole, is_doubtful) = whole(&[
        // Azure begins with what its filter made of the prompt.
        json!({"id": "", "created": 0, "model": "", "object": "", "choices": [], "prompt_filter_results": [{"x": 1}]}),
        json!({"id": "a", "created": 7, "model": "m", "provider": "P", "system_fingerprint": "fp", "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": "Hi"}, "content_filter_results": {}}]}),
        json!({"id": "a", "created": 8, "model": "m", "provider": "P", "system_fingerprint": null, "choices": [
            {"index": 0, "delta": {"annotations": [{"url": "x"}]},
             "content_filter_results": {"hate": {"filtered": false}},
             "finish_reason": "stop", "stop_reason": 7, "usage": {"prompt_tokens": 1, "completion_tokens": 2}}]}),
    ]);
    let expected = json!({"id": "a", "object": "chat.completion", "created": 7, "model": "m", "provider": "P",
        "system_fingerprint": "fp", "prompt_filter_results": [{"x": 1}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi", "annotations": [{"url": "x"}]},
                     "content_filter_results": {"hate": {"filtered": false}},
                     "finish_reason": "stop", "stop_reason": 7}]});
    assert_eq!((whole, is_doubtful), (expected, false));
}

#[test]
fn an_unknown_member_in_pieces_is_joined_as_clients_do_and_doubtful() {
    let details = |text: &str| json!({"reasoning_details": [{"index": 0, "text": text}]});
    let joined = json!({"role": "assistant", "content": null,
                        "reasoning_details": [{"index": 0, "text": "a"}, {"index": 0, "text": "b"}]});
    assert_eq!(message(&[details("a"), details("b")]), (joined, true));
    assert!(!message(&[details("a")]).1);
    assert_eq!(message(&[json!({"note": "a"}), json!({"note": "b"})]).0["note"], "ab");
    for doubtful in [
        [json!({"note": "a"}), json!({"note": "a"})],
        [json!({"content": "a"}), json!({"content": [{"text": "b"}]})],
        [json!({"content": [{"text": "b"}]}), json!({"content": [{"text": "b"}]})],
        [json!({"audio": {"data": "a"}}), json!({})],
        [json!({"function_call": {"name": "a"}}), json!({"function_call": {"name": "b"}})],
        [json!({"tool_calls": [{"function": {"name": "a"}}]}), json!({"tool_calls": [{"function": {"name": "b"}}]})],
    ] {
        assert!(message(&doubtful).1, "{doubtful:?}");
    }
    let of_chunk = |value: &str| json!({"choices": [], "citations": [value]});
    let (whole, is_doubtful) = whole(&[of_chunk("a"), of_chunk("a"), of_chunk("b")]);
    assert_eq!((&whole["citations"], is_doubtful), (&json!(["b"]), true));
}

#[test]
fn the_content_of_an_answer_that_calls_is_null_unless_the_server_says_otherwise() {
    let calls = json!([{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}]);
    let begin = json!({"role": "assistant", "content": ""});
    let vllm = [begin.clone(), json!({"tool_calls": calls})];
    let ollama = [json!({"role": "assistant", "content": "", "tool_calls": calls})];
    let said = [begin.clone(), json!({"content": "Hm"}), json!({"tool_calls": calls})];
    assert_eq!(message(&vllm).0["content"], Value::Null);
    assert_eq!(message(&ollama).0["content"], "");
    assert_eq!(message(&said).0["content"], "Hm");
    // Arguments that a limit cut off are what the model wrote.
    assert!(!message(&said).1);
    let none = [begin, json!({"content": "x", "tool_calls": [], "function_call": null})];
    let expected = json!({"role": "assistant", "content": "x", "tool_calls": [], "function_call": null});
    assert_eq!(message(&none), (expected, false));
}

#[test]
fn an_answer_that_is_too_long_or_cannot_be_read_is_none() {
    let long = vec![delta(json!({"content": "x".repeat(30_000)})).to_string(); 4];
    assert_eq!(assemble(&long[..3]).map(drop), Ok(()));
    assert_eq!(assemble(&long), Err(NotKept(TOO_LONG)));
    assert_eq!(assemble(&[json!({"choices": [1]}).to_string()]), Err(NotKept("shape")));
    assert_eq!(assemble(&[r#"{"choices":[{"delta":{"a":1,"a":2}}]}"#.to_owned()]), Err(NotKept("shape")));
}
