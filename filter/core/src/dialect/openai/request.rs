//! An OpenAI chat request: one scan finds what decisions need, and where it is in the body.
//!
//! The prompt is neither decoded nor copied. Source of the fields: OpenAI's API reference, "Create chat completion".

use crate::config::Dialect;
use crate::outcome::outcome::Outcome;
use crate::request::facts::{AskedOutput, Facts, InvalidRequest, Member, Target};
use crate::request::field::{
    self, MAX_VALUES, boolean, count, duplicate, is_absent, is_text, missing, optional_text, output_limit, text, wrong,
    wrong_type,
};
use crate::request::needs::Need;
use crate::service_tier::ServiceTier;
use crate::wire::json::{InvalidJson, Kind, Scanned, Scanner, Why, unquote};
use crate::wire::text::shorten;
use std::borrow::Cow;
use std::collections::BTreeSet;

mod content;
mod fields;
mod output;
mod tool_choice;
mod tools;

/// Where a request goes at a provider.
const TARGET: Target = Target { dialect: Dialect::Openai, path: "/chat/completions" };

/// The result of a scan.
#[derive(Debug)]
pub struct ChatRequest<'a> {
    /// The facts that decisions are based on.
    pub facts: Facts<'a>,
    /// `max_tokens`; `None` also if it asks for no limit
    pub max_tokens: Option<u64>,
    /// `max_completion_tokens`; `None` also if it asks for no limit
    pub max_completion_tokens: Option<u64>,
}

