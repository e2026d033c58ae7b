//! A stream put together again into the completion that it was.

use crate::cache::local::recording::{BudgetGuard, FULL, RecordingBudget};
use crate::dialect::openai::completion::{ENDINGS, NotKept};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The completion so far. What cannot be put together with certainty makes it unfit to be kept, for good.
///
/// It takes as much memory as the completion's text, and no more than an entry may have, nor than all streams of the worker may
/// have together: what is longer is not recorded further.
#[derive(Debug)]
pub struct Transcript {
    /// Members of the completion, as JSON texts.
    members: BTreeMap<String, String>,
    choices: Vec<Choice>,
    /// Bytes of all texts.
    bytes: usize,
    most_bytes: usize,
    /// Its part of what all may take.
    budget: BudgetGuard,
    unfit: Option<NotKept>,
}

#[derive(Debug, Default)]
struct Choice {
    index: u64,
    finish_reason: Option<String>,
    /// What else is said of its end.
    ending: Map<String, Value>,
    /// The message's members that are texts.
    texts: BTreeMap<String, String>,
    calls: Vec<ToolCall>,
    /// `function_call`, which came before tool calls.
    function: Option<BTreeMap<String, String>>,
    /// The lists of `logprobs`: their elements as JSON, with commas between them.
    logprobs: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct ToolCall {
    /// `id` and `type`
    texts: BTreeMap<String, String>,
    function: Option<BTreeMap<String, String>>,
}

/// A choice or a tool call has about this much around its texts, in an entry and in memory.
const FRAME: usize = 64;

impl Transcript {
    /// An empty one, of a completion of at most so many bytes.
    pub fn new(most_bytes: usize, all: &RecordingBudget) -> Self {
        let budget = all.guard();
        Self { members: BTreeMap::new(), choices: Vec::new(), bytes: 0, most_bytes, budget, unfit: None }
    }

    /// The data of one event has come.
    pub fn event(&mut self, data: &[u8]) {
        if self.unfit.is_some() {
            return;
        }
        let read = match serde_json::from_slice(data) {
            Ok(Value::Object(chunk)) => self.chunk(chunk),
            _ => Err(NotKept("shape")),
        };
        let read = read.and_then(|()| match self.bytes {
            bytes if bytes > self.most_bytes => Err(NotKept("too_long")),
            bytes if !self.budget.set(bytes) => Err(NotKept(FULL)),
            _ => Ok(()),
        });
        if let Err(why) = read {
            (self.members, self.choices) = (BTreeMap::new(), Vec::new());
            (self.bytes, self.unfit) = (0, Some(why));
            self.budget.set(0);
        }
    }

    /// The completion, once the stream has ended as it should.
    ///
    /// # Errors
    /// [`NotKept`] where it could not be put together.
    pub fn finish(self) -> Result<Value, NotKept> {
        if let Some(why) = self.unfit {
            return Err(why);
        }
        let mut completion = Map::new();
        for (name, text) in self.members {
            completion.insert(name, serde_json::from_str(&text).map_err(|_| NotKept("shape"))?);
        }
        let choices: Result<Vec<Value>, NotKept> = self.choices.into_iter().map(Choice::finish).collect();
        completion.insert("choices".to_owned(), Value::Array(choices?));
        Ok(Value::Object(completion))
    }

    fn chunk(&mut self, chunk: Map<String, Value>) -> Result<(), NotKept> {
        for (name, value) in chunk {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                // Of one call, and noise against listeners on the line.
                ("id" | "object" | "created" | "obfuscation", _) => {}
                ("choices", Value::Array(choices)) => {
                    for choice in choices {
                        let Value::Object(choice) = choice else { return Err(NotKept("shape")) };
                        self.choice(choice)?;
                    }
                }
                // The last word counts: some providers count usage up from chunk to chunk.
                (_, value) => {
                    let text = value.to_string();
                    self.bytes += name.len() + text.len();
                    let len = name.len();
                    if let Some(before) = self.members.insert(name, text) {
                        self.bytes -= len + before.len();
                    }
                }
            }
        }
        Ok(())
    }

