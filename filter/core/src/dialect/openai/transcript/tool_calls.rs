//! The tool calls of a recorded stream, told apart by index and id.
//!
//! OpenAI numbers the calls, and sends a call's id and name once. Servers that imitate it number every call 0, send no
//! number, or repeat the name in each delta. So a new id starts a new call, and a name is assigned, never appended.
//! Where that leaves a doubt, the answer is not put together.

use crate::dialect::answer::NotKept;
use crate::dialect::openai::read::Place;
use crate::dialect::openai::transcript::doubts::Doubts;
use crate::dialect::openai::transcript::members::{Change, Members, begin_member, separate};
use crate::dialect::openai::transcript::parts::Parts;
use crate::dialect::openai::transcript::parts_limit;
use crate::wire::json::{Kind, unquote};
use serde_json::value::RawValue;

/// Approximate overhead of a call besides its texts, in an entry and in memory, in bytes.
const FRAME: usize = 64;

/// The calls so far, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct ToolCalls(Vec<ToolCall>);

#[derive(Debug, Default)]
struct ToolCall {
    index: Option<u64>,
    /// Its members besides the function.
    members: Members,
    function: Option<Function>,
}

/// The function of a call, or the older `function_call`.
#[derive(Debug, Default)]
pub(super) struct Function(Members);

