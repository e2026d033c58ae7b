//! Reassembles a stream into a message for the cache, as Anthropic's own client libraries do.

use crate::cache::local::recording::{BudgetGuard, FULL, Recording};
use crate::dialect::answer::{NotKept, TOO_LONG};
use crate::dialect::anthropic::message::Message;
use crate::dialect::anthropic::object::Object;
use crate::dialect::anthropic::read::{MAX_DEPTH, Type};
use crate::wire::json::{self, unquote};

/// The message so far. It is bounded by the longest answer that is kept, and all streams of a worker share one budget.
#[derive(Debug)]
pub struct Transcript {
    common: Object,
    blocks: Vec<String>,
    open: Option<Block>,
    ending: Object,
    usage: Object,
    bytes: usize,
    max_bytes: usize,
    /// Its share of the recording budget.
    budget: BudgetGuard,
    unfit: Option<NotKept>,
}

/// The block that is arriving.
#[derive(Debug)]
struct Block {
    start: Object,
    /// Its text or its thinking so far, JSON-escaped, without quotation marks.
    text: String,
    /// The arguments of its call so far, which are JSON.
    input: String,
    /// Its citations so far, separated by commas.
    citations: String,
}

const SHAPE: NotKept = NotKept("shape");

impl Transcript {
    /// Creates an empty transcript.
    pub fn new(recording: Recording) -> Self {
        let Recording { max_bytes, budget, is_for_caller: _ } = recording;
        Self {
            common: Object::default(),
            blocks: Vec::new(),
            open: None,
            ending: Object::default(),
            usage: Object::default(),
            bytes: 0,
            max_bytes,
            budget,
            unfit: None,
        }
    }

    /// Adds one event, of which this is the data.
    pub fn event(&mut self, kind: Type, data: &[u8]) {
        if self.unfit.is_some() || kind == Type::Other {
            return;
        }
        // What is held is at most what came.
        self.bytes = self.bytes.saturating_add(data.len());
        let read = match json::has_doubtful_names(data, MAX_DEPTH) {
            true => Err(SHAPE),
            false => self.add(kind, data),
        };
        let read = read.and_then(|()| match self.bytes {
            bytes if bytes > self.max_bytes.saturating_mul(8) => Err(NotKept(TOO_LONG)),
            bytes if !self.budget.set(bytes) => Err(NotKept(FULL)),
            _ => Ok(()),
        });
        if let Err(why) = read {
            self.give_up(why);
        }
    }

    /// Forgets the answer, which cannot be put together.
    pub fn give_up(&mut self, why: NotKept) {
        (self.common, self.ending, self.usage) = Default::default();
        (self.blocks, self.open) = (Vec::new(), None);
        (self.bytes, self.unfit) = (0, Some(why));
        self.budget.set(0);
    }

    /// Returns the message, once the stream has ended properly.
    ///
    /// # Errors
    /// [`NotKept`] if it could not be reassembled.
    pub fn finish(self) -> Result<Message, NotKept> {
        match (self.unfit, self.open) {
            (Some(why), _) => Err(why),
            (None, Some(_)) => Err(SHAPE),
            (None, None) => Message::of(&self.common, self.blocks, &self.ending, self.usage.json()),
        }
    }

    fn add(&mut self, kind: Type, data: &[u8]) -> Result<(), NotKept> {
        let mut event = Object::parse(data)?;
        let mut part = |name| event.take(name).ok_or(SHAPE).and_then(|text| Object::parse(text.as_bytes()));
        match kind {
            Type::MessageStart if self.common == Object::default() => {
                let mut message = part("\"message\"")?;
                if message.take("\"content\"").is_some_and(|content| content != "[]") {
                    return Err(SHAPE);
                }
                if let Some(usage) = message.take("\"usage\"") {
                    self.usage = Object::parse(usage.as_bytes())?;
                }
                for name in ["\"id\"", "\"stop_reason\"", "\"stop_sequence\"", "\"stop_details\""] {
                    message.take(name);
                }
                self.common = message;
            }
            Type::BlockStart if self.open.is_none() => {
                let start = part("\"content_block\"")?;
                let [text, input, citations] = Default::default();
                self.open = Some(Block { start, text, input, citations });
            }
            Type::Delta => {
                let delta = part("\"delta\"")?;
                self.open.as_mut().ok_or(SHAPE)?.delta(&delta)?;
            }
            Type::BlockStop => {
                let block = self.open.take().ok_or(SHAPE)?.finish()?;
                self.blocks.push(block);
            }
            Type::MessageDelta => {
                self.ending.merge(part("\"delta\"")?);
                if let Some(usage) = event.take("\"usage\"").filter(|usage| usage != "null") {
                    self.usage.merge(Object::parse(usage.as_bytes())?);
                }
            }
            _ => return Err(SHAPE),
        }
        Ok(())
    }
}

impl Block {
    fn delta(&mut self, delta: &Object) -> Result<(), NotKept> {
        let piece = |name| delta.get(name).ok_or(SHAPE);
        let (of, kind) = (self.start.get("\"type\""), delta.get("\"type\""));
        match (of.unwrap_or_default(), kind.unwrap_or_default()) {
            ("\"text\"", "\"text_delta\"") => self.text.push_str(inner(piece("\"text\"")?)?),
            ("\"thinking\"", "\"thinking_delta\"") => self.text.push_str(inner(piece("\"thinking\"")?)?),
            // A signature comes whole.
            ("\"thinking\"", "\"signature_delta\"") => {
                let signature = piece("\"signature\"")?.to_owned();
                self.start.set("\"signature\"", signature);
            }
            ("\"tool_use\"" | "\"server_tool_use\"" | "\"mcp_tool_use\"", "\"input_json_delta\"") => {
                let text = unquote(piece("\"partial_json\"")?.as_bytes()).ok_or(SHAPE)?;
                self.input.push_str(&text);
            }
            ("\"text\"", "\"citations_delta\"") => {
                let comma = if self.citations.is_empty() { "" } else { "," };
                self.citations.extend([comma, piece("\"citation\"")?]);
            }
            _ => return Err(SHAPE),
        }
        Ok(())
    }

    /// Returns the whole block as JSON.
    fn finish(mut self) -> Result<String, NotKept> {
        if !self.text.is_empty() {
            let name = if self.start.get("\"type\"") == Some("\"text\"") { "\"text\"" } else { "\"thinking\"" };
            let before = inner(self.start.get(name).unwrap_or("\"\""))?.to_owned();
            self.start.set(name, ["\"", &before, &self.text, "\""].concat());
        }
        if !self.input.trim().is_empty() {
            Object::parse(self.input.as_bytes())?;
            self.start.set("\"input\"", self.input);
        }
        if !self.citations.is_empty() {
            self.start.set("\"citations\"", ["[", &self.citations, "]"].concat());
        }
        Ok(self.start.json())
    }
}

/// Returns the inside of a JSON string.
fn inner(quoted: &str) -> Result<&str, NotKept> {
    quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(SHAPE)
}
