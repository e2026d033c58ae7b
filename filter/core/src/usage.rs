//! What a provider says an answer took, read from its JSON.

use crate::tokens::Running;
use crate::wire::json::{InvalidJson, Kind, Scanner, Span};

/// Tokens of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input tokens, cached ones included (OpenAI's `prompt_tokens`).
    pub input: u64,
    /// Input tokens that the provider read from its prompt cache (`prompt_tokens_details.cached_tokens`).
    pub cached_input: u64,
    /// Output tokens, reasoning included (`completion_tokens`).
    pub output: u64,
}

/// What one completion object or stream chunk tells us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Completion {
    /// Its usage, if it carries one.
    pub usage: Option<Usage>,
    /// Whether `choices` is there and empty, as in the extra usage chunk of a stream.
    pub choices_empty: bool,
    /// Whether there is a `choices` array.
    pub has_choices: bool,
    /// Whether the object is an error, which some providers send inside a stream: `{"error": …}`, `{"object": "error", …}` as
    /// vLLM once did, or a choice with an `error`.
    pub is_error: bool,
    /// Whether it has words in place of choices and usage, `{"message": …}` or `{"detail": …}`: what is said, and by many servers'
    /// frameworks, of a failure.
    pub has_words: bool,
    /// The text that the choices carry, by estimate: content, reasoning, names and arguments of tool calls.
    pub generated: Running,
    /// Where the last such text is, its quotation marks included.
    pub text: Span,
    /// How many such texts there are.
    pub texts: usize,
    /// Where OpenAI's `obfuscation` is, its quotation marks included: a string of any length that says nothing.
    pub filler: Option<Span>,
}

impl Usage {
    /// What is charged where no usage came. The input counts four bytes a token, unless who calls knows it better.
    pub fn estimate(input_bytes: usize, output: Running) -> Self {
        Self { input: (input_bytes as u64).div_ceil(4), cached_input: 0, output: output.tokens() }
    }
}

/// Deepest nesting that an answer may have: more than any schema-bound output needs.
const MAX_DEPTH: u32 = 256;

/// Reads a chunk of a stream.
///
/// # Errors
/// If it is not a JSON object.
pub fn read(text: &[u8]) -> Result<Completion, InvalidJson> {
    read_with(text, true)
}

/// Reads a whole completion: its text is estimated only where its usage does not count it.
///
/// # Errors
/// If it is not a JSON object.
pub fn read_whole(text: &[u8]) -> Result<Completion, InvalidJson> {
    let found = read_with(text, false)?;
    match found.usage {
        Some(usage) if usage.output > 0 => Ok(found),
        _ => read(text),
    }
}

fn read_with(text: &[u8], estimates: bool) -> Result<Completion, InvalidJson> {
    let mut found = Completion::default();
    let mut scanner = Scanner::new(text, MAX_DEPTH);
    scanner.object(|s, key| match s.bytes(&key) {
        b"\"usage\"" if s.peek()? == Kind::Object => {
            found.usage = read_usage(s)?;
            Ok(())
        }
        b"\"choices\"" if s.peek()? == Kind::Array => {
            found.has_choices = true;
            found.choices_empty = true;
            s.array(|s, _| {
                found.choices_empty = false;
                if s.peek()? != Kind::Object {
                    return s.value().map(drop);
                }
                s.object(|s, key| match s.bytes(&key) {
                    b"\"delta\"" | b"\"message\"" if estimates => texts(s, &mut found),
                    b"\"error\"" if s.peek()? != Kind::Null => {
                        found.is_error = true;
                        s.value().map(drop)
                    }
                    _ => s.value().map(drop),
                })
            })
        }
        b"\"obfuscation\"" if s.peek()? == Kind::String => {
            found.filler = Some(s.value()?.span);
            Ok(())
        }
        b"\"error\"" if s.peek()? != Kind::Null => {
            found.is_error = true;
            s.value().map(drop)
        }
        b"\"object\"" => {
            let object = s.value()?.span;
            found.is_error |= s.bytes(&object) == b"\"error\"";
            Ok(())
        }
        b"\"message\"" | b"\"detail\"" if s.peek()? != Kind::Null => {
            found.has_words = true;
            s.value().map(drop)
        }
        _ => s.value().map(drop),
    })?;
    scanner.finish()?;
    found.has_words &= !found.has_choices && found.usage.is_none();
    Ok(found)
}

