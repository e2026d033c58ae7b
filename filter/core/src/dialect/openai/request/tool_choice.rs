//! `tool_choice`: it may name a tool that the provider runs, and some servers need it nowhere else.

use crate::dialect::openai::request::ChatRequest;
use crate::request::facts::InvalidRequest;
use crate::request::needs::Need;
use crate::wire::json::{Kind, Scanned, Scanner};

/// Types of a choice that are no tool, by themselves: those of OpenAI and Anthropic.
const NO_TOOLS: [&[u8]; 6] = [b"allowed_tools", b"auto", b"any", b"none", b"required", b"tool"];

impl<'a> ChatRequest<'a> {
    /// Reads the value of `tool_choice`.
    pub(super) fn tool_choice(&mut self, s: &mut Scanner<'a>) -> Result<Scanned, InvalidRequest> {
        let (kind, start) = (s.peek()?, s.position());
        match kind {
            Kind::Object => self.choice(s)?,
            Kind::String => {
                let value = s.value()?;
                let name = s.folded_name(&value.span)?;
                // It may also be the name of the caller's own function.
                if name.starts_with(b"web_search") || name.starts_with(b"google_search") {
                    self.facts.needs.add(Need::SearchTool);
                }
            }
            _ => s.value().map(drop)?,
        }
        Ok(Scanned { kind, span: start..s.position() })
    }

    /// Reads a choice, or one of the tools that it allows.
    fn choice(&mut self, s: &mut Scanner<'a>) -> Result<(), InvalidRequest> {
        s.object(|s, key| {
            let name = s.folded_name(&key)?;
            match (&*name, s.peek()?) {
                (b"type", Kind::String) => {
                    let value = s.value()?;
                    let kind = s.folded_name(&value.span)?;
                    if let Some(need) = Need::of_tool(&kind).filter(|_| !NO_TOOLS.contains(&&*kind)) {
                        self.facts.needs.add(need);
                    }
                }
                (b"allowed_tools", Kind::Object) => self.choice(s)?,
                (b"tools" | b"allowed_tools", Kind::Array) => s.array(|s, _| match s.peek()? {
                    Kind::Object => self.choice(s),
                    _ => Ok(s.value().map(drop)?),
                })?,
                (name, kind) => {
                    if kind != Kind::Null && Need::searches(name) {
                        self.facts.needs.add(Need::SearchTool);
                    }
                    s.value()?;
                }
            }
            Ok(())
        })
    }
}
