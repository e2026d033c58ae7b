//! One choice of a recorded stream.

use crate::dialect::answer::NotKept;
use crate::dialect::openai::read::Place;
use crate::dialect::openai::transcript::blocks::Blocks;
use crate::dialect::openai::transcript::details::Details;
use crate::dialect::openai::transcript::doubts::Doubts;
use crate::dialect::openai::transcript::members::{Change, Members, begin_member};
use crate::dialect::openai::transcript::parts::Parts;
use crate::dialect::openai::transcript::tool_calls::{Function, ToolCalls};
use crate::wire::json::{InvalidJson, Kind, Scanner, unquote};

/// The choice so far.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub(super) index: u64,
    /// Its members besides the message and the log probabilities.
    members: Members,
    message: Members,
    /// Its content, if that came as a list.
    blocks: Option<Blocks>,
    /// `reasoning_details`
    details: Details,
    /// The whole message so far, which some servers send beside the deltas, and some in place of them.
    whole: Option<String>,
    calls: ToolCalls,
    /// `function_call`, the predecessor of tool calls.
    function: Option<Function>,
    /// The lists in `logprobs`.
    logprobs: Option<Members>,
    /// Whether a delta with calls also had content, even an empty one.
    has_content_beside_calls: bool,
}

/// The texts of a message that arrive in pieces: OpenAI's, and the names that servers have for reasoning.
const TEXTS: [&str; 6] = ["content", "refusal", "reasoning", "reasoning_content", "reasoning_text", "thinking"];

/// Members of which the cache stores nothing.
const NOT_STORED: [&str; 2] = ["content_filter_results", "content_filter_offsets"];

impl Choice {
    /// Creates a choice of which nothing has come.
    pub(super) fn new(index: u64) -> Self {
        Self { index, ..Self::default() }
    }

    /// Adds what a chunk has of it. Moves its own usage, which Kimi sends in the last choice, to `usage`.
    ///
    /// # Errors
    /// [`NotKept`] if it cannot be read, or if there is a doubt what the answer is.
    pub(super) fn delta(
        &mut self,
        parts: Parts,
        usage: &mut Members,
        bytes: &mut usize,
        doubts: &mut Doubts,
    ) -> Result<(), NotKept> {
        self.end(parts, usage, bytes, doubts)?;
        let (mut has_calls, mut has_content) = (false, false);
        for part in parts.of(Place::Delta) {
            let (name, json) = (parts.name(part)?, parts.json(part)?);
            if !doubts.is_for_cache && self.list(&name, part.kind, json, bytes)? {
                continue;
            }
            let change = match (&*name, part.kind) {
                ("role", Kind::String) => {
                    self.message.set(&name, part.kind, json, bytes);
                    continue;
                }
                ("tool_calls", Kind::Array) if parts.of(Place::Call).next().is_some() => {
                    has_calls = true;
                    continue;
                }
                ("function_call", Kind::Object) => {
                    has_calls = true;
                    self.function.get_or_insert_default().delta(parts, Place::FunctionCall, bytes, doubts)?;
                    continue;
                }
                (name, kind) => {
                    has_content |= name == "content" && kind == Kind::String;
                    self.message.append(name, kind, json, bytes)
                }
            };
            let is_text = matches!(part.kind, Kind::String | Kind::Null);
            let is_certain = match change {
                // The cache stores nothing that it does not know.
                Change::Began => is_text || name == "tool_calls" || name != "audio" && !doubts.is_for_cache,
                Change::Same => true,
                Change::Grew => is_text && TEXTS.contains(&&*name),
                Change::Replaced => false,
            };
            if !is_certain {
                doubts.raise()?;
            }
        }
        self.has_content_beside_calls |= has_calls && has_content;
        parts.split(Place::NewCall).try_for_each(|call| self.calls.delta(call, bytes, doubts))
    }