/// Adds up the strings of one value, but for the role, which is not generated.
fn texts(s: &mut Scanner, found: &mut Completion) -> Result<(), InvalidJson> {
    match s.peek()? {
        Kind::Object => s.object(|s, key| match s.bytes(&key) {
            b"\"role\"" | b"\"type\"" | b"\"id\"" => s.value().map(drop),
            _ => texts(s, found),
        }),
        Kind::Array => s.array(|s, _| texts(s, found)),
        Kind::String => {
            found.text = s.value()?.span;
            found.generated.push(s.bytes(&(found.text.start + 1..found.text.end.saturating_sub(1))));
            found.texts += 1;
            Ok(())
        }
        _ => s.value().map(drop),
    }
}

/// `None` where nothing is counted in it.
fn read_usage(s: &mut Scanner) -> Result<Option<Usage>, InvalidJson> {
    let (mut usage, mut counts) = (Usage::default(), false);
    s.object(|s, key| match s.bytes(&key) {
        b"\"prompt_tokens\"" => {
            counts = true;
            tokens(s, &mut usage.input)
        }
        b"\"completion_tokens\"" => {
            counts = true;
            tokens(s, &mut usage.output)
        }
        b"\"prompt_tokens_details\"" if s.peek()? == Kind::Object => s.object(|s, key| match s.bytes(&key) {
            b"\"cached_tokens\"" => tokens(s, &mut usage.cached_input),
            _ => s.value().map(drop),
        }),
        _ => s.value().map(drop),
    })?;
    usage.cached_input = usage.cached_input.min(usage.input);
    Ok(counts.then_some(usage))
}

/// A count of tokens; what is no count (null, negative, a fraction, absurdly large) counts as the largest plausible
/// amount if it is a large number and as 0 otherwise, so that nothing wraps and a broken provider cannot charge without bound.
fn tokens(s: &mut Scanner, into: &mut u64) -> Result<(), InvalidJson> {
    const MOST: u64 = 1_000_000_000;
    let value = s.value()?;
    if value.kind == Kind::Number {
        let text = std::str::from_utf8(s.bytes(&value.span)).unwrap_or_default();
        // `as` saturates: a negative number or NaN becomes 0.
        *into = text.parse::<u64>().unwrap_or_else(|_| text.parse::<f64>().unwrap_or(0.0) as u64).min(MOST);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_openai_usage() {
        let text = br#"{"id":"x","choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":9}"}}],
            "usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4}}}"#;
        let completion = read(text).unwrap();
        assert_eq!(completion.usage, Some(Usage { input: 10, cached_input: 4, output: 5 }));
        assert!(completion.has_choices && !completion.choices_empty && !completion.is_error);
    }

    #[test]
    fn null_usage_is_none_and_the_extra_chunk_is_known() {
        assert_eq!(read(br#"{"choices":[{}],"usage":null}"#).unwrap().usage, None);
        let extra = read(br#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#).unwrap();
        assert!(extra.choices_empty && extra.usage.is_some());
        assert!(read(br#"{"error":{"message":"overloaded"}}"#).unwrap().is_error);
        assert!(!read(br#"{"error":null,"choices":[{}]}"#).unwrap().is_error);
    }

    #[test]
    fn absurd_counts_neither_wrap_nor_charge_without_bound() {
        let usage =
            |n: &str| read(format!(r#"{{"usage":{{"prompt_tokens":{n}}}}}"#).as_bytes()).unwrap().usage.unwrap().input;
        assert_eq!(usage("-5"), 0);
        assert_eq!(usage("1e30"), 1_000_000_000);
        assert_eq!(usage("99999999999999999999999"), 1_000_000_000);
        assert_eq!(usage("12.0"), 12);
        assert_eq!(usage("\"7\""), 0);
        assert_eq!(usage("null"), 0);
    }

    #[test]
    fn broken_json_is_an_error() {
        for text in [&b""[..], b"[]", b"{\"usage\":", b"{\"usage\":{\"prompt_tokens\":1}", b"{}x", b"oops"] {
            assert!(read(text).is_err());
        }
    }
}