impl<'a> ChatRequest<'a> {
    /// Parses `body`.
    ///
    /// # Errors
    /// [`InvalidRequest`], for the first mistake in the order of the text.
    pub fn parse(body: &'a [u8], max_nesting: u32) -> Result<Self, InvalidRequest> {
        let mut request =
            ChatRequest { facts: Facts::new(TARGET, body), max_tokens: None, max_completion_tokens: None };
        let mut scanner = Scanner::bounded(body, max_nesting, MAX_VALUES);
        if body.trim_ascii_start().first() != Some(&b'{') {
            // Report JSON errors first: an empty or broken body is invalid JSON.
            scanner.value()?;
            scanner.finish()?;
            return Err(InvalidRequest::Json(InvalidJson { at: 0, why: Why::Unexpected }));
        }
        let mut safety_identifier = None;
        let mut names = BTreeSet::new();
        scanner.object(|s, key| {
            let name = unquote(s.bytes(&key)).ok_or(InvalidJson { at: key.start, why: Why::Utf8 })?;
            field::admit(&request.facts.members, &mut names, &name)?;
            field::check_case(&KNOWN, &name)?;
            let value = match &*name {
                "messages" => request.messages(s)?,
                "metadata" => request.metadata(s)?,
                "stream_options" => request.stream_options(s)?,
                "tools" => request.tools(s)?,
                "response_format" => request.response_format(s)?,
                "modalities" => request.modalities(s)?,
                "tool_choice" => request.tool_choice(s)?,
                "reasoning" => request.thinking(s, b"max_tokens")?,
                "thinking" => request.thinking(s, b"budget_tokens")?,
                _ => s.value()?,
            };
            let at = s.bytes(&value.span);
            match &*name {
                "model" => request.facts.model = Some(text("model", &value, at)?),
                // An empty one is no user.
                "user" => request.facts.user = optional_text("user", &value, at)?.filter(|user| !user.is_empty()),
                "safety_identifier" => {
                    let named = optional_text("safety_identifier", &value, at)?;
                    safety_identifier = named.filter(|user| !user.is_empty());
                }
                "stream" => request.facts.stream = boolean("stream", &value, at)?,
                "max_tokens" => request.max_tokens = output_limit("max_tokens", &value, at)?,
                "max_completion_tokens" => {
                    request.max_completion_tokens = output_limit("max_completion_tokens", &value, at)?;
                }
                "service_tier" => {
                    let tier = optional_text("service_tier", &value, at)?;
                    request.facts.service_tier = tier.and_then(|tier| ServiceTier::requested(&tier));
                }
                "n" => request.facts.choices = count("n", &value, at)?.unwrap_or(1),
                "temperature" if value.kind == Kind::Number => request.facts.temperature = Some(value.span.clone()),
                "seed" if value.kind == Kind::Number => request.facts.seed = Some(value.span.clone()),
                "functions" if value.kind == Kind::Array && !is_absent(&value, at) => {
                    request.facts.needs.add(Need::Tools);
                }
                // What a provider predicted wrongly from it costs as much as output.
                "prediction" => request.facts.output.beside += value.span.len() as u64,
                _ if is_absent(&value, at) => {}
                name => request.other_field(name, &value, at),
            }
            request.facts.members.push(Member { name, key, value });
            Ok::<_, InvalidRequest>(())
        })?;
        scanner.finish()?;
        let facts = &mut request.facts;
        if facts.user.is_none() {
            facts.user = safety_identifier;
        }
        if facts.messages.is_empty() {
            return Err(missing("messages"));
        }
        facts.generated = facts.generated.max(facts.choices);
        facts.output = AskedOutput {
            least: [request.max_tokens, request.max_completion_tokens].into_iter().flatten().min(),
            // A server may know only `max_tokens`. If both are sent, it may apply either of them.
            as_written: request.max_tokens.map(|one| request.max_completion_tokens.map_or(one, |other| one.max(other))),
            ..facts.output
        };
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
                if matches!(kind, Kind::Array | Kind::Object) && matches!(&*name, b"content" | b"parts") {
                    return self.content(s);
                }
                let value = s.value()?;
                match &*name {
                    _ if is_absent(&value, s.bytes(&value.span)) => {}
                    b"role" | b"name" | b"content" => {}
                    // An earlier answer that is repeated: OpenAI's audio by its id, OpenRouter's images.
                    b"images" => self.facts.add_medium(Need::Image, value.span),
                    b"attachments" | b"experimental_attachments" => self.facts.add_medium(Need::File, value.span),
                    name => {
                        if let Some(need) = Need::of_medium(name) {
                            self.facts.add_medium(need, value.span);
                        }
                    }
                }
                Ok::<_, InvalidRequest>(())
            })?;
            match role {
                Some(Kind::String) => Ok(()),
                Some(kind) => Err(wrong_type(&format!("messages[{index}].role"), "a string", kind)),
                None => Err(missing(&format!("messages[{index}].role"))),
            }
        })?;
        if !any {
            let message = "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty \
                           array instead.";
            return Err(wrong(Outcome::EmptyArray, "messages", message));
        }
        let span = start..s.position();
        self.facts.messages = span.clone();
        Ok(Scanned { kind: Kind::Array, span })
    }

    fn metadata(&mut self, s: &mut Scanner<'a>) -> Result<Scanned, InvalidRequest> {
        if s.peek()? != Kind::Object {
            return Ok(s.value()?);
        }
        let start = s.position();
        s.object(|s, key| {
            let name = s.name(&key)?;
            let value = s.value()?;
            match &*name {
                b"task" => {
                    if self.facts.task.is_some() {
                        return Err(duplicate("metadata.task"));
                    }
                    match optional_text("metadata.task", &value, s.bytes(&value.span)) {
                        Ok(task) => self.facts.task = task,
                        // It is a mistake only if the request is for a task.
                        Err(InvalidRequest::Field(invalid)) => self.facts.invalid_task = Some(Box::new(invalid)),
                        Err(error) => return Err(error),
                    }
                }
                name => self.facts.prompt.note(name, &value),
            }
            Ok(())
        })?;
        Ok(Scanned { kind: Kind::Object, span: start..s.position() })
    }

    fn stream_options(&mut self, s: &mut Scanner<'a>) -> Result<Scanned, InvalidRequest> {
        match s.peek()? {
            Kind::Object => {}
            Kind::Null => return Ok(s.value()?),
            kind => return Err(wrong_type("stream_options", "an object", kind)),
        }
        let start = s.position();
        let mut seen = false;
        s.object(|s, key| {
            let name = s.name(&key)?;
            let folded = s.folded_name(&key)?;
            let value = s.value()?;
            if &*folded == b"include_usage" {
                if name != folded {
                    let name = format!("stream_options.{}", shorten(&String::from_utf8_lossy(&name)));
                    let message = format!("Unknown parameter: '{name}'; use 'stream_options.include_usage'.");
                    return Err(wrong(Outcome::UnknownParameter, &name, message));
                }
                if std::mem::replace(&mut seen, true) {
                    return Err(duplicate("stream_options.include_usage"));
                }
                self.facts.wants_usage = boolean("stream_options.include_usage", &value, s.bytes(&value.span))?;
            }
            Ok(())
        })?;
        Ok(Scanned { kind: Kind::Object, span: start..s.position() })
    }

    fn response_format(&mut self, s: &mut Scanner<'a>) -> Result<Scanned, InvalidRequest> {
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

    fn modalities(&mut self, s: &mut Scanner<'a>) -> Result<Scanned, InvalidRequest> {
        match s.peek()? {
            Kind::Array => {}
            Kind::Null => return Ok(s.value()?),
            kind => return Err(wrong_type("modalities", "an array of strings", kind)),
        }
        let start = s.position();
        s.array(|s, _| {
            let value = s.value()?;
            let kind = if value.kind == Kind::String { s.folded_name(&value.span)? } else { Cow::default() };
            match &*kind {
                b"text" => {}
                b"audio" => self.facts.needs.add(Need::AudioModality),
                _ => self.facts.needs.add(Need::OtherModality),
            }
            Ok::<_, InvalidRequest>(())
        })?;
        Ok(Scanned { kind: Kind::Array, span: start..s.position() })
    }
}

/// The fields that the gateway reads.
const KNOWN: [&str; 27] = [
    "model",
    "messages",
    "metadata",
    "stream",
    "stream_options",
    "tools",
    "functions",
    "response_format",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "user",
    "safety_identifier",
    "service_tier",
    "modalities",
    "audio",
    "web_search_options",
    "search_parameters",
    "enable_search",
    "plugins",
    "mm_processor_kwargs",
    "media_io_kwargs",
    "web_search",
    "search_mode",
    "tool_choice",
    "reasoning",
    "thinking",
];

#[cfg(test)]
mod tests;
