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

fn refused(deltas: &[Value]) {
    let chunks: Vec<String> = deltas.iter().cloned().map(|value| delta(value).to_string()).collect();
    assert_eq!(assemble(&chunks), Err(NotKept("shape")), "{deltas:?}");
}

#[test]
fn what_comes_in_pieces_that_nobody_can_join_for_certain_is_not_put_together() {
    assert_eq!(message(&[json!({"note": "a"})]), (json!({"role": "assistant", "content": null, "note": "a"}), false));
    for doubtful in [
        [json!({"note": "a"}), json!({"note": "a"})],
        [json!({"note": "a"}), json!({"note": "b"})],
        [json!({"content": [{"text": "b"}]}), json!({"content": [{"text": "b"}]})],
        [json!({"content": [{"type": "image_url"}]}), json!({"content": "a"})],
        [json!({"audio": {"data": "a"}}), json!({})],
        [json!({"function_call": {"name": "a"}}), json!({"function_call": {"name": "b"}})],
        [json!({"tool_calls": [{"function": {"name": "a"}}]}), json!({"tool_calls": [{"function": {"name": "b"}}]})],
    ] {
        refused(&doubtful);
    }
}

#[test]
fn of_what_a_server_says_besides_the_answer_the_last_value_counts_and_that_is_doubtful() {
    let of_chunk = |value: &str| json!({"choices": [], "citations": [value]});
    let (whole, is_doubtful) = whole(&[of_chunk("a"), of_chunk("a"), of_chunk("b")]);
    assert_eq!((&whole["citations"], is_doubtful), (&json!(["b"]), true));
    // Groq's is the same but for a usage that is elsewhere too.
    let groq = |value: Value| json!({"choices": [], "x_groq": value});
    let (whole, is_doubtful) = self::whole(&[groq(json!({"id": "req_1"})), groq(json!({"id": "req_1", "usage": {}}))]);
    assert_eq!((&whole["x_groq"], is_doubtful), (&json!({"id": "req_1"}), false));
}

#[test]
fn pieces_of_reasoning_details_meet_by_type_and_index() {
    let details = |details: Value| json!({"reasoning_details": details});
    let text = |index: u32, text: &str| json!({"type": "reasoning.text", "text": text, "format": "f", "index": index});
    let deltas = [
        json!({"role": "assistant", "content": "", "reasoning": "Let", "reasoning_details": [text(0, "Let")]}),
        json!({"content": "", "reasoning": " me", "reasoning_details": [text(0, " me")]}),
        details(json!([{"type": "reasoning.text", "text": null, "signature": "Et8B", "format": "f", "index": 0}])),
        details(json!([text(1, "b"), {"type": "reasoning.encrypted", "data": "x", "id": "r", "index": 1}])),
        details(json!([{"type": "reasoning.summary", "summary": "c", "index": 2}])),
        details(json!([{"type": "reasoning.summary", "summary": "d", "index": 2}])),
        json!({"content": "Hi", "reasoning_details": []}),
    ];
    let expected = json!({"role": "assistant", "content": "Hi", "reasoning": "Let me", "reasoning_details": [
        {"type": "reasoning.text", "text": "Let me", "format": "f", "index": 0, "signature": "Et8B"},
        {"type": "reasoning.text", "text": "b", "format": "f", "index": 1},
        {"type": "reasoning.encrypted", "data": "x", "id": "r", "index": 1},
        {"type": "reasoning.summary", "summary": "cd", "index": 2}]});
    assert_eq!(message(&deltas), (expected, false));
    // Entries that came whole stay as they are.
    let whole = details(json!([{"type": "reasoning.text", "text": "a"}, {"type": "reasoning.text", "text": "b"}]));
    assert_eq!(message(std::slice::from_ref(&whole)).0["reasoning_details"], whole["reasoning_details"]);
    for contradictory in [
        [whole.clone(), whole.clone()],
        [details(json!([text(0, "a")])), whole],
        [details(json!([{"index": 0, "data": "a"}])), details(json!([{"index": 0, "data": "b"}]))],
        [details(json!([{"index": 0, "signature": "a"}])), details(json!([{"index": 0, "signature": "b"}]))],
        [details(json!([7])), json!({})],
        [details(json!("a")), details(json!("b"))],
    ] {
        refused(&contradictory);
    }
}