impl ToolCalls {
    /// Reads one delta of a call. `bytes`: grows by what it adds.
    ///
    /// # Errors
    /// [`NotKept`] if it cannot be read, or if a doubt is fatal which call the delta belongs to, or what it says.
    pub(super) fn delta(&mut self, parts: Parts, bytes: &mut usize, doubts: &mut Doubts) -> Result<(), NotKept> {
        let index = match parts.index(Place::Call)? {
            None => None,
            Some(index) => Some(index.ok_or(NotKept("shape"))?),
        };
        let mut id = None;
        for part in parts.of(Place::Call) {
            if parts.name(part)? == "id" && part.kind == Kind::String {
                id = inside(parts.json(part)?).filter(|id| !id.is_empty());
            }
        }
        let call = self.of(index, id, bytes, doubts)?;
        // Without an id, only the first delta says clearly which call it is of.
        let is_nameless = call.members.text("id").is_empty();
        if is_nameless && call.function.as_ref().is_some_and(|function| id.is_some() && function.is_whole()) {
            doubts.raise()?;
        }
        let name = call.function.as_ref().map_or("", |function| function.0.text("name"));
        let may_repeat_name = !is_nameless || name.is_empty();
        for part in parts.of(Place::CallFunction).filter(|_| !may_repeat_name) {
            if parts.name(part)? == "name" && part.kind == Kind::String && parts.json(part)? != "\"\"" {
                doubts.raise()?;
            }
        }
        for part in parts.of(Place::Call) {
            let (name, json) = (parts.name(part)?, parts.json(part)?);
            match (&*name, part.kind) {
                ("index", _) => {}
                ("function", Kind::Object) => {
                    call.function.get_or_insert_default().delta(parts, Place::CallFunction, bytes, doubts)?;
                }
                (_, kind) => {
                    let is_known = matches!((&*name, kind), ("id" | "type", Kind::String) | (_, Kind::Null));
                    let change = call.members.set(&name, kind, json, bytes);
                    if !is_known && (change == Change::Replaced || doubts.is_for_cache) {
                        doubts.raise()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns the call of a delta with this `index` and `id`, which may be a new one.
    fn of(
        &mut self,
        index: Option<u64>,
        id: Option<&str>,
        bytes: &mut usize,
        doubts: &mut Doubts,
    ) -> Result<&mut ToolCall, NotKept> {
        let calls = &mut self.0;
        let with_index = |call: &&ToolCall| call.index == index;
        let same = match id {
            Some(id) => {
                let same = calls.iter().position(|call| call.index == index && call.members.text("id") == id);
                // The id of a call may follow its first delta.
                let unnamed =
                    |call: &ToolCall| call.index == index && index.is_some() && call.members.text("id").is_empty();
                same.or_else(|| calls.len().checked_sub(1).filter(|last| calls.get(*last).is_some_and(unnamed)))
            }
            None => {
                // Without an index nothing says which call goes on.
                if index.is_none() {
                    doubts.raise()?;
                }
                calls.iter().rposition(|call| call.index == index)
            }
        };
        let at = match same {
            Some(at) => at,
            None => {
                // Indexes count up from 0 without a gap; clients sort by them.
                let next = calls.iter().filter_map(|call| call.index).max().map_or(0, |last| last + 1);
                let is_next = index.is_none_or(|index| index == next || calls.iter().rev().find(with_index).is_some());
                if !is_next || index.is_none() && calls.iter().any(|call| call.index.is_some()) {
                    doubts.raise()?;
                }
                *bytes = bytes.saturating_add(parts_limit::size(calls.len(), FRAME));
                calls.push(ToolCall { index, ..ToolCall::default() });
                calls.len() - 1
            }
        };
        calls.get_mut(at).ok_or(NotKept("shape"))
    }

    /// Returns whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether the arguments of every call are nothing or one JSON object: otherwise two calls may have been
    /// glued together.
    pub(super) fn are_whole(&self) -> bool {
        self.0.iter().filter_map(|call| call.function.as_ref()).all(Function::is_empty_or_whole)
    }

    /// Writes the calls as in a whole message.
    pub(super) fn write(&self, out: &mut String) {
        out.push('[');
        for call in &self.0 {
            separate(out);
            out.push('{');
            call.members.write("id", out);
            call.members.write("type", out);
            if let Some(function) = &call.function {
                begin_member("function", out);
                function.write(out);
            }
            let but: &[&str] = if call.function.is_some() { &["id", "type", "function"] } else { &["id", "type"] };
            call.members.write_others(but, out);
            out.push('}');
        }
        out.push(']');
    }
}

impl Function {
    /// Reads one delta: assigns the name, and appends to the arguments.
    ///
    /// # Errors
    /// [`NotKept`] if it cannot be read, or if it names another function than an earlier delta and that doubt is fatal.
    pub(super) fn delta(
        &mut self,
        parts: Parts,
        place: Place,
        bytes: &mut usize,
        doubts: &mut Doubts,
    ) -> Result<(), NotKept> {
        for part in parts.of(place) {
            let (name, json) = (parts.name(part)?, parts.json(part)?);
            // A name may be repeated. Another one is either a piece of it or another call.
            let repeats = name == "name" && inside(json) == Some(self.0.text("name"));
            let change = if repeats { Change::Same } else { self.0.append(&name, part.kind, json, bytes) };
            let is_certain = match change {
                Change::Began | Change::Same => matches!(part.kind, Kind::String | Kind::Null) || !doubts.is_for_cache,
                Change::Grew => name == "arguments",
                Change::Replaced => false,
            };
            if !is_certain {
                doubts.raise()?;
            }
        }
        Ok(())
    }

    /// Returns whether its arguments are a JSON object already.
    fn is_whole(&self) -> bool {
        let quoted = ["\"", self.0.text("arguments"), "\""].concat();
        unquote(quoted.as_bytes()).is_some_and(|arguments| {
            arguments.trim_start().starts_with('{') && serde_json::from_str::<&RawValue>(&arguments).is_ok()
        })
    }

    /// Returns whether its arguments are nothing or a JSON object.
    pub(super) fn is_empty_or_whole(&self) -> bool {
        self.0.text("arguments").trim().is_empty() || self.is_whole()
    }

    /// Writes the function as in a whole message.
    pub(super) fn write(&self, out: &mut String) {
        out.push('{');
        self.0.write_others(&[], out);
        out.push('}');
    }
}

/// Returns the inside of a string, as it is written.
fn inside(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"')
}
