//! The tools of a request: their names, and whether the provider runs them.

use crate::dialect::openai::request::ChatRequest;
use crate::request::facts::{InvalidRequest, MAX_TOOL_NAMES};
use crate::request::field::{MAX_TEXT, wrong_type};
use crate::request::needs::Need;
use crate::wire::json::{Kind, Scanned, Scanner, unquote};

impl<'a> ChatRequest<'a> {
    pub(super) fn tools(&mut self, s: &mut Scanner<'a>) -> Result<Scanned, InvalidRequest> {
        match s.peek()? {
            Kind::Array => {}
            Kind::Null => return Ok(s.value()?),
            kind => return Err(wrong_type("tools", "an array of objects", kind)),
        }
        let start = s.position();
        s.array(|s, _| {
            self.facts.needs.add(Need::Tools);
            if s.peek()? != Kind::Object {
                return Ok::<_, InvalidRequest>(s.value().map(drop)?);
            }
            // A tool without a type is a function if it has a name, in OpenAI's place or in Anthropic's.
            let (mut is_typed, mut is_named) = (false, false);
            s.object(|s, key| {
                let name = s.folded_name(&key)?;
                if &*name == b"function" && s.peek()? == Kind::Object {
                    is_named = true;
                    return self.function(s);
                }
                let value = s.value()?;
                match &*name {
                    _ if value.kind == Kind::Null => {}
                    b"type" => {
                        is_typed = true;
                        let is_text = value.kind == Kind::String;
                        let kind = if is_text { s.folded_name(&value.span)? } else { Default::default() };
                        if let Some(need) = Need::of_tool(&kind) {
                            self.facts.needs.add(need);
                        }
                    }
                    b"name" => is_named = true,
                    // As in Gemini's API: `{"googleSearch": {}}`.
                    name if Need::searches(name) => {
                        is_typed = true;
                        self.facts.needs.add(Need::SearchTool);
                    }
                    _ => {}
                }
                Ok(())
            })?;
            if !is_typed && !is_named {
                self.facts.needs.add(Need::OtherTool);
            }
            Ok(())
        })?;
        Ok(Scanned { kind: Kind::Array, span: start..s.position() })
    }

    fn function(&mut self, s: &mut Scanner<'a>) -> Result<(), InvalidRequest> {
        s.object(|s, key| {
            let name = s.folded_name(&key)?;
            let value = s.value()?;
            // Kimi's own functions, such as `$web_search`.
            if value.kind == Kind::String && &*name == b"name" && s.bytes(&value.span).starts_with(b"\"$") {
                self.facts.needs.add(Need::of_tool(&s.folded_name(&value.span)?).unwrap_or(Need::OtherTool));
            }
            if value.kind == Kind::String && self.facts.tool_names.len() < MAX_TOOL_NAMES && &*name == b"name" {
                let name = s.bytes(&value.span);
                let is_long = name.len() > MAX_TEXT;
                self.facts.tool_names.extend(if is_long { Some("too-long".into()) } else { unquote(name) });
            }
            Ok::<_, InvalidRequest>(())
        })
    }
}
