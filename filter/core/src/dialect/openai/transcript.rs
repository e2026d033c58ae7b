//! Reassembles a stream into a completion.

mod parts;
mod texts;
mod tool_calls;

use crate::cache::local::recording::{BudgetGuard, FULL};
use crate::dialect::answer::NotKept;
use crate::dialect::openai::completion::ENDINGS;
use crate::dialect::openai::read::{Part, Place};
use crate::dialect::openai::transcript::parts::Parts;
use crate::dialect::openai::transcript::texts::Texts;
use crate::dialect::openai::transcript::tool_calls::{Function, ToolCalls};
use crate::wire::json::Kind;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The completion so far. Anything ambiguous makes it unfit to be kept, permanently.
///
/// It holds the completion's text and little else. It is bounded by the longest answer that is kept, and all streams of
/// a worker share one budget. Recording stops at either limit.
#[derive(Debug)]
pub struct Transcript {
    /// Members of the completion, as JSON texts.
    members: BTreeMap<String, String>,
    choices: Vec<Choice>,
    /// Bytes of all texts, names and frames.
    bytes: usize,
    max_bytes: usize,
    /// Its share of the recording budget.
    budget: BudgetGuard,
    unfit: Option<NotKept>,
}

#[derive(Debug, Default)]
struct Choice {
    index: u64,
    finish_reason: Option<String>,
    /// The other members about its end.
    ending: Map<String, Value>,
    /// The message's string members.
    texts: Texts,
    calls: ToolCalls,
    /// `function_call`, the predecessor of tool calls.
    function: Option<Function>,
    /// The lists in `logprobs`: their elements as JSON, separated by commas.
    logprobs: BTreeMap<String, String>,
}

/// Approximate overhead of a choice or a tool call besides its texts, in an entry and in memory, in bytes.
const FRAME: usize = 64;

impl Transcript {
    /// Creates an empty transcript of a completion of up to `max_bytes`. `budget`: its share of the recording budget.
    pub fn new(max_bytes: usize, budget: BudgetGuard) -> Self {
        Self { members: BTreeMap::new(), choices: Vec::new(), bytes: 0, max_bytes, budget, unfit: None }
    }

    /// Adds one event, given its data and the parts read from it.
    pub fn event(&mut self, data: &[u8], parts: &[Part]) {
        if self.unfit.is_some() {
            return;
        }
        let read = self.chunk(Parts { data, parts }).and_then(|()| match self.bytes {
            bytes if bytes > self.max_bytes => Err(NotKept("too_long")),
            bytes if !self.budget.set(bytes) => Err(NotKept(FULL)),
            _ => Ok(()),
        });
        if let Err(why) = read {
            self.give_up(why);
        }
    }

    /// Forgets the answer, which is not kept.
    pub fn give_up(&mut self, why: NotKept) {
        (self.members, self.choices) = (BTreeMap::new(), Vec::new());
        (self.bytes, self.unfit) = (0, Some(why));
        self.budget.set(0);
    }

    /// Returns the completion, once the stream has ended properly.
    ///
    /// # Errors
    /// [`NotKept`] if it could not be reassembled.
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

    fn chunk(&mut self, chunk: Parts) -> Result<(), NotKept> {
        chunk.check()?;
        for part in chunk.of(Place::Chunk) {
            match (chunk.name(part)?, part.kind) {
                (_, Kind::Null) | ("choices", Kind::Array) => {}
                // These belong to one call; `obfuscation` is padding against eavesdroppers.
                ("id" | "object" | "created" | "obfuscation", _) => {}
                // The last value wins: some providers send a running usage count in every chunk.
                (name, _) => {
                    let text = chunk.json(part)?;
                    self.bytes += name.len() + text.len();
                    if let Some(before) = self.members.insert(name.to_owned(), text.to_owned()) {
                        self.bytes -= name.len() + before.len();
                    }
                }
            }
        }
        let mut indexes = Vec::new();
        chunk.split(Place::NewChoice).try_for_each(|choice| {
            // Two deltas of one choice in one chunk may as well be two choices without an index.
            let index = choice.index(Place::Choice)?.flatten().unwrap_or(0);
            if indexes.contains(&index) {
                return Err(NotKept("shape"));
            }
            indexes.push(index);
            self.choice(choice)
        })
    }

