//! The content of messages: which media it has, and where.

use crate::dialect::openai::request::ChatRequest;
use crate::request::facts::InvalidRequest;
use crate::request::needs::{Need, Needs};
use crate::wire::json::{Kind, Scanner, Span};

/// Types of content parts that are text: those of OpenAI, Anthropic, Mistral and vLLM.
const TEXTS: [&[u8]; 12] = [
    b"text",
    b"input_text",
    b"output_text",
    b"refusal",
    b"thinking",
    b"redacted_thinking",
    b"reasoning",
    b"tool_use",
    b"tool_result",
    b"tool_call",
    b"tool_reference",
    b"reference",
];

/// What a content part is. Servers go by its type, or by its members if it has none.
#[derive(Default)]
struct Part {
    /// Whether it has the type or a member of text.
    is_text: bool,
    /// Whether its type is unknown.
    is_other: bool,
    /// The media that its type names. A server may take the first or the last of two types.
    typed: Needs,
    /// The media that its members are.
    found: Needs,
    /// Where Anthropic's format has the data of an image or a document.
    source: Option<Span>,
}

impl<'a> ChatRequest<'a> {
    /// Reads the value of a message's `content`.
    pub(super) fn content(&mut self, s: &mut Scanner<'a>) -> Result<(), InvalidRequest> {
        match s.peek()? {
            Kind::Array => s.array(|s, _| self.content_part(s)),
            _ => self.content_part(s),
        }
    }

    fn content_part(&mut self, s: &mut Scanner<'a>) -> Result<(), InvalidRequest> {
        let kind = s.peek()?;
        if kind != Kind::Object {
            let value = s.value()?;
            if !matches!(kind, Kind::String | Kind::Null) {
                self.facts.add_medium(Need::OtherContent, value.span);
            }
            return Ok(());
        }
        let (start, before) = (s.position(), self.media());
        let mut part = Part::default();
        s.object(|s, key| {
            let name = s.folded_name(&key)?;
            if matches!(s.peek()?, Kind::Array | Kind::Object)
                && matches!(&*name, b"content" | b"parts" | b"text" | b"thinking" | b"reasoning" | b"refusal")
            {
                part.is_text |= matches!(&*name, b"thinking" | b"reasoning");
                return self.content(s);
            }
            let value = s.value()?;
            match &*name {
                // Treat null as absent: some clients write every member that a part can have.
                _ if value.kind == Kind::Null => {}
                b"type" if value.kind == Kind::String => {
                    let kind = s.folded_name(&value.span)?;
                    match Need::of_medium(&kind) {
                        Some(need) => part.typed.add(need),
                        None if TEXTS.contains(&&*kind) => part.is_text = true,
                        None => part.is_other = true,
                    }
                }
                b"type" => part.is_other = true,
                b"text" | b"refusal" | b"thinking" | b"reasoning" => part.is_text = true,
                b"source" => part.source = Some(value.span),
                name => {
                    if let Some(need) = Need::of_medium(name) {
                        part.found.add(need);
                        self.facts.add_medium(need, value.span);
                    }
                }
            }
            Ok(())
        })?;
        let end = s.position();
        for need in part.typed.keep(|need| !part.found.has(need)).iter() {
            self.facts.add_medium(need, part.source.take().unwrap_or(end..end));
        }
        if part.is_other || !part.is_text && part.typed.is_empty() && part.found.is_empty() {
            // What is inside it may be there already.
            let start = if self.media() == before { start } else { end };
            self.facts.add_medium(Need::OtherContent, start..end);
        }
        Ok(())
    }

    fn media(&self) -> usize {
        self.facts.images.len() + self.facts.files.len()
    }
}
