//! The one reader of completions and chunks: usage, text for the token estimate, and the parts of a transcript.

use crate::dialect::openai::failure::{self, Mark};
use crate::dialect::openai::usage;
use crate::service_tier::ServedTier;
use crate::tokens::TokenCounter;
use crate::usage::ReportedUsage;
use crate::wire::json::{InvalidJson, Kind, Scanner, Span, names, unquote};

/// The contents of one completion or of one stream chunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadAnswer {
    /// Its usage, if present.
    pub usage: Option<ReportedUsage>,
    /// The service tier that it says served it.
    pub service_tier: Option<ServedTier>,
    /// Whether `choices` is present and empty, as in the extra usage chunk of a stream.
    pub choices_empty: bool,
    /// Whether there is a `choices` array.
    pub has_choices: bool,
    /// Whether it is an error, by itself or in place of choices and usage.
    pub is_error: bool,
    /// Whether it carries nothing on purpose: an empty object, or one of the type `ping`.
    pub is_ping: bool,
    /// Whether a choice has something for the caller: text, an object such as an image, or the reason of its end.
    pub has_content: bool,
    /// The number of choices that it says the end of.
    pub finished: u64,
    /// One more than the highest index of a choice in it.
    pub choices: u64,
    /// The kind of its `usage`, if present, even if nothing is counted in it.
    pub usage_kind: Option<Kind>,
    /// Whether it has members that a chunk of OpenAI's usually does not have.
    pub has_extras: bool,
    /// Whether it has a `system_fingerprint`, which some servers send in every chunk and some in the last one only.
    pub has_fingerprint: bool,
    /// The text in the choices, counted for the token estimate: content, reasoning, names and arguments of tool calls.
    pub generated: TokenCounter,
    /// Span of the last such text, quotation marks included.
    pub text: Span,
    /// The number of such texts.
    pub texts: usize,
    /// Span of OpenAI's `obfuscation`, quotation marks included: padding of any length without meaning.
    pub filler: Option<Span>,
}

/// A part of a chunk: a member of one of its objects, or the start of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The object it belongs to.
    pub place: Place,
    /// The member's name, quotation marks included.
    pub name: Span,
    /// The kind of its value.
    pub kind: Kind,
    /// Span of the value.
    pub value: Span,
}

/// The place of a part within a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A member of the chunk itself.
    Chunk,
    /// The start of a choice; its members follow.
    NewChoice,
    /// A member of a choice.
    Choice,
    /// A member of a choice's `logprobs`.
    Logprobs,
    /// A member of a choice's `delta`.
    Delta,
    /// A member of a delta's `function_call`, the predecessor of tool calls.
    FunctionCall,
    /// The start of a tool call; its members follow.
    NewCall,
    /// A member of a tool call.
    Call,
    /// A member of a tool call's `function`.
    CallFunction,
    /// A value other than an object where a choice or a tool call is expected.
    Strange,
}

/// Deepest nesting of an answer: more than any schema-bound output needs.
pub const MAX_DEPTH: u32 = 256;

/// Reads a stream chunk and appends its parts to `parts`, if given.
///
/// # Errors
/// If it is not a JSON object.
pub fn chunk(text: &[u8], parts: Option<&mut Vec<Part>>) -> Result<ReadAnswer, InvalidJson> {
    Walk { found: ReadAnswer::default(), estimates: true, parts }.read(text)
}

/// Reads a whole completion. Counts its text only if its usage has no output tokens.
///
/// # Errors
/// If it is not a JSON object.
pub fn whole(text: &[u8]) -> Result<ReadAnswer, InvalidJson> {
    let found = Walk { found: ReadAnswer::default(), estimates: false, parts: None }.read(text)?;
    match found.usage {
        Some(usage) if usage.output > 0 => Ok(found),
        _ => chunk(text, None),
    }
}

struct Walk<'p> {
    found: ReadAnswer,
    /// Whether texts are counted.
    estimates: bool,
    parts: Option<&'p mut Vec<Part>>,
}

