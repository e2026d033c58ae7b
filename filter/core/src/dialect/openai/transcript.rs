//! Reassembles a stream into a completion.

use crate::cache::local::recording::{BudgetGuard, FULL};
use crate::dialect::answer::NotKept;
use crate::dialect::openai::completion::ENDINGS;
use crate::dialect::openai::read::{Part, Place};
use crate::wire::json::{Kind, Span, unquote};
use serde_json::{Map, Value};
use std::borrow::Cow;
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
    texts: BTreeMap<String, String>,
    calls: Vec<ToolCall>,
    /// `function_call`, the predecessor of tool calls.
    function: Option<BTreeMap<String, String>>,
    /// The lists in `logprobs`: their elements as JSON, separated by commas.
    logprobs: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct ToolCall {
    /// `id` and `type`
    texts: BTreeMap<String, String>,
    function: Option<BTreeMap<String, String>>,
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
            (self.members, self.choices) = (BTreeMap::new(), Vec::new());
            (self.bytes, self.unfit) = (0, Some(why));
            self.budget.set(0);
        }
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
        chunk.split(Place::NewChoice).try_for_each(|choice| self.choice(choice))
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
                ("role", Kind::String) => set(&mut choice.texts, "role", parts.text(part)?, bytes),
                ("function_call", Kind::Object) => {
                    parts.append_all(Place::FunctionCall, choice.function.get_or_insert_default(), bytes)?;
                }
                // Content, refusal, and the various members for reasoning.
                (name, Kind::String) => append(&mut choice.texts, name, &parts.text(part)?, bytes),
                _ => return Err(NotKept("shape")),
            }
        }
        parts.split(Place::NewCall).try_for_each(|call| choice.call(call, bytes))
    }
}

impl Choice {
    /// Reads the members about its end, and its log probabilities.
    fn end(&mut self, parts: Parts, bytes: &mut usize) -> Result<(), NotKept> {
        for part in parts.of(Place::Choice) {
            match (parts.name(part)?, part.kind) {
                ("index" | "content_filter_results", _) | (_, Kind::Null) => {}
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

    fn call(&mut self, parts: Parts, bytes: &mut usize) -> Result<(), NotKept> {
        let index = parts.index(Place::Call)?.flatten().ok_or(NotKept("shape"))?;
        let index = usize::try_from(index).map_err(|_| NotKept("shape"))?;
        if index == self.calls.len() {
            self.calls.push(ToolCall::default());
            *bytes += FRAME;
        }
        // Tool calls must start in order of their index; a gap is an error.
        let whole = self.calls.get_mut(index).ok_or(NotKept("shape"))?;
        for part in parts.of(Place::Call) {
            match (parts.name(part)?, part.kind) {
                ("index", _) | (_, Kind::Null) => {}
                (name @ ("id" | "type"), Kind::String) => set(&mut whole.texts, name, parts.text(part)?, bytes),
                ("function", Kind::Object) => {
                    parts.append_all(Place::CallFunction, whole.function.get_or_insert_default(), bytes)?;
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

fn set(into: &mut BTreeMap<String, String>, name: &str, text: Cow<str>, bytes: &mut usize) {
    let len = text.len();
    *bytes += match into.insert(name.to_owned(), text.into_owned()) {
        None => name.len() + len,
        Some(before) => len.saturating_sub(before.len()),
    };
}

fn append(into: &mut BTreeMap<String, String>, name: &str, text: &str, bytes: &mut usize) {
    match into.get_mut(name) {
        Some(before) => before.push_str(text),
        None => {
            into.insert(name.to_owned(), text.to_owned());
            *bytes += name.len();
        }
    }
    *bytes += text.len();
}

/// The parts of a chunk, a choice or a tool call, and the data that they refer to.
#[derive(Clone, Copy)]
struct Parts<'a> {
    data: &'a [u8],
    parts: &'a [Part],
}

impl<'a> Parts<'a> {
    /// Rejects ambiguous input: a duplicate member, or a value other than an object where a choice or a tool call is
    /// expected.
    fn check(self) -> Result<(), NotKept> {
        let (mut choice, mut call) = (0usize, 0usize);
        let mut names = Vec::with_capacity(self.parts.len());
        for part in self.parts {
            match part.place {
                Place::Strange => return Err(NotKept("shape")),
                Place::NewChoice => choice += 1,
                Place::NewCall => call += 1,
                // A member that follows a choice or a call may belong to an enclosing object.
                Place::Chunk => names.push((0, 0, part.place, self.name(part)?)),
                Place::Call | Place::CallFunction => names.push((choice, call, part.place, self.name(part)?)),
                _ => names.push((choice, 0, part.place, self.name(part)?)),
            }
        }
        names.sort_unstable();
        if names.windows(2).any(|pair| matches!(pair, [one, other] if one == other)) {
            return Err(NotKept("shape"));
        }
        Ok(())
    }

    fn of(self, place: Place) -> impl Iterator<Item = &'a Part> {
        self.parts.iter().filter(move |part| part.place == place)
    }

    /// Returns the parts after each start of a choice or a call, up to the next start.
    fn split(self, start: Place) -> impl Iterator<Item = Parts<'a>> {
        self.parts.split(move |part| part.place == start).skip(1).map(move |parts| Parts { parts, ..self })
    }

    /// Returns a member's name. Rejects a name with escapes, because the reader compares names without decoding them.
    fn name(self, part: &Part) -> Result<&'a str, NotKept> {
        let name = self.at(&part.name).strip_prefix('"').and_then(|name| name.strip_suffix('"'));
        name.filter(|name| !name.contains('\\')).ok_or(NotKept("shape"))
    }

    /// Returns a member's value as raw JSON.
    fn json(self, part: &Part) -> Result<&'a str, NotKept> {
        Some(self.at(&part.value)).filter(|text| !text.is_empty()).ok_or(NotKept("shape"))
    }

    /// Returns a string value, unquoted and unescaped.
    fn text(self, part: &Part) -> Result<Cow<'a, str>, NotKept> {
        self.data.get(part.value.clone()).and_then(unquote).ok_or(NotKept("shape"))
    }

    fn at(self, span: &Span) -> &'a str {
        self.data.get(span.clone()).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// Returns the `index` of a choice or a call: `None` if it has no index, `Some(None)` if the index is invalid.
    fn index(self, place: Place) -> Result<Option<Option<u64>>, NotKept> {
        for part in self.of(place) {
            if self.name(part)? == "index" {
                return Ok(Some(self.json(part)?.parse().ok()));
            }
        }
        Ok(None)
    }

    /// Appends the pieces of a function's name and arguments.
    fn append_all(self, place: Place, into: &mut BTreeMap<String, String>, bytes: &mut usize) -> Result<(), NotKept> {
        for part in self.of(place) {
            match part.kind {
                Kind::Null => {}
                Kind::String => append(into, self.name(part)?, &self.text(part)?, bytes),
                _ => return Err(NotKept("shape")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
