//! A message, broken down into the parts from which cached answers are built.

use crate::dialect::answer::NotKept;
use crate::dialect::anthropic::object::Object;
use crate::dialect::anthropic::read::MAX_DEPTH;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::json::{self, InvalidJson, Scanner};

/// The parts of one message. All texts are JSON, as the provider wrote them. The id of a single call is dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Its members besides the others here, each after a comma: `,"type":"message","role":"assistant"`.
    pub common: String,
    /// The blocks of its content, each an object.
    pub blocks: Vec<String>,
    /// How it ended, in the same form as `common`: `,"stop_reason":"end_turn","stop_sequence":null`.
    pub ending: String,
    /// The usage object.
    pub usage: String,
}

/// Reasons of an end after which the answer is what the model had to say.
const REASONS: [&str; 4] = ["\"end_turn\"", "\"stop_sequence\"", "\"tool_use\"", "\"max_tokens\""];

/// The members that tell how a message ended. In a stream they come with its end.
const ENDINGS: [&str; 3] = ["\"stop_reason\"", "\"stop_sequence\"", "\"stop_details\""];

impl Message {
    /// Breaks a whole message down.
    ///
    /// # Errors
    /// [`NotKept`] if it is unfinished, refused, empty, or of a shape that cannot be replayed as a stream.
    pub fn from_whole(body: &[u8]) -> Result<Self, NotKept> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        if json::has_doubtful_names(body, MAX_DEPTH) {
            return Err(NotKept("shape"));
        }
        let mut common = Object::parse(body)?;
        let mut ending = Object::default();
        for name in ENDINGS {
            if let Some(value) = common.take(name) {
                ending.set(name, value);
            }
        }
        let content = common.take("\"content\"").ok_or(NotKept("shape"))?;
        let usage = common.take("\"usage\"").ok_or(NotKept("usage"))?;
        common.take("\"id\"");
        let mut blocks = Vec::new();
        let mut scanner = Scanner::new(content.as_bytes(), MAX_DEPTH);
        let read = scanner.array(|s, _| {
            let block = s.value()?;
            blocks.push(String::from_utf8_lossy(s.bytes(&block.span)).into_owned());
            Ok::<_, InvalidJson>(())
        });
        read.map_err(|_| NotKept("shape"))?;
        Self::of(&common, blocks, &ending, usage)
    }

    /// Puts the parts together.
    ///
    /// # Errors
    /// [`NotKept`] as [`Self::from_whole`].
    pub fn of(common: &Object, blocks: Vec<String>, ending: &Object, usage: String) -> Result<Self, NotKept> {
        match ending.get("\"stop_reason\"") {
            Some(reason) if REASONS.contains(&reason) => {}
            Some("null") | None => return Err(NotKept("unfinished")),
            Some(_) => return Err(NotKept("filtered")),
        }
        if common.get("\"type\"") != Some("\"message\"") {
            return Err(NotKept("shape"));
        }
        // An empty answer is more often a fault of the server than the answer to every such question.
        if !blocks.iter().any(|block| speaks(block)) {
            return Err(NotKept("empty"));
        }
        for block in &blocks {
            Object::parse(block.as_bytes())?.get("\"type\"").ok_or(NotKept("shape"))?;
        }
        Ok(Self { common: common.members(), blocks, ending: ending.members(), usage })
    }

    /// Returns its approximate memory in bytes, besides `Self`.
    pub fn bytes(&self) -> usize {
        let Self { common, blocks, ending, usage } = self;
        let of_block = |block: &String| size_of::<String>() + block.len();
        common.len() + ending.len() + usage.len() + blocks.iter().map(of_block).sum::<usize>()
    }

    /// Appends its encoding to `out`.
    pub fn encode(&self, out: &mut Writer) {
        let Self { common, blocks, ending, usage } = self;
        out.text(common);
        out.text(ending);
        out.text(usage);
        out.count(blocks.len());
        for block in blocks {
            out.text(block);
        }
    }

    /// Decodes it; `None` if the bytes are not a stored message.
    pub fn decode(reader: &mut Reader) -> Option<Self> {
        let (common, ending) = (reader.text()?.to_owned(), reader.text()?.to_owned());
        let usage = reader.text()?.to_owned();
        let mut blocks = Vec::new();
        for _ in 0..reader.count()? {
            blocks.push(reader.text()?.to_owned());
        }
        Some(Self { common, blocks, ending, usage })
    }
}

/// Returns whether a block has anything to read.
fn speaks(block: &str) -> bool {
    let Ok(block) = Object::parse(block.as_bytes()) else { return false };
    block.get("\"type\"") != Some("\"text\"") || block.get("\"text\"").is_some_and(|text| text != "\"\"")
}