impl Walk<'_> {
    fn read(mut self, text: &[u8]) -> Result<ReadAnswer, InvalidJson> {
        let mut scanner = Scanner::lenient(text, MAX_DEPTH);
        let (mut is_empty, mut no_answer) = (true, false);
        scanner.object(|s, key| {
            let (kind, start) = next(s)?;
            let name = names::quoted(s, &key);
            match (&*name, kind) {
                (b"\"choices\"", Kind::Array) => self.choices(s)?,
                (b"\"usage\"", Kind::Object) => self.found.usage = usage::read(s)?.or(self.found.usage),
                (b"\"service_tier\"", Kind::String) => {
                    let value = s.value()?.span;
                    self.found.service_tier = unquote(s.bytes(&value)).and_then(|tier| ServedTier::named(&tier));
                }
                (b"\"obfuscation\"", Kind::String) => self.found.filler = Some(s.value()?.span),
                (name, kind) => {
                    let value = s.value()?.span;
                    let value = s.bytes(&value);
                    match failure::mark(name, value) {
                        Mark::None => {}
                        Mark::Error => self.found.is_error = true,
                        Mark::InPlaceOfAnswer => no_answer = true,
                    }
                    self.found.is_ping |= name == b"\"type\"" && value == b"\"ping\"";
                    match name {
                        _ if kind == Kind::Null => {}
                        b"\"system_fingerprint\"" => self.found.has_fingerprint = true,
                        name => self.found.has_extras |= !is_usual(name),
                    }
                }
            }
            if &*name == b"\"usage\"" {
                self.found.usage_kind = Some(kind);
            }
            is_empty = false;
            self.part(Place::Chunk, key, kind, start..s.position());
            Ok::<_, InvalidJson>(())
        })?;
        scanner.finish()?;
        let mut found = self.found;
        let is_answer = found.has_choices || found.usage.is_some();
        found.is_error |= no_answer && !is_answer;
        found.has_content |= !found.generated.is_empty();
        found.is_ping = (found.is_ping || is_empty) && !is_answer && !found.is_error;
        Ok(found)
    }

    fn part(&mut self, place: Place, name: Span, kind: Kind, value: Span) {
        if let Some(parts) = &mut self.parts {
            parts.push(Part { place, name, kind, value });
        }
    }

    /// Adds a part that is not a member.
    fn mark(&mut self, place: Place) {
        self.part(place, 0..0, Kind::Null, 0..0);
    }

    fn choices(&mut self, s: &mut Scanner) -> Result<(), InvalidJson> {
        (self.found.has_choices, self.found.choices_empty) = (true, true);
        s.array(|s, _| {
            self.found.choices_empty = false;
            if s.peek()? != Kind::Object {
                self.mark(Place::Strange);
                return s.value().map(drop);
            }
            self.mark(Place::NewChoice);
            let mut index = 0u64;
            s.object(|s, key| {
                let (kind, start) = next(s)?;
                let name = names::quoted(s, &key);
                match (&*name, kind) {
                    (b"\"delta\"", Kind::Object) if self.estimates => self.delta(s)?,
                    (b"\"delta\"" | b"\"message\"", _) if self.estimates => self.texts(s)?,
                    // Kimi counts in the last choice.
                    (b"\"usage\"", Kind::Object) => self.found.usage = self.found.usage.or(usage::read(s)?),
                    (b"\"logprobs\"", Kind::Object) if self.parts.is_some() => s.object(|s, key| {
                        let value = s.value()?;
                        self.part(Place::Logprobs, key, value.kind, value.span);
                        Ok::<_, InvalidJson>(())
                    })?,
                    (name, kind) => {
                        let value = s.value()?.span;
                        let value = s.bytes(&value);
                        match name {
                            b"\"error\"" => self.found.is_error |= !failure::is_empty(value),
                            b"\"finish_reason\"" => {
                                self.found.is_error |= value == b"\"error\"";
                                let is_end = kind == Kind::String && value != b"\"\"";
                                self.found.has_content |= is_end;
                                self.found.finished += u64::from(is_end);
                            }
                            b"\"index\"" => {
                                index = std::str::from_utf8(value).ok().and_then(|n| n.parse().ok()).unwrap_or(0)
                            }
                            _ => {}
                        }
                    }
                }
                self.part(Place::Choice, key, kind, start..s.position());
                Ok::<_, InvalidJson>(())
            })?;
            self.found.choices = self.found.choices.max(index.saturating_add(1));
            Ok(())
        })
    }

    fn delta(&mut self, s: &mut Scanner) -> Result<(), InvalidJson> {
        s.object(|s, key| {
            let (kind, start) = next(s)?;
            let name = names::quoted(s, &key);
            match (&*name, kind) {
                (b"\"tool_calls\"", Kind::Array) => self.calls(s)?,
                (b"\"function_call\"", Kind::Object) => self.members(s, Place::FunctionCall)?,
                (name, _) => self.member_texts(s, name)?,
            }
            let value = start..s.position();
            self.found.is_error |= &*name == b"\"error\"" && !failure::is_empty(s.bytes(&value));
            self.found.has_content |= matches!(kind, Kind::Object | Kind::Array) && !failure::is_empty(s.bytes(&value));
            self.part(Place::Delta, key, kind, value);
            Ok(())
        })
    }

    fn calls(&mut self, s: &mut Scanner) -> Result<(), InvalidJson> {
        s.array(|s, _| {
            if s.peek()? != Kind::Object {
                self.mark(Place::Strange);
                return self.texts(s);
            }
            self.mark(Place::NewCall);
            s.object(|s, key| {
                let (kind, start) = next(s)?;
                let name = names::quoted(s, &key);
                match (&*name, kind) {
                    (b"\"function\"", Kind::Object) => self.members(s, Place::CallFunction)?,
                    (name, _) => self.member_texts(s, name)?,
                }
                self.part(Place::Call, key, kind, start..s.position());
                Ok(())
            })
        })
    }

    fn members(&mut self, s: &mut Scanner, place: Place) -> Result<(), InvalidJson> {
        s.object(|s, key| {
            let (kind, start) = next(s)?;
            let name = names::quoted(s, &key);
            self.member_texts(s, &name)?;
            self.part(place, key, kind, start..s.position());
            Ok(())
        })
    }

    /// Counts every string in one value.
    fn texts(&mut self, s: &mut Scanner) -> Result<(), InvalidJson> {
        match s.peek()? {
            Kind::Object => s.object(|s, key| {
                let name = names::quoted(s, &key);
                self.member_texts(s, &name)
            }),
            Kind::Array => s.array(|s, _| self.texts(s)),
            Kind::String => {
                let found = &mut self.found;
                found.text = s.value()?.span;
                found.generated.push(s.bytes(&(found.text.start + 1..found.text.end.saturating_sub(1))));
                found.texts += 1;
                Ok(())
            }
            _ => s.value().map(drop),
        }
    }

    /// Counts every string in a member, unless the member is not generated text.
    fn member_texts(&mut self, s: &mut Scanner, name: &[u8]) -> Result<(), InvalidJson> {
        match name {
            b"\"role\"" | b"\"type\"" | b"\"id\"" => s.value().map(drop),
            _ => self.texts(s),
        }
    }
}