    fn choice(&mut self, mut chunk: Map<String, Value>) -> Result<(), NotKept> {
        let index = chunk.remove("index").map_or(Some(0), |index| index.as_u64()).ok_or(NotKept("shape"))?;
        let delta = match chunk.remove("delta") {
            Some(Value::Object(delta)) => delta,
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err(NotKept("shape")),
        };
        let at = self.choices.iter().position(|choice| choice.index == index);
        if at.is_none() {
            self.choices.push(Choice { index, ..Choice::default() });
            self.bytes += FRAME;
        }
        let choice = match at {
            Some(at) => self.choices.get_mut(at),
            None => self.choices.last_mut(),
        };
        let choice = choice.ok_or(NotKept("shape"))?;
        let bytes = &mut self.bytes;
        for (name, value) in chunk {
            match (name.as_str(), value) {
                (_, Value::Null) | ("content_filter_results", _) => {}
                // A choice finishes once: of two reasons one is wrong, and a filter's may be the other.
                ("finish_reason", Value::String(reason)) => {
                    *bytes += reason.len();
                    if *choice.finish_reason.get_or_insert_with(|| reason.clone()) != reason {
                        return Err(NotKept("shape"));
                    }
                }
                (also, value @ (Value::String(_) | Value::Number(_))) if ENDINGS.contains(&also) => {
                    *bytes += name.len() + value.as_str().map_or(20, str::len);
                    if *choice.ending.entry(name).or_insert_with(|| value.clone()) != value {
                        return Err(NotKept("shape"));
                    }
                }
                ("logprobs", Value::Object(logprobs)) => choice.merge_logprobs(logprobs, bytes)?,
                _ => return Err(NotKept("shape")),
            }
        }
        for (name, value) in delta {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("role", Value::String(role)) => set(&mut choice.texts, name, role, bytes),
                ("tool_calls", Value::Array(calls)) => choice.merge_calls(calls, bytes)?,
                ("function_call", Value::Object(call)) => {
                    append_all(choice.function.get_or_insert_default(), call, bytes)?;
                }
                // Content, refusal, and what reasoning models call their thoughts.
                (_, Value::String(text)) => append(&mut choice.texts, name, &text, bytes),
                _ => return Err(NotKept("shape")),
            }
        }
        Ok(())
    }
}

impl Choice {
    fn merge_calls(&mut self, calls: Vec<Value>, bytes: &mut usize) -> Result<(), NotKept> {
        for call in calls {
            let Value::Object(mut call) = call else { return Err(NotKept("shape")) };
            let index = call.remove("index").and_then(|index| index.as_u64()).ok_or(NotKept("shape"))?;
            let index = usize::try_from(index).map_err(|_| NotKept("shape"))?;
            if index == self.calls.len() {
                self.calls.push(ToolCall::default());
                *bytes += FRAME;
            }
            // In their order, so that a place is never made up.
            let whole = self.calls.get_mut(index).ok_or(NotKept("shape"))?;
            for (name, value) in call {
                match (name.as_str(), value) {
                    (_, Value::Null) => {}
                    ("id" | "type", Value::String(text)) => set(&mut whole.texts, name, text, bytes),
                    ("function", Value::Object(function)) => {
                        append_all(whole.function.get_or_insert_default(), function, bytes)?;
                    }
                    _ => return Err(NotKept("shape")),
                }
            }
        }
        Ok(())
    }

    /// Lists of tokens follow one another.
    fn merge_logprobs(&mut self, logprobs: Map<String, Value>, bytes: &mut usize) -> Result<(), NotKept> {
        for (name, value) in logprobs {
            match value {
                Value::Null => {}
                Value::Array(more) => {
                    let list = self.logprobs.entry(name).or_default();
                    let before = list.len();
                    for element in more {
                        if !list.is_empty() {
                            list.push(',');
                        }
                        list.push_str(&element.to_string());
                    }
                    *bytes += list.len() - before;
                }
                _ => return Err(NotKept("shape")),
            }
        }
        Ok(())
    }

    /// The choice of a whole completion.
    fn finish(self) -> Result<Value, NotKept> {
        let mut message =
            Map::from_iter([("role".to_owned(), "assistant".into()), ("content".to_owned(), Value::Null)]);
        message.extend(texts(self.texts));
        message.extend(self.function.map(|call| ("function_call".to_owned(), Value::Object(texts(call)))));
        if !self.calls.is_empty() {
            let calls = self.calls.into_iter().map(|call| {
                let mut whole = texts(call.texts);
                whole.extend(call.function.map(|function| ("function".to_owned(), Value::Object(texts(function)))));
                Value::Object(whole)
            });
            message.insert("tool_calls".to_owned(), calls.collect());
        }
        let mut choice = Map::from_iter([("index".to_owned(), self.index.into())]);
        choice.insert("message".to_owned(), Value::Object(message));
        choice.extend(self.finish_reason.map(|reason| ("finish_reason".to_owned(), reason.into())));
        choice.extend(self.ending);
        if !self.logprobs.is_empty() {
            let mut lists = Map::new();
            for (name, list) in self.logprobs {
                let list: Value = serde_json::from_str(&format!("[{list}]")).map_err(|_| NotKept("shape"))?;
                lists.insert(name, list);
            }
            choice.insert("logprobs".to_owned(), Value::Object(lists));
        }
        Ok(Value::Object(choice))
    }
}

