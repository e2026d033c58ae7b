//! A stream put together again into the completion that it was.

use super::completion::NotKept;
use serde_json::{Map, Value, json};

/// The completion so far. What cannot be put together with certainty makes it unfit to be kept, for good.
#[derive(Debug)]
pub struct Transcript {
    completion: Map<String, Value>,
    choices: Vec<Map<String, Value>>,
    bytes: usize,
    most_bytes: usize,
    unfit: Option<NotKept>,
}

impl Transcript {
    /// An empty one, of at most so many bytes of events.
    pub fn new(most_bytes: usize) -> Self {
        Self { completion: Map::new(), choices: Vec::new(), bytes: 0, most_bytes, unfit: None }
    }

    /// The data of one event has come.
    pub fn event(&mut self, data: &[u8]) {
        if self.unfit.is_some() {
            return;
        }
        self.bytes += data.len();
        let read = match serde_json::from_slice(data) {
            Ok(Value::Object(chunk)) if self.bytes <= self.most_bytes => self.chunk(chunk),
            Ok(_) if self.bytes > self.most_bytes => Err(NotKept("too_long")),
            _ => Err(NotKept("shape")),
        };
        if let Err(why) = read {
            self.unfit = Some(why);
            self.choices = Vec::new();
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
        let mut completion = self.completion;
        completion.insert("choices".to_owned(), self.choices.into_iter().map(Value::Object).collect());
        Ok(Value::Object(completion))
    }

    fn chunk(&mut self, chunk: Map<String, Value>) -> Result<(), NotKept> {
        for (name, value) in chunk {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                // Noise against listeners on the line.
                ("object" | "obfuscation", _) => {}
                ("choices", Value::Array(choices)) => {
                    for choice in choices {
                        let Value::Object(choice) = choice else { return Err(NotKept("shape")) };
                        self.choice(choice)?;
                    }
                }
                // The last word counts: some providers count usage up from chunk to chunk.
                (_, value) => {
                    self.completion.insert(name, value);
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
        let at = self.choices.iter().position(|choice| choice.get("index") == Some(&index.into()));
        if at.is_none() {
            let message = json!({"role": "assistant", "content": null});
            self.choices.push(Map::from_iter([("index".to_owned(), index.into()), ("message".to_owned(), message)]));
        }
        let at = at.unwrap_or(self.choices.len() - 1);
        let choice = self.choices.get_mut(at).ok_or(NotKept("shape"))?;
        for (name, value) in chunk {
            match (name.as_str(), value) {
                (_, Value::Null) | ("content_filter_results", _) => {}
                // A choice finishes once: of two reasons one is wrong, and a filter's may be the other.
                ("finish_reason", reason @ Value::String(_)) => {
                    let first = choice.entry(name).or_insert_with(|| reason.clone());
                    if *first != reason {
                        return Err(NotKept("shape"));
                    }
                }
                ("logprobs", Value::Object(logprobs)) => merge_logprobs(choice, logprobs)?,
                _ => return Err(NotKept("shape")),
            }
        }
        let Some(Value::Object(message)) = choice.get_mut("message") else { return Err(NotKept("shape")) };
        for (name, value) in delta {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("role", role) => {
                    message.insert(name, role);
                }
                ("tool_calls", Value::Array(calls)) => merge_calls(message, calls)?,
                ("function_call", Value::Object(call)) => {
                    let whole = message.entry(name).or_insert_with(|| json!({}));
                    append_members(whole.as_object_mut().ok_or(NotKept("shape"))?, call)?;
                }
                // Content, refusal, and what reasoning models call their thoughts.
                (_, Value::String(text)) => append(message, &name, &text)?,
                _ => return Err(NotKept("shape")),
            }
        }
        Ok(())
    }
}

fn append(into: &mut Map<String, Value>, name: &str, text: &str) -> Result<(), NotKept> {
    match into.entry(name).or_insert(Value::Null) {
        Value::String(so_far) => so_far.push_str(text),
        empty @ Value::Null => *empty = text.into(),
        _ => return Err(NotKept("shape")),
    }
    Ok(())
}

/// Adds the pieces of a function's name and arguments.
fn append_members(into: &mut Map<String, Value>, from: Map<String, Value>) -> Result<(), NotKept> {
    for (name, value) in from {
        match value {
            Value::Null => {}
            Value::String(text) => append(into, &name, &text)?,
            _ => return Err(NotKept("shape")),
        }
    }
    Ok(())
}

fn merge_calls(message: &mut Map<String, Value>, calls: Vec<Value>) -> Result<(), NotKept> {
    let known = message.entry("tool_calls").or_insert_with(|| json!([]));
    let known = known.as_array_mut().ok_or(NotKept("shape"))?;
    for call in calls {
        let Value::Object(mut call) = call else { return Err(NotKept("shape")) };
        let index = call.remove("index").and_then(|index| index.as_u64()).ok_or(NotKept("shape"))?;
        let index = usize::try_from(index).map_err(|_| NotKept("shape"))?;
        // In their order, so that a place is never made up.
        if index > known.len() {
            return Err(NotKept("shape"));
        }
        if index == known.len() {
            known.push(json!({}));
        }
        let whole = known.get_mut(index).and_then(Value::as_object_mut).ok_or(NotKept("shape"))?;
        for (name, value) in call {
            match (name.as_str(), value) {
                (_, Value::Null) => {}
                ("id" | "type", value @ Value::String(_)) => {
                    whole.insert(name, value);
                }
                ("function", Value::Object(function)) => {
                    let known = whole.entry(name).or_insert_with(|| json!({}));
                    append_members(known.as_object_mut().ok_or(NotKept("shape"))?, function)?;
                }
                _ => return Err(NotKept("shape")),
            }
        }
    }
    Ok(())
}

/// Lists of tokens follow one another.
fn merge_logprobs(choice: &mut Map<String, Value>, logprobs: Map<String, Value>) -> Result<(), NotKept> {
    let whole = choice.entry("logprobs").or_insert_with(|| json!({}));
    let whole = whole.as_object_mut().ok_or(NotKept("shape"))?;
    for (name, value) in logprobs {
        match (whole.entry(name).or_insert(Value::Null), value) {
            (_, Value::Null) => {}
            (Value::Array(so_far), Value::Array(more)) => so_far.extend(more),
            (empty @ Value::Null, more @ Value::Array(_)) => *empty = more,
            _ => return Err(NotKept("shape")),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(chunks: &[Value]) -> Result<Value, NotKept> {
        let mut transcript = Transcript::new(10_000);
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
}