/// Returns the kind and the start of the next value.
fn next(s: &mut Scanner) -> Result<(Kind, usize), InvalidJson> {
    let kind = s.peek()?;
    Ok((kind, s.position()))
}

/// Whether a chunk of OpenAI's has a member of this name.
fn is_usual(name: &[u8]) -> bool {
    matches!(name, b"\"id\"" | b"\"object\"" | b"\"created\"" | b"\"model\"" | b"\"service_tier\"" | b"\"usage\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<ReadAnswer, InvalidJson> {
        let mut parts = Vec::new();
        let found = chunk(text, Some(&mut parts));
        assert_eq!(found, chunk(text, None), "who listens changes nothing");
        found
    }

    #[test]
    fn reads_openai_usage() {
        let text = br#"{"id":"x","choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":9}"}}],
            "usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4}}}"#;
        let completion = read(text).unwrap();
        assert_eq!(
            completion.usage,
            Some(ReportedUsage { input: Some(10), cached_input: 4, output: 5, ..ReportedUsage::default() })
        );
        assert!(completion.has_choices && !completion.choices_empty && !completion.is_error);
    }

    #[test]
    fn null_usage_is_none_and_the_extra_chunk_is_known() {
        assert_eq!(read(br#"{"choices":[{}],"usage":null}"#).unwrap().usage, None);
        let extra = read(br#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#).unwrap();
        assert!(extra.choices_empty && extra.usage.is_some());
        assert!(read(br#"{"error":{"message":"overloaded"}}"#).unwrap().is_error);
        assert!(!read(br#"{"error":null,"choices":[{}]}"#).unwrap().is_error);
        assert!(!read(br#"{"error":{},"code":7,"choices":[{"error":""}]}"#).unwrap().is_error);
    }

    #[test]
    fn an_error_comes_in_many_forms() {
        for error in [
            r#"{"code":1302,"msg":"rate limit"}"#,
            r#"{"choices":null,"base_resp":{"status_code":1008}}"#,
            r#"{"choices":[{"delta":{}}],"base_resp":{"status_code":1008}}"#,
            r#"{"error_code":336501,"error_msg":"x"}"#,
            r#"{"errors":[{"message":"x"}]}"#,
            r#"{"status":500,"title":"x"}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"error"}]}"#,
            r#"{"choices":[{"delta":{},"error":{"code":502}}]}"#,
            r#"{"choices":[{"delta":{"content":"a","error":{"code":502}}}]}"#,
        ] {
            assert!(read(error.as_bytes()).unwrap().is_error, "{error}");
        }
    }

    #[test]
    fn what_the_caller_reads_is_content() {
        for content in [
            r#"{"content":"a"}"#,
            r#"{"reasoning_content":"a"}"#,
            r#"{"images":[{"url":"data:"}]}"#,
            r#"{"tool_calls":[{"index":0}]}"#,
        ] {
            assert!(read(format!(r#"{{"choices":[{{"delta":{content}}}]}}"#).as_bytes()).unwrap().has_content);
        }
        for none in [r#"{"role":"assistant","content":""}"#, r#"{"content":null,"tool_calls":[]}"#, "{}"] {
            let chunk = format!(r#"{{"choices":[{{"delta":{none},"finish_reason":null}}]}}"#);
            assert!(!read(chunk.as_bytes()).unwrap().has_content, "{none}");
        }
        assert!(read(br#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#).unwrap().has_content);
        assert!(read(b"{}").unwrap().is_ping && read(br#"{"type":"ping"}"#).unwrap().is_ping);
        assert!(!read(br#"{"sources":[]}"#).unwrap().is_ping);
    }

    #[test]
    fn broken_json_is_an_error() {
        for text in [&b""[..], b"[]", b"{\"usage\":", b"{\"usage\":{\"prompt_tokens\":1}", b"{}x", b"oops"] {
            assert!(read(text).is_err());
        }
        // A name with escapes is the name that it stands for.
        assert!(read(br#"{"\u0065rror":1}"#).unwrap().is_error);
    }
}