    /// Reads a member of a delta that comes as a list of entries, or continues one. Returns whether it is one.
    fn list(&mut self, name: &str, kind: Kind, json: &str, bytes: &mut usize) -> Result<bool, NotKept> {
        match (name, kind, &mut self.blocks) {
            ("reasoning_details", Kind::Array, _) => self.details.delta(json, bytes)?,
            ("content", Kind::Array, None) if json.len() > 2 => {
                let blocks = self.blocks.insert(Blocks::default());
                if let Some(text) = self.message.take_text("content") {
                    *bytes = bytes.saturating_sub(text.len());
                    blocks.text(&text, bytes)?;
                }
                blocks.list(json, bytes)?;
            }
            ("content", Kind::Array, Some(blocks)) => blocks.list(json, bytes)?,
            ("content", Kind::String, Some(blocks)) => blocks.text(inside(json), bytes)?,
            ("content", Kind::Null, Some(_)) => {}
            ("content", _, Some(_)) => return Err(NotKept("shape")),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads the members about its end, and its log probabilities.
    fn end(
        &mut self,
        parts: Parts,
        usage: &mut Members,
        bytes: &mut usize,
        doubts: &mut Doubts,
    ) -> Result<(), NotKept> {
        for part in parts.of(Place::Choice) {
            let (name, json) = (parts.name(part)?, parts.json(part)?);
            match (&*name, part.kind) {
                ("index", _) | ("delta", Kind::Object | Kind::Null) => {}
                ("message", Kind::Object | Kind::Null) if !doubts.is_for_cache => {
                    self.set_whole(part.kind, json, bytes)
                }
                ("usage", Kind::Object) => drop(usage.set(&name, part.kind, json, bytes)),
                ("usage", _) => {}
                ("logprobs", Kind::Object) => drop(self.logprobs.get_or_insert_default()),
                // A choice finishes once. Of two different reasons one is wrong, and one may be the content filter's.
                _ if name != "delta" && name != "message" => {
                    let change = self.members.set(&name, part.kind, json, bytes);
                    match &*name {
                        name if NOT_STORED.contains(&name) => doubts.is_any |= change == Change::Replaced,
                        _ if change == Change::Replaced => doubts.raise()?,
                        _ => {}
                    }
                }
                // In a stream, some servers repeat the whole message so far.
                _ => doubts.raise()?,
            }
        }
        // Append the lists of tokens.
        for part in parts.of(Place::Logprobs) {
            let (name, json) = (parts.name(part)?, parts.json(part)?);
            let change = self.logprobs.get_or_insert_default().append(&name, part.kind, json, bytes);
            if !matches!(part.kind, Kind::Array | Kind::Null) || change == Change::Replaced {
                doubts.raise()?;
            }
        }
        Ok(())
    }

    fn set_whole(&mut self, kind: Kind, json: &str, bytes: &mut usize) {
        if kind == Kind::Object {
            let before = self.whole.as_ref().map_or(0, String::len);
            *bytes = bytes.saturating_sub(before).saturating_add(json.len());
            self.whole = Some(json.to_owned());
        }
    }

    /// Returns whether nothing but a role came in deltas.
    fn is_without_deltas(&self) -> bool {
        !self.message.has_others(&["role"])
            && self.blocks.is_none()
            && self.details.is_empty()
            && self.calls.is_empty()
            && self.function.is_none()
    }

    /// Returns whether a whole message says nothing else than the deltas did.
    fn says_the_same(&self, whole: &str) -> bool {
        let mut is_same = true;
        let mut scanner = Scanner::lenient(whole.as_bytes(), u32::MAX);
        let read = scanner.object(|s, key| {
            let value = s.value()?;
            let name = unquote(s.bytes(&key)).unwrap_or_default();
            let said = ["\"", self.message.text(&name), "\""].concat();
            is_same &= match value.kind {
                _ if name == "role" => true,
                Kind::Null => true,
                Kind::String => unquote(s.bytes(&value.span)) == unquote(said.as_bytes()),
                Kind::Array | Kind::Object => s.bytes(&value.span).trim_ascii().len() <= 2,
                Kind::Bool | Kind::Number => false,
            };
            Ok::<_, InvalidJson>(())
        });
        is_same && read.is_ok()
    }

    /// Returns whether the arguments of every call are nothing or one JSON object.
    pub(super) fn has_whole_calls(&self) -> bool {
        self.calls.are_whole() && self.function.as_ref().is_none_or(Function::is_empty_or_whole)
    }

    /// Writes the choice as in a whole completion. `is_for_caller`: with what a stream leaves out because it is empty.
    ///
    /// # Errors
    /// [`NotKept`] if the stream had a whole message that contradicts its deltas.
    pub(super) fn write(&self, is_for_caller: bool, out: &mut String) -> Result<(), NotKept> {
        out.push_str("{\"index\":");
        out.push_str(itoa::Buffer::new().format(self.index));
        begin_member("message", out);
        match &self.whole {
            Some(whole) if self.is_without_deltas() => out.push_str(whole),
            Some(whole) if !self.says_the_same(whole) => return Err(NotKept("shape")),
            _ => {
                out.push('{');
                self.write_message(out);
                // OpenAI has both in every whole message.
                if is_for_caller && self.message.has("refusal") && !self.message.has("annotations") {
                    out.push_str(",\"annotations\":[]");
                }
                out.push('}');
            }
        }
        match &self.logprobs {
            Some(lists) => {
                begin_member("logprobs", out);
                out.push('{');
                lists.write_others(&[], out);
                out.push('}');
            }
            None => self.members.write("logprobs", out),
        }
        if !self.members.has("finish_reason") {
            begin_member("finish_reason", out);
            out.push_str("null");
        }
        self.members.write_others(&["logprobs"], out);
        out.push('}');
        Ok(())
    }

    fn write_message(&self, out: &mut String) {
        match self.message.has("role") {
            true => self.message.write("role", out),
            false => out.push_str("\"role\":\"assistant\""),
        }
        let has_calls = !self.calls.is_empty() || self.function.is_some();
        // Servers that begin every stream with an empty content have none in a whole answer that calls.
        let is_null = has_calls && !self.has_content_beside_calls && !self.message.has_value("content");
        match &self.blocks {
            Some(blocks) => {
                begin_member("content", out);
                blocks.write(out);
            }
            None if self.message.has("content") && !is_null => self.message.write("content", out),
            None => out.push_str(",\"content\":null"),
        }
        let mut written = vec!["role", "content"];
        if let Some(function) = &self.function {
            written.push("function_call");
            begin_member("function_call", out);
            function.write(out);
        }
        if !self.details.is_empty() {
            written.push("reasoning_details");
            begin_member("reasoning_details", out);
            self.details.write(out);
        }
        if !self.calls.is_empty() {
            written.push("tool_calls");
            begin_member("tool_calls", out);
            self.calls.write(out);
        }
        self.message.write_others(&written, out);
    }
}

/// Returns the inside of a string, as it is written.
fn inside(json: &str) -> &str {
    json.get(1..json.len().saturating_sub(1)).unwrap_or_default()
}
