//! The one reader of answers and of stream events: usage, text for the token estimate, and what they are.

use crate::dialect::anthropic::kinds;
use crate::dialect::anthropic::usage::Counts;
use crate::tokens::TokenCounter;
use crate::wire::json::{InvalidJson, Kind, Scanned, Scanner, Span, unquote};

/// Deepest nesting of an answer: more than any schema-bound output needs.
pub const MAX_DEPTH: u32 = 256;

/// The type of a document: an event, or a whole answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Type {
    /// `message_start`: what is known of the answer before it is made.
    MessageStart,
    /// `content_block_start`
    BlockStart,
    /// `content_block_delta`
    Delta,
    /// `content_block_stop`
    BlockStop,
    /// `message_delta`: how the answer ends, and its usage.
    MessageDelta,
    /// `message_stop`: the end of the stream.
    MessageStop,
    /// `error`
    Error,
    /// `message`: a whole answer.
    Message,
    /// `ping`, or one that newer servers send: to be ignored, by Anthropic's documentation.
    Other,
    /// It has none.
    #[default]
    Missing,
}

/// The contents of one document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Read {
    /// Its type.
    pub kind: Type,
    /// Whether it has something for the caller: text, a tool call, or the reason of the end.
    pub has_content: bool,
    /// Whether it counts tokens.
    pub has_usage: bool,
    /// The text that it adds to the answer, counted for the token estimate.
    pub generated: TokenCounter,
    /// Span of the last such text, quotation marks included.
    pub text: Span,
    /// The number of such texts.
    pub texts: usize,
    /// The status that its error stands for.
    pub error_status: Option<u16>,
    /// Whether it has an `error` object.
    pub has_error: bool,
    /// Whether it has `content`, as whole answers do.
    pub has_list: bool,
}

impl Type {
    fn named(name: &[u8]) -> Self {
        match name {
            b"\"message_start\"" => Self::MessageStart,
            b"\"content_block_start\"" => Self::BlockStart,
            b"\"content_block_delta\"" => Self::Delta,
            b"\"content_block_stop\"" => Self::BlockStop,
            b"\"message_delta\"" => Self::MessageDelta,
            b"\"message_stop\"" => Self::MessageStop,
            b"\"error\"" => Self::Error,
            b"\"message\"" => Self::Message,
            _ => Self::Other,
        }
    }
}

/// Reads a document. `counts` takes the tokens that it counts.
///
/// # Errors
/// If it is not a JSON object.
pub fn read(text: &[u8], counts: &mut Counts) -> Result<Read, InvalidJson> {
    let mut found = Read::default();
    let mut scanner = Scanner::lenient(text, MAX_DEPTH);
    scanner.object(|s, key| match (s.bytes(&key), s.peek()?) {
        (b"\"type\"", Kind::String) => {
            let value = s.value()?;
            found.kind = Type::named(s.bytes(&value.span));
            Ok(())
        }
        // What a stream is about to make.
        (b"\"message\"", Kind::Object) => s.object(|s, key| match s.bytes(&key) {
            b"\"usage\"" => usage(s, counts, &mut found),
            _ => s.value().map(drop),
        }),
        (b"\"usage\"", _) => usage(s, counts, &mut found),
        (b"\"delta\"" | b"\"content_block\"", Kind::Object) => block(s, &mut found),
        (b"\"content\"", Kind::Array) => {
            found.has_list = true;
            s.array(|s, _| match s.peek()? {
                Kind::Object => block(s, &mut found),
                _ => s.value().map(drop),
            })
        }
        (b"\"stop_reason\"", kind) => {
            found.has_content |= kind == Kind::String;
            s.value().map(drop)
        }
        (b"\"error\"", kind) => {
            found.has_error |= kind != Kind::Null;
            match kind {
                Kind::Object => error(s, &mut found),
                _ => s.value().map(drop),
            }
        }
        _ => s.value().map(drop),
    })?;
    scanner.finish()?;
    Ok(found)
}

fn usage(s: &mut Scanner, counts: &mut Counts, found: &mut Read) -> Result<(), InvalidJson> {
    found.has_usage |= s.peek()? == Kind::Object;
    counts.read(s)
}