fn texts(from: BTreeMap<String, String>) -> Map<String, Value> {
    from.into_iter().map(|(name, text)| (name, Value::String(text))).collect()
}

fn set(into: &mut BTreeMap<String, String>, name: String, text: String, bytes: &mut usize) {
    let (name_len, len) = (name.len(), text.len());
    *bytes += match into.insert(name, text) {
        None => name_len + len,
        Some(before) => len.saturating_sub(before.len()),
    };
}

fn append(into: &mut BTreeMap<String, String>, name: String, text: &str, bytes: &mut usize) {
    *bytes += text.len() + if into.contains_key(&name) { 0 } else { name.len() };
    into.entry(name).or_default().push_str(text);
}

/// Adds the pieces of a function's name and arguments.
fn append_all(into: &mut BTreeMap<String, String>, from: Map<String, Value>, bytes: &mut usize) -> Result<(), NotKept> {
    for (name, value) in from {
        match value {
            Value::Null => {}
            Value::String(text) => append(into, name, &text, bytes),
            _ => return Err(NotKept("shape")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(chunks: &[Value]) -> Result<Value, NotKept> {
        let mut transcript = Transcript::new(10_000, &RecordingBudget::default());
        chunks.iter().for_each(|chunk| transcript.event(chunk.to_string().as_bytes()));
        transcript.finish()
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

    #[test]
    fn choices_and_log_probabilities_are_kept_apart() {
        let piece = |index: u64, text: &str| json!({"choices": [{"index": index, "delta": {"content": text}, "logprobs": {"content": [{"token": text}]}}]});
        let whole = run(&[piece(1, "b"), piece(0, "a"), piece(1, "c")]).unwrap();
        assert_eq!(whole["choices"][0]["message"]["content"], "bc");
        assert_eq!(whole["choices"][0]["logprobs"]["content"], json!([{"token": "b"}, {"token": "c"}]));
        assert_eq!(whole["choices"][1]["message"]["content"], "a");
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
        assert_eq!(run(&[text(), ends(Value::Null)]).unwrap()["choices"][0].get("stop_reason"), None);
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
        assert_eq!(run(&[json!([])]), Err(NotKept("shape")));
        let long = vec![delta(json!({"content": "x".repeat(600)})); 20];
        assert_eq!(run(&long), Err(NotKept("too_long")));
    }

    #[test]
    fn it_takes_as_much_as_its_text_however_it_is_sent_and_nothing_once_that_is_too_long() {
        let logprobs = |token: &str| json!({"content": [{"token": token, "logprob": -0.5, "top_logprobs": [1, 2, 3]}]});
        let piece =
            |text: &str| json!({"choices": [{"index": 0, "delta": {"content": text}, "logprobs": logprobs(text)}]});
        for chunk in [
            delta(json!({"content": "x"})),
            delta(json!({"reasoning": "x", "content": ""})),
            delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]})),
            piece("x"),
            json!({"usage": {"completion_tokens": 1}, "model": "m", "choices": []}),
        ] {
            let text = chunk.to_string();
            let mut transcript = Transcript::new(10_000, &RecordingBudget::default());
            let mut events = 0;
            while transcript.unfit.is_none() && events < 20_000 {
                transcript.event(text.as_bytes());
                events += 1;
                assert!(transcript.bytes <= 10_000);
            }
            let is_endless = chunk["choices"] == json!([]);
            assert_eq!(transcript.unfit.is_none(), is_endless, "{chunk}");
            assert!(is_endless || transcript.choices.is_empty() && transcript.members.is_empty());
            assert!(events > 100, "the frames of {events} events are not counted: {chunk}");
        }
        // Members that never end.
        let mut transcript = Transcript::new(1000, &RecordingBudget::default());
        (0..2000)
            .for_each(|n| transcript.event(json!({format!("member-{n}"): n, "choices": []}).to_string().as_bytes()));
        assert!(transcript.unfit.is_some());
    }

    #[test]
    fn all_streams_together_take_what_there_is_and_what_is_not_recorded_gives_it_back() {
        let all = RecordingBudget::new(1000);
        let text = |n: usize| delta(json!({"content": "x".repeat(n)})).to_string();
        let mut first = Transcript::new(10_000, &all);
        let mut second = Transcript::new(10_000, &all);
        first.event(text(500).as_bytes());
        second.event(text(500).as_bytes());
        assert_eq!(second.finish(), Err(NotKept(FULL)));
        // What the second one had is the first one's to have.
        first.event(text(300).as_bytes());
        assert!(first.finish().is_ok());
        let mut third = Transcript::new(10_000, &all);
        third.event(text(900).as_bytes());
        assert!(third.finish().is_ok());
    }
}