    fn choice(&mut self, parts: Parts) -> Result<(), NotKept> {
        let index = parts.index(Place::Choice)?.map_or(Ok(0), |index| index.ok_or(NotKept("shape")))?;
        let at = self.choices.iter().position(|choice| choice.index == index);
        if at.is_none() {
            self.choices.push(Choice { index, ..Choice::default() });
            self.bytes += FRAME;
        }
        let choice = match at {
            Some(at) => self.choices.get_mut(at),
            None => self.choices.last_mut(),
        };
        let (choice, bytes) = (choice.ok_or(NotKept("shape"))?, &mut self.bytes);
        choice.end(parts, bytes)?;
        for part in parts.of(Place::Delta) {
            match (parts.name(part)?, part.kind) {
                (_, Kind::Null) | ("tool_calls", Kind::Array) => {}
                ("role", Kind::String) => choice.texts.set("role", parts.text(part)?, bytes),
                ("function_call", Kind::Object) => {
                    choice.function.get_or_insert_default().delta(parts, Place::FunctionCall, bytes)?;
                }
                // Content, refusal, and the various members for reasoning.
                (name, Kind::String) => choice.texts.append(name, &parts.text(part)?, bytes),
                _ => return Err(NotKept("shape")),
            }
        }
        parts.split(Place::NewCall).try_for_each(|call| choice.calls.delta(call, bytes))
    }
}

impl Choice {
    /// Reads the members about its end, and its log probabilities.
    fn end(&mut self, parts: Parts, bytes: &mut usize) -> Result<(), NotKept> {
        for part in parts.of(Place::Choice) {
            match (parts.name(part)?, part.kind) {
                ("index" | "content_filter_results" | "usage", _) | (_, Kind::Null) => {}
                ("delta" | "logprobs", Kind::Object) => {}
                // A choice finishes once. Of two different reasons one is wrong, and one may be the content filter's.
                ("finish_reason", Kind::String) => {
                    let reason = parts.text(part)?;
                    *bytes += reason.len();
                    if *self.finish_reason.get_or_insert_with(|| reason.clone().into_owned()) != reason {
                        return Err(NotKept("shape"));
                    }
                }
                (name, Kind::String | Kind::Number) if ENDINGS.contains(&name) => {
                    let value: Value = serde_json::from_str(parts.json(part)?).map_err(|_| NotKept("shape"))?;
                    *bytes += name.len() + value.as_str().map_or(20, str::len);
                    if *self.ending.entry(name).or_insert_with(|| value.clone()) != value {
                        return Err(NotKept("shape"));
                    }
                }
                _ => return Err(NotKept("shape")),
            }
        }
        // Append the lists of tokens.
        for part in parts.of(Place::Logprobs) {
            match part.kind {
                Kind::Null => {}
                Kind::Array => {
                    let list = parts.json(part)?.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                    let more = list.ok_or(NotKept("shape"))?.trim_ascii();
                    let list = self.logprobs.entry(parts.name(part)?.to_owned()).or_default();
                    if !list.is_empty() && !more.is_empty() {
                        list.push(',');
                        *bytes += 1;
                    }
                    list.push_str(more);
                    *bytes += more.len();
                }
                _ => return Err(NotKept("shape")),
            }
        }
        Ok(())
    }

    /// Returns the choice as in a whole completion.
    fn finish(self) -> Result<Value, NotKept> {
        let mut message =
            Map::from_iter([("role".to_owned(), "assistant".into()), ("content".to_owned(), Value::Null)]);
        message.extend(self.texts.into_json());
        if let Some(function) = self.function {
            message.insert("function_call".to_owned(), function.finish()?);
        }
        if let Some(calls) = self.calls.finish()? {
            message.insert("tool_calls".to_owned(), calls);
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

#[cfg(test)]
mod tests;