fn error(s: &mut Scanner, found: &mut Read) -> Result<(), InvalidJson> {
    s.object(|s, key| {
        let is_kind = s.bytes(&key) == b"\"type\"";
        let value = s.value()?;
        if is_kind && let Some(kind) = unquote(s.bytes(&value.span)) {
            found.error_status = kinds::status(&kind);
        }
        Ok(())
    })
}

/// Reads a block, or what is added to one or to the message.
fn block(s: &mut Scanner, found: &mut Read) -> Result<(), InvalidJson> {
    s.object(|s, key| {
        let name = s.bytes(&key);
        let value = s.value()?;
        let bytes = s.bytes(&value.span);
        match name {
            b"\"text\"" | b"\"thinking\"" | b"\"partial_json\"" | b"\"name\"" | b"\"data\"" => {
                note_text(found, &value, bytes);
            }
            // The arguments of a call in a whole answer.
            b"\"input\"" if value.kind == Kind::Object => found.generated.push(bytes),
            // Text and thinking say something with their first piece.
            b"\"type\"" => {
                found.has_content |= !matches!(
                    bytes,
                    b"\"text\""
                        | b"\"text_delta\""
                        | b"\"thinking\""
                        | b"\"thinking_delta\""
                        | b"\"input_json_delta\""
                        | b"\"signature_delta\""
                );
            }
            b"\"stop_reason\"" => found.has_content |= value.kind == Kind::String,
            _ => {}
        }
        Ok(())
    })
}

fn note_text(found: &mut Read, value: &Scanned, bytes: &[u8]) {
    if let (Kind::String, [_, inner @ .., _]) = (value.kind, bytes) {
        found.texts += 1;
        found.text = value.span.clone();
        found.has_content |= !inner.is_empty();
        found.generated.push(inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(document: &Value) -> Read {
        read(document.to_string().as_bytes(), &mut Counts::default()).unwrap()
    }

    #[test]
    fn an_event_has_content_if_the_caller_gets_something_to_read() {
        let delta = |delta: Value| json!({"type": "content_block_delta", "index": 0, "delta": delta});
        let start = |block: Value| json!({"type": "content_block_start", "index": 0, "content_block": block});
        for silent in [
            json!({"type": "message_start", "message": {"id": "m", "content": [], "usage": {"input_tokens": 9}}}),
            json!({"type": "ping"}),
            start(json!({"type": "text", "text": ""})),
            start(json!({"type": "thinking", "thinking": "", "signature": ""})),
            delta(json!({"type": "text_delta", "text": ""})),
            delta(json!({"type": "input_json_delta", "partial_json": ""})),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "message_delta", "delta": {"stop_reason": null}, "usage": {"output_tokens": 1}}),
            json!({"type": "something_new", "text": "x"}),
        ] {
            assert!(!of(&silent).has_content, "{silent}");
        }
        for speaks in [
            start(json!({"type": "text", "text": "a"})),
            start(json!({"type": "tool_use", "id": "t", "name": "f", "input": {}})),
            start(json!({"type": "redacted_thinking", "data": "x"})),
            start(json!({"type": "web_search_tool_result", "content": []})),
            delta(json!({"type": "text_delta", "text": "a"})),
            delta(json!({"type": "thinking_delta", "thinking": "a"})),
            delta(json!({"type": "input_json_delta", "partial_json": "{"})),
            delta(json!({"type": "citations_delta", "citation": {}})),
            json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}),
        ] {
            assert!(of(&speaks).has_content, "{speaks}");
        }
    }

    #[test]
    fn a_whole_answer_is_read_with_all_its_text() {
        let text = of(&json!({"type": "message", "content": [{"type": "text", "text": "four words are here"},
            {"type": "tool_use", "name": "f", "input": {"a": "and four more words"}}], "stop_reason": "tool_use",
            "usage": {"input_tokens": 1, "output_tokens": 2}}));
        assert!(text.has_list && text.has_usage && text.has_content && text.kind == Type::Message);
        assert!((8..20).contains(&text.generated.tokens()), "{}", text.generated.tokens());
    }

    #[test]
    fn an_error_has_the_status_of_its_kind() {
        let error = of(&json!({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}));
        assert_eq!((error.kind, error.has_error, error.error_status), (Type::Error, true, Some(529)));
        assert_eq!(of(&json!({"type": "error", "error": {"type": "odd"}})).error_status, None);
        assert!(read(b"[1]", &mut Counts::default()).is_err() && read(b"{} x", &mut Counts::default()).is_err());
    }
}
