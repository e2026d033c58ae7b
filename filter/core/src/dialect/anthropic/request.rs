//! A Messages request: one scan finds what decisions need, and where it is in the body.
//!
//! The prompt is neither decoded nor copied. Source of the fields: Anthropic's API reference, "Messages".

use crate::config::Dialect;
use crate::request::facts::{AskedOutput, Facts, InvalidRequest, Member, Target};
use crate::request::field::{
    self, MAX_VALUES, boolean, count, is_absent, is_text, missing, optional_text, text, wrong_type,
};
use crate::request::needs::Need;
use crate::service_tier::ServiceTier;
use crate::wire::json::{InvalidJson, Kind, Scanned, Scanner, Why, unquote};
use std::collections::BTreeSet;

mod content;
#[cfg(test)]
mod tests;
mod tools;

/// What a body asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// An answer.
    Answer,
    /// The number of its input tokens.
    Count,
}

/// The result of a scan.
#[derive(Debug)]
pub struct MessagesRequest<'a> {
    /// The facts that decisions are based on.
    pub facts: Facts<'a>,
}

/// The fields that the gateway reads.
const KNOWN: [&str; 14] = [
    "model",
    "messages",
    "system",
    "metadata",
    "stream",
    "tools",
    "max_tokens",
    "service_tier",
    "speed",
    "output_config",
    "output_format",
    "mcp_servers",
    "container",
    "temperature",
];

impl Asks {
    fn target(self) -> Target {
        let path = match self {
            Self::Answer => "/messages",
            Self::Count => "/messages/count_tokens",
        };
        Target { dialect: Dialect::Anthropic, path }
    }
}

impl<'a> MessagesRequest<'a> {
    /// Parses `body`.
    ///
    /// # Errors
    /// [`InvalidRequest`], for the first mistake in the order of the text.
    pub fn parse(asks: Asks, body: &'a [u8], max_nesting: u32) -> Result<Self, InvalidRequest> {
        let mut request = MessagesRequest { facts: Facts::new(asks.target(), body) };
        let mut scanner = Scanner::bounded(body, max_nesting, MAX_VALUES);
        if body.trim_ascii_start().first() != Some(&b'{') {
            // Report JSON errors first: an empty or broken body is invalid JSON.
            scanner.value()?;
            scanner.finish()?;
            return Err(InvalidRequest::Json(InvalidJson { at: 0, why: Why::Unexpected }));
        }
        let mut max_tokens = None;
        let mut names = BTreeSet::new();
        scanner.object(|s, key| {
            let name = unquote(s.bytes(&key)).ok_or(InvalidJson { at: key.start, why: Why::Utf8 })?;
            field::admit(&request.facts.members, &mut names, &name)?;
            field::check_case(&KNOWN, &name)?;
            let value = match &*name {
                "messages" => request.messages(s)?,
                "system" => request.system(s)?,
                "metadata" => request.metadata(s)?,
                "tools" => request.tools(s)?,
                "output_config" => request.output_config(s)?,
                "output_format" => request.format(s)?,
                _ => s.value()?,
            };
            let at = s.bytes(&value.span);
            let facts = &mut request.facts;
            match &*name {
                "model" => facts.model = Some(text("model", &value, at)?),
                "stream" => facts.stream = boolean("stream", &value, at)?,
                "max_tokens" => max_tokens = count("max_tokens", &value, at)?,
                // Both are other prices for the same tokens.
                "service_tier" | "speed" => {
                    let tier = optional_text(&name, &value, at)?;
                    facts.service_tier = tier.and_then(|tier| ServiceTier::requested(&tier)).or(facts.service_tier);
                }
                "temperature" if value.kind == Kind::Number => facts.temperature = Some(value.span.clone()),
                // Servers that are called by the provider, and machines that it runs.
                "mcp_servers" | "container" if !is_absent(&value, at) => facts.needs.add(Need::OtherTool),
                _ => {}
            }
            facts.members.push(Member { name, key, value });
            Ok::<_, InvalidRequest>(())
        })?;
        scanner.finish()?;
        let facts = &mut request.facts;
        if facts.messages.is_empty() {
            return Err(missing("messages"));
        }
        match asks {
            Asks::Answer if max_tokens.is_none() => return Err(missing("max_tokens")),
            Asks::Answer => {}
            // It makes nothing, and is not streamed.
            Asks::Count => (facts.choices, facts.generated, facts.stream) = (0, 0, false),
        }
        facts.output = AskedOutput { least: max_tokens, as_written: max_tokens, ..AskedOutput::default() };
        // Every stream has its usage.
        facts.wants_usage = true;
        Ok(request)
    }

