//! The tool calls of a recorded stream, told apart by index and id.
//!
//! OpenAI numbers the calls, and sends a call's id and name once. Servers that imitate it number every call 0, send no
//! number, or repeat the name in each delta. So a new id starts a new call, and a name is assigned, never appended.
//! Where that leaves a doubt, the answer is not kept.

use crate::dialect::answer::NotKept;
use crate::dialect::openai::read::Place;
use crate::dialect::openai::transcript::parts::Parts;
use crate::dialect::openai::transcript::texts::Texts;
use crate::wire::json::Kind;
use serde_json::Value;
use serde_json::value::RawValue;

/// Approximate overhead of a call besides its texts, in an entry and in memory, in bytes.
const FRAME: usize = 64;

/// The calls so far, in the order in which they began.
#[derive(Debug, Default)]
pub(super) struct ToolCalls(Vec<ToolCall>);

#[derive(Debug, Default)]
struct ToolCall {
    index: Option<u64>,
    /// `id` and `type`
    texts: Texts,
    function: Option<Function>,
}

/// The function of a call, or the older `function_call`.
#[derive(Debug, Default)]
pub(super) struct Function(Texts);

impl ToolCalls {
    /// Reads one delta of a call. `bytes`: grows by what it adds.
    ///
    /// # Errors
    /// [`NotKept`] if it is not clear which call the delta belongs to, or what it says.
    pub(super) fn delta(&mut self, parts: Parts, bytes: &mut usize) -> Result<(), NotKept> {
        let index = match parts.index(Place::Call)? {
            None => None,
            Some(index) => Some(index.ok_or(NotKept("shape"))?),
        };
        let mut id = None;
        for part in parts.of(Place::Call) {
            if parts.name(part)? == "id" && part.kind == Kind::String {
                id = Some(parts.text(part)?).filter(|id| !id.is_empty());
            }
        }
        let call = self.of(index, id.as_deref(), bytes)?;
        // Without an id, only the first delta says clearly which call it is of.
        let is_nameless = call.texts.get("id").is_empty();
        if is_nameless && call.function.as_ref().is_some_and(|function| function.is_whole() && id.is_some()) {
            return Err(NotKept("shape"));
        }
        let name = call.function.as_ref().map_or("", |function| function.0.get("name"));
        let may_repeat_name = !is_nameless || name.is_empty();
        for part in parts.of(Place::CallFunction).filter(|_| !may_repeat_name) {
            if parts.name(part)? == "name" && part.kind == Kind::String && !parts.text(part)?.is_empty() {
                return Err(NotKept("shape"));
            }
        }
        for part in parts.of(Place::Call) {
            match (parts.name(part)?, part.kind) {
                ("index", _) | (_, Kind::Null) => {}
                (name @ ("id" | "type"), Kind::String) => {
                    let text = parts.text(part)?;
                    if !text.is_empty() {
                        call.texts.set(name, text, bytes);
                    }
                }
                ("function", Kind::Object) => {
                    call.function.get_or_insert_default().delta(parts, Place::CallFunction, bytes)?;
                }
                _ => return Err(NotKept("shape")),
            }
        }
        Ok(())
    }

    /// Returns the call of a delta with this `index` and `id`, which may be a new one.
    fn of(&mut self, index: Option<u64>, id: Option<&str>, bytes: &mut usize) -> Result<&mut ToolCall, NotKept> {
        let calls = &mut self.0;
        let with_index = |call: &&ToolCall| call.index == index;
        let same = match id {
            Some(id) => {
                let same = calls.iter().position(|call| call.index == index && call.texts.get("id") == id);
                // The id of a call may follow its first delta.
                let unnamed =
                    |call: &ToolCall| call.index == index && index.is_some() && call.texts.get("id").is_empty();
                same.or_else(|| calls.len().checked_sub(1).filter(|last| calls.get(*last).is_some_and(unnamed)))
            }
            // Without an index nothing says which call goes on.
            None if index.is_none() => return Err(NotKept("shape")),
            None => calls.iter().rposition(|call| call.index == index),
        };
        let at = match same {
            Some(at) => at,
            None => {
                // Indexes count up from 0 without a gap; clients sort by them.
                let next = calls.iter().filter_map(|call| call.index).max().map_or(0, |last| last + 1);
                let is_next = index.is_none_or(|index| index == next || calls.iter().rev().find(with_index).is_some());
                if !is_next || index.is_none() && calls.iter().any(|call| call.index.is_some()) {
                    return Err(NotKept("shape"));
                }
                calls.push(ToolCall { index, ..ToolCall::default() });
                *bytes += FRAME;
                calls.len() - 1
            }
        };
        calls.get_mut(at).ok_or(NotKept("shape"))
    }

    /// Returns the calls as in a whole message; `None` if there are none.
    ///
    /// # Errors
    /// [`NotKept`] if the pieces of a call's arguments do not make one JSON text.
    pub(super) fn finish(self) -> Result<Option<Value>, NotKept> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let finish = |call: ToolCall| {
            let mut whole = call.texts.into_json();
            if let Some(function) = call.function {
                whole.insert("function".to_owned(), function.finish()?);
            }
            Ok(Value::Object(whole))
        };
        self.0.into_iter().map(finish).collect::<Result<Vec<_>, _>>().map(|calls| Some(Value::Array(calls)))
    }
}

impl Function {
    /// Reads one delta: assigns the name, and appends the other strings.
    ///
    /// # Errors
    /// [`NotKept`] if it names another function than an earlier delta.
    pub(super) fn delta(&mut self, parts: Parts, place: Place, bytes: &mut usize) -> Result<(), NotKept> {
        for part in parts.of(place) {
            match (parts.name(part)?, part.kind) {
                (_, Kind::Null) => {}
                ("name", Kind::String) => {
                    let name = parts.text(part)?;
                    match self.0.get("name") {
                        "" => self.0.set("name", name, bytes),
                        before if name.is_empty() || before == name => {}
                        // Either a piece of a name or another call.
                        _ => return Err(NotKept("shape")),
                    }
                }
                (name, Kind::String) => self.0.append(name, &parts.text(part)?, bytes),
                _ => return Err(NotKept("shape")),
            }
        }
        Ok(())
    }

    /// Whether its arguments are a JSON object already.
    fn is_whole(&self) -> bool {
        let arguments = self.0.get("arguments").trim_start();
        arguments.starts_with('{') && serde_json::from_str::<&RawValue>(arguments).is_ok()
    }

    /// Returns the function as in a whole message.
    ///
    /// # Errors
    /// [`NotKept`] if the arguments are neither empty nor one JSON object: two calls may have been glued together.
    pub(super) fn finish(self) -> Result<Value, NotKept> {
        if !self.0.get("arguments").trim().is_empty() && !self.is_whole() {
            return Err(NotKept("shape"));
        }
        Ok(Value::Object(self.0.into_json()))
    }
}
