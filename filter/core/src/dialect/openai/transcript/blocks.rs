//! The content of a message that comes as a list: Mistral's models send their thinking so, and then text.
//!
//! The whole answer has one block of thinking with one text, and one block of text. Source: Mistral's API, `ThinkChunk`
//! and `TextChunk`.

use crate::dialect::answer::NotKept;
use crate::dialect::openai::transcript::members::separate;
use crate::dialect::openai::transcript::parts_limit;
use crate::wire::json::{InvalidJson, Kind, Scanner, Span, names};

/// The blocks so far.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    blocks: Vec<Block>,
    /// The only piece so far, as it came: it may be a list in any form.
    only: Option<String>,
}

/// A block, with the inside of its texts as they are written.
#[derive(Debug)]
enum Block {
    Text(String),
    Thinking(String),
    /// A block that cannot be joined with another one.
    Other,
}

/// Approximate overhead of a block besides its text, in bytes.
const FRAME: usize = 64;

impl Blocks {
    /// Adds the inside of a text.
    ///
    /// # Errors
    /// [`NotKept`] if the blocks before it cannot be joined with it.
    pub(super) fn text(&mut self, text: &str, bytes: &mut usize) -> Result<(), NotKept> {
        if text.is_empty() {
            return Ok(());
        }
        self.goes_on(bytes);
        self.join(Block::Text(text.to_owned()), bytes);
        self.check()
    }

    /// Adds a list, as it is written.
    ///
    /// # Errors
    /// [`NotKept`] if it cannot be joined with what came before it.
    pub(super) fn list(&mut self, json: &str, bytes: &mut usize) -> Result<(), NotKept> {
        let is_first = self.blocks.is_empty() && self.only.is_none();
        self.goes_on(bytes);
        let mut scanner = Scanner::lenient(json.as_bytes(), u32::MAX);
        let mut found = Vec::new();
        let read = scanner.array(|s, _| {
            found.push(read_block(s)?);
            Ok::<_, InvalidJson>(())
        });
        read.map_err(|_| NotKept("shape"))?;
        if found.is_empty() {
            return Ok(());
        }
        found.into_iter().for_each(|block| self.join(block, bytes));
        if is_first {
            *bytes = bytes.saturating_add(json.len());
            self.only = Some(json.to_owned());
            return Ok(());
        }
        self.check()
    }

    /// Writes the list.
    pub(super) fn write(&self, out: &mut String) {
        if let Some(only) = &self.only {
            return out.push_str(only);
        }
        out.push('[');
        for block in &self.blocks {
            separate(out);
            let (before, text, after) = match block {
                Block::Text(text) => ("{\"type\":\"text\",\"text\":\"", &**text, "\"}"),
                Block::Thinking(text) => {
                    ("{\"type\":\"thinking\",\"thinking\":[{\"type\":\"text\",\"text\":\"", &**text, "\"}]}")
                }
                Block::Other => ("null", "", ""),
            };
            [before, text, after].into_iter().for_each(|part| out.push_str(part));
        }
        out.push(']');
    }

    /// Forgets the form of the first piece, because more follows.
    fn goes_on(&mut self, bytes: &mut usize) {
        *bytes = bytes.saturating_sub(self.only.take().map_or(0, |only| only.len()));
    }

    fn join(&mut self, block: Block, bytes: &mut usize) {
        match (self.blocks.last_mut(), block) {
            (Some(Block::Text(before)), Block::Text(more)) | (Some(Block::Thinking(before)), Block::Thinking(more)) => {
                *bytes = bytes.saturating_add(more.len());
                before.push_str(&more);
            }
            (_, block) => {
                let text = match &block {
                    Block::Text(text) | Block::Thinking(text) => text.len(),
                    Block::Other => 0,
                };
                *bytes = bytes.saturating_add(parts_limit::size(self.blocks.len(), FRAME + text));
                self.blocks.push(block);
            }
        }
    }

    fn check(&self) -> Result<(), NotKept> {
        match self.blocks.iter().any(|block| matches!(block, Block::Other)) {
            true => Err(NotKept("shape")),
            false => Ok(()),
        }
    }
}

/// Reads a block. A block with members other than a text or a thinking cannot be joined.
fn read_block(s: &mut Scanner) -> Result<Block, InvalidJson> {
    let (mut text, mut thinking, mut is_other) = (None, None, false);
    if s.peek()? != Kind::Object {
        s.value()?;
        return Ok(Block::Other);
    }
    let mut kind = Vec::new();
    s.object(|s, key| {
        match (&*names::quoted(s, &key), s.peek()?) {
            (b"\"type\"", Kind::String) => kind = value(s)?.to_vec(),
            (b"\"text\"", Kind::String) => text = inside(value(s)?),
            (b"\"thinking\"", Kind::Array) => thinking = Some(read_texts(s, &mut is_other)?),
            (_, Kind::Null) => s.value().map(drop)?,
            _ => {
                s.value()?;
                is_other = true;
            }
        }
        Ok::<_, InvalidJson>(())
    })?;
    Ok(match (&*kind, text, thinking) {
        _ if is_other => Block::Other,
        (b"\"text\"", Some(text), None) => Block::Text(text),
        (b"\"thinking\"", None, Some(thinking)) => Block::Thinking(thinking),
        _ => Block::Other,
    })
}

/// Reads the texts of a thinking, joined.
fn read_texts(s: &mut Scanner, is_other: &mut bool) -> Result<String, InvalidJson> {
    let mut all = String::new();
    s.array(|s, _| {
        match s.peek()? {
            Kind::Object => match read_text(s)? {
                Some(text) => all.push_str(&text),
                None => *is_other = true,
            },
            _ => {
                s.value()?;
                *is_other = true;
            }
        }
        Ok::<_, InvalidJson>(())
    })?;
    Ok(all)
}

/// Reads `{"type":"text","text":"…"}`; `None` if it is anything else.
fn read_text(s: &mut Scanner) -> Result<Option<String>, InvalidJson> {
    let (mut text, mut is_text, mut is_other) = (None, false, false);
    s.object(|s, key| {
        let name = names::quoted(s, &key);
        let value = value(s)?;
        match &*name {
            b"\"type\"" => is_text = value == b"\"text\"",
            b"\"text\"" => text = inside(value),
            _ => is_other = true,
        }
        Ok::<_, InvalidJson>(())
    })?;
    Ok(text.filter(|_| is_text && !is_other))
}

fn value<'a>(s: &mut Scanner<'a>) -> Result<&'a [u8], InvalidJson> {
    let span: Span = s.value()?.span;
    Ok(s.bytes(&span))
}

fn inside(json: &[u8]) -> Option<String> {
    let inside = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    std::str::from_utf8(inside).ok().map(str::to_owned)
}