    fn messages(&mut self, s: &mut Scanner<'a>) -> Result<Scanned, InvalidRequest> {
        if s.peek()? != Kind::Array {
            let kind = s.value()?.kind;
            return Err(wrong_type("messages", "an array of objects", kind));
        }
        let start = s.position();
        let mut any = false;
        s.array(|s, index| {
            any = true;
            if s.peek()? != Kind::Object {
                let param = format!("messages[{index}]");
                return Err(wrong_type(&param, "an object", s.peek()?));
            }
            let mut role = None;
            s.object(|s, key| {
                let (name, kind) = (s.folded_name(&key)?, s.peek()?);
                if &*name == b"role" {
                    role = role.filter(|role| *role == Kind::String).or(Some(kind));
                }
                match &*name {
                    b"content" => self.content(s),
                    _ => Ok(s.value().map(drop)?),
                }
            })?;
            match role {
                Some(Kind::String) => Ok(()),
                Some(kind) => Err(wrong_type(&format!("messages[{index}].role"), "a string", kind)),
                None => Err(missing(&format!("messages[{index}].role"))),
            }
        })?;
        if !any {
            return Err(missing("messages[0]"));
        }
        let span = start..s.position();
        self.facts.messages = span.clone();
        Ok(Scanned { kind: Kind::Array, span })
    }

    fn system(&mut self, s: &mut Scanner<'a>) -> Result<Scanned, InvalidRequest> {
        let (kind, start) = (s.peek()?, s.position());
        match kind {
            Kind::String | Kind::Array => self.content(s)?,
            Kind::Null => return Ok(s.value()?),
            kind => return Err(wrong_type("system", "a string or an array of objects", kind)),
        }
        let span = start..s.position();
        self.facts.system = span.clone();
        Ok(Scanned { kind, span })
    }

    fn metadata(&mut self, s: &mut Scanner<'a>) -> Result<Scanned, InvalidRequest> {
        if s.peek()? != Kind::Object {
            return Ok(s.value()?);
        }
        let start = s.position();
        s.object(|s, key| {
            let name = s.name(&key)?;
            let value = s.value()?;
            if &*name == b"user_id" {
                // An empty one is no user.
                let user = optional_text("metadata.user_id", &value, s.bytes(&value.span))?;
                self.facts.user = user.filter(|user| !user.is_empty());
            }
            Ok::<_, InvalidRequest>(())
        })?;
        Ok(Scanned { kind: Kind::Object, span: start..s.position() })
    }

    fn output_config(&mut self, s: &mut Scanner<'a>) -> Result<Scanned, InvalidRequest> {
        if s.peek()? != Kind::Object {
            return Ok(s.value()?);
        }
        let start = s.position();
        s.object(|s, key| match &*s.folded_name(&key)? {
            b"format" => self.format(s).map(drop),
            _ => Ok(s.value().map(drop)?),
        })?;
        Ok(Scanned { kind: Kind::Object, span: start..s.position() })
    }

    /// Reads the format of the output.
    fn format(&mut self, s: &mut Scanner<'a>) -> Result<Scanned, InvalidRequest> {
        if s.peek()? != Kind::Object {
            return Ok(s.value()?);
        }
        let start = s.position();
        s.object(|s, key| {
            let name = s.folded_name(&key)?;
            let value = s.value()?;
            if &*name == b"type" && is_text(s.bytes(&value.span), "json_schema") {
                self.facts.needs.add(Need::JsonSchema);
            }
            Ok::<_, InvalidRequest>(())
        })?;
        Ok(Scanned { kind: Kind::Object, span: start..s.position() })
    }
}
