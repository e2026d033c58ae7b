//! The tools of a request: their names, and whether the provider runs them.

use crate::dialect::anthropic::request::MessagesRequest;
use crate::request::facts::{InvalidRequest, MAX_TOOL_NAMES};
use crate::request::field::{MAX_TEXT, wrong_type};
use crate::request::needs::Need;
use crate::wire::json::{Kind, Scanned, Scanner, unquote};

/// How the types of tools begin that the caller runs, and of those that cost nothing but their tokens.
const CALLERS: [&[u8]; 6] = [b"custom", b"bash_", b"text_editor_", b"computer_", b"memory_", b"tool_search_"];

impl<'a> MessagesRequest<'a> {
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
            let (mut is_typed, mut is_named) = (false, false);
            s.object(|s, key| {
                let name = s.folded_name(&key)?;
                let value = s.value()?;
                match &*name {
                    _ if value.kind == Kind::Null => {}
                    b"type" => {
                        is_typed = true;
                        let is_text = value.kind == Kind::String;
                        let kind = if is_text { s.folded_name(&value.span)? } else { Default::default() };
                        if let Some(need) = need(&kind) {
                            self.facts.needs.add(need);
                        }
                    }
                    b"name" if value.kind == Kind::String => {
                        is_named = true;
                        let name = s.bytes(&value.span);
                        if self.facts.tool_names.len() < MAX_TOOL_NAMES {
                            let is_long = name.len() > MAX_TEXT;
                            self.facts.tool_names.extend(if is_long { Some("too-long".into()) } else { unquote(name) });
                        }
                    }
                    _ => {}
                }
                Ok::<_, InvalidRequest>(())
            })?;
            if !is_typed && !is_named {
                self.facts.needs.add(Need::OtherTool);
            }
            Ok(())
        })?;
        Ok(Scanned { kind: Kind::Array, span: start..s.position() })
    }
}

/// Returns the need of a tool of this type; `None` if it costs nothing but its tokens.
fn need(kind: &[u8]) -> Option<Need> {
    match kind {
        kind if CALLERS.iter().any(|start| kind.starts_with(start)) => None,
        kind if kind.starts_with(b"web_search") => Some(Need::SearchTool),
        _ => Some(Need::OtherTool),
    }
}
