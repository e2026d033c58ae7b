//! The content of messages and of the system prompt: which media it has, and where.

use crate::dialect::anthropic::request::MessagesRequest;
use crate::request::facts::InvalidRequest;
use crate::request::needs::Need;
use crate::wire::json::{Kind, Scanner, Span};

/// Types of blocks that are text.
const TEXTS: [&[u8]; 10] = [
    b"text",
    b"thinking",
    b"redacted_thinking",
    b"tool_use",
    b"tool_result",
    b"tool_reference",
    b"server_tool_use",
    b"mcp_tool_use",
    b"search_result",
    b"compaction",
];

/// What the blocks are in which a provider's own tools answered, such as `web_search_tool_result`.
const RESULT: &[u8] = b"_tool_result";

/// What a block is, as its type says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Typed {
    Text,
    Medium(Need),
}

impl<'a> MessagesRequest<'a> {
    /// Reads a text, a block or a list of blocks.
    pub(super) fn content(&mut self, s: &mut Scanner<'a>) -> Result<(), InvalidRequest> {
        match s.peek()? {
            Kind::Array => s.array(|s, _| self.block(s)),
            _ => self.block(s),
        }
    }

    fn block(&mut self, s: &mut Scanner<'a>) -> Result<(), InvalidRequest> {
        let kind = s.peek()?;
        if kind != Kind::Object {
            let value = s.value()?;
            if !matches!(kind, Kind::String | Kind::Null) {
                self.facts.add_medium(Need::OtherContent, value.span);
            }
            return Ok(());
        }
        let start = s.position();
        let (mut typed, mut source): (Option<Typed>, Option<Span>) = (None, None);
        s.object(|s, key| {
            let name = s.folded_name(&key)?;
            // A tool's result, or the parts of a document.
            if &*name == b"content" && matches!(s.peek()?, Kind::Array | Kind::Object) {
                return self.content(s);
            }
            if &*name == b"source" && s.peek()? == Kind::Object {
                source = Some(self.source(s)?);
                return Ok(());
            }
            let value = s.value()?;
            if &*name == b"type" {
                let is_text = value.kind == Kind::String;
                let said = of_type(if is_text { s.folded_name(&value.span)? } else { Default::default() }.as_ref());
                // A server may take the first or the last of two types. The medium costs more.
                typed = Some(typed.filter(|typed| *typed != Typed::Text).unwrap_or(said));
            }
            Ok(())
        })?;
        let end = s.position();
        match typed {
            Some(Typed::Text) => {}
            Some(Typed::Medium(need)) => self.facts.add_medium(need, source.unwrap_or(start..end)),
            None => self.facts.add_medium(Need::OtherContent, start..end),
        }
        Ok(())
    }

    /// Reads the source of an image or a document. Returns the span of its data, if it is inline or a URL, or else of
    /// the whole source.
    fn source(&mut self, s: &mut Scanner<'a>) -> Result<Span, InvalidRequest> {
        let (start, mut data) = (s.position(), None);
        s.object(|s, key| {
            let name = s.folded_name(&key)?;
            if &*name == b"content" && matches!(s.peek()?, Kind::Array | Kind::Object) {
                return self.content(s);
            }
            let value = s.value()?;
            if matches!(&*name, b"data" | b"url") && value.kind == Kind::String {
                data = Some(value.span);
            }
            Ok::<_, InvalidRequest>(())
        })?;
        Ok(data.unwrap_or(start..s.position()))
    }
}

fn of_type(name: &[u8]) -> Typed {
    match name {
        b"image" => Typed::Medium(Need::Image),
        b"document" | b"container_upload" => Typed::Medium(Need::File),
        name if TEXTS.contains(&name) || name.ends_with(RESULT) => Typed::Text,
        _ => Typed::Medium(Need::OtherContent),
    }
}