#[test]
fn a_content_that_begins_as_a_list_keeps_it() {
    let think = |text: &str| json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}]});
    let text = |text: &str| json!({"content": [{"type": "text", "text": text}]});
    let blocks = |deltas: &[Value]| message(deltas);
    let role = json!({"role": "assistant", "content": ""});
    let magistral =
        [role.clone(), think("Okay"), think(", \"so\" 🚂"), json!({"content": "The"}), json!({"content": " answer"})];
    let expected = json!({"role": "assistant", "content": [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Okay, \"so\" 🚂"}]},
        {"type": "text", "text": "The answer"}]});
    assert_eq!(blocks(&magistral), (expected, false));
    let turns = [text("a"), text("b"), think("c"), json!({"content": null}), json!({"content": ""}), text("d")];
    let expected = json!([{"type": "text", "text": "ab"}, think("c")["content"][0], {"type": "text", "text": "d"}]);
    assert_eq!(blocks(&turns).0["content"], expected);
    // A text that came first stays first.
    let late = [json!({"content": "a"}), think("b")];
    assert_eq!(blocks(&late).0["content"], json!([{"type": "text", "text": "a"}, think("b")["content"][0]]));
    // A list that comes alone may have any form.
    let alone =
        json!([{"type": "reference", "reference_ids": [1]}, {"type": "thinking", "thinking": [], "closed": true}]);
    assert_eq!(blocks(&[role.clone(), json!({"content": alone})]).0["content"], alone);
    for other in
        [json!({"type": "reference", "reference_ids": [1]}), json!({"type": "thinking", "thinking": [{"type": "x"}]})]
    {
        refused(&[role.clone(), json!({"content": [other]}), json!({"content": "x"})]);
    }
    refused(&[think("a"), json!({"content": 7})]);
}

#[test]
fn a_whole_message_in_a_stream_is_the_answer_or_says_the_same_again() {
    let choice = |delta: Value, message: Value| json!({"choices": [{"index": 0, "delta": delta, "message": message}]});
    let said = json!({"role": "assistant", "content": "Hi \u{1f682}", "tool_calls": null, "x": [1.5]});
    // In place of deltas.
    let alone = json!({"choices": [{"index": 0, "message": said, "finish_reason": "stop"}]});
    let (answer, is_doubtful) = whole(&[alone]);
    assert_eq!((&answer["choices"][0]["message"], is_doubtful), (&said, false));
    let empty = choice(json!({"role": "assistant", "content": ""}), said.clone());
    assert_eq!(whole(&[empty]).0["choices"][0]["message"], said);
    // Beside them, as Perplexity has it: all so far.
    let so_far = |text: &str| json!({"role": "assistant", "content": text});
    let chunks = [choice(so_far("Hi"), so_far("Hi")), choice(json!({"content": " you"}), so_far("Hi you"))];
    let (answer, is_doubtful) = whole(&chunks);
    assert_eq!((&answer["choices"][0]["message"], is_doubtful), (&so_far("Hi you"), false));
    for other in [so_far("Hi"), json!({"content": "Hi you", "tool_calls": [{}]}), json!({"content": "Hi you", "n": 1})]
    {
        let chunks = [choice(so_far("Hi"), so_far("Hi")), choice(json!({"content": " you"}), other)];
        assert_eq!(assemble(&chunks.map(|chunk| chunk.to_string())), Err(NotKept("shape")));
    }
}

#[test]
fn a_name_with_escapes_is_the_name_that_it_stands_for() {
    let chunks = [
        r#"{"\u0069d":"x","\u0063hoices":[{"inde\u0078":0,"d\u0065lta":{"rol\u0065":"assistant","conten\u0074":"a"}}]}"#,
        r#"{"id":"x","choices":[{"delta":{"content":"b","a\"b\\":1},"finish\u005freason":"stop"}],"us\u0061ge":{"completion\u005ftokens":2}}"#,
    ];
    let read = read::chunk(chunks[1].as_bytes(), None).unwrap();
    assert_eq!((read.finished, read.usage.map(|usage| usage.output)), (1, Some(2)));
    let (text, is_doubtful) = assemble(&chunks.map(str::to_owned)).unwrap();
    let expected = json!({"id": "x", "object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "ab", "a\"b\\": 1}}], "usage": {"completion_tokens": 2}});
    assert_eq!((serde_json::from_str::<Value>(&text).unwrap(), is_doubtful), (expected, false));
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
