//! The `Behavior` document: what a rule or a prompt can ask of the simulator.

use hyper::header::{ACCEPT_ENCODING, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// How to answer one request. Whatever is left out follows a well-behaved provider.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Behavior {
    /// The status. Outside 2xx and without a `body` or `json`, the answer is the provider's own error document.
    #[serde(deserialize_with = "status")]
    pub status: Option<StatusCode>,
    /// Headers to set. A name given twice is sent twice.
    #[serde(deserialize_with = "headers")]
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The whole body, as text.
    pub body: Option<String>,
    /// The whole body, as JSON.
    pub json: Option<Value>,
    /// The text of the answer.
    pub content: Option<String>,
    /// The number of content chunks.
    pub chunks: Option<usize>,
    /// The bytes of text in each content chunk.
    pub chunk_bytes: Option<usize>,
    /// Answer with what was received.
    pub echo: Echo,
    /// Answer with these tool calls.
    pub tool_calls: Option<Vec<CallSpec>>,
    /// The text of the reasoning; empty for none.
    pub reasoning: Option<String>,
    /// Reasoning that Anthropic's dialect shows in unreadable form only.
    pub redacted_reasoning: Option<String>,
    /// The finish reason, in the dialect's words.
    pub finish_reason: Option<String>,
    /// The service tier that the answer names; empty for none.
    pub service_tier: Option<String>,
    /// The token counts.
    #[serde(deserialize_with = "usage")]
    pub usage: UsageSpec,
    /// The token counts at the start of a stream, where the dialect gives some.
    pub usage_start: Option<Value>,
    /// The part of the prompt that a cache had, in tokens.
    pub cached_tokens: u64,
    /// The part of the prompt that a cache took in, in tokens.
    pub cache_write_tokens: u64,
    /// Milliseconds before the first token.
    pub ttft_ms: Option<u64>,
    /// Milliseconds between chunks.
    pub chunk_ms: Option<u64>,
    /// Milliseconds from the last byte of the body to its end.
    pub end_ms: u64,
    /// Milliseconds before the response headers.
    pub delay_headers_ms: u64,
    /// No response until `/_sim/release` names this.
    pub hold: Option<String>,
    /// The content type.
    #[serde(deserialize_with = "content_type")]
    pub content_type: ContentType,
    /// Encode the body with gzip.
    pub gzip: Gzip,
    /// What goes wrong.
    pub fault: Option<Fault>,
    /// Write the body in pieces of this size.
    pub split: Option<Split>,
    /// Add bytes after the end: an unfinished comment to a stream, blank lines to a document.
    pub trailing_bytes: bool,
    /// End SSE lines with CR LF.
    pub crlf: bool,
    /// Add comments, `event:` and `id:` lines to the SSE stream.
    pub comments: bool,
    /// Leave out the `event:` lines of a dialect that names its events.
    pub no_event_lines: bool,
    /// Leave out the space after `data:` and `event:`.
    pub no_space: bool,
    /// Send trailers after a stream (HTTP/2).
    pub trailers: bool,
}

/// Whether a body is encoded with gzip.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Gzip {
    /// No.
    #[default]
    No,
    /// Whatever the request accepts.
    Always,
    /// Unless the request asks for no coding. One without `accept-encoding` accepts any (RFC 9110, section 12.5.3).
    UnlessIdentity,
}

impl Gzip {
    /// Returns whether the response to a request with these headers is encoded.
    pub fn encodes(self, headers: &HeaderMap) -> bool {
        match self {
            Self::No => false,
            Self::Always => true,
            Self::UnlessIdentity => headers.get(ACCEPT_ENCODING).is_none_or(|accepted| accepted != "identity"),
        }
    }
}

impl<'de> Deserialize<'de> for Gzip {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(true) => Ok(Self::Always),
            Value::Bool(false) => Ok(Self::No),
            Value::String(text) if text == "unless_identity" => Ok(Self::UnlessIdentity),
            other => Err(D::Error::custom(format!("gzip: {other} is neither true, false nor \"unless_identity\""))),
        }
    }
}

/// What an answer repeats of its request.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// Nothing.
    #[default]
    No,
    /// The request's body.
    Body,
    /// Who asked: path, `user` field and every header, credentials too.
    User,
}

impl<'de> Deserialize<'de> for Echo {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(true) => Ok(Self::Body),
            Value::Bool(false) => Ok(Self::No),
            Value::String(text) if text == "user" => Ok(Self::User),
            other => Err(D::Error::custom(format!("echo: {other} is neither true, false nor \"user\""))),
        }
    }
}

/// A tool call to answer with; either flat, or in the shape OpenAI sends.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CallSpec {
    /// The call's id; made up when left out.
    pub id: Option<String>,
    /// `custom` for a tool that takes text; anything else is a function call.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The function's name.
    pub name: Option<String>,
    /// The arguments. A string is sent unchanged, anything else as JSON text.
    pub arguments: Option<Value>,
    /// The OpenAI shape of the two fields above.
    pub function: Option<FunctionSpec>,
}

/// The function of a [`CallSpec`] in OpenAI's shape.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FunctionSpec {
    /// The function's name.
    pub name: Option<String>,
    /// As [`CallSpec::arguments`].
    pub arguments: Option<Value>,
}

/// The content type of a response.
#[derive(Debug, Default, PartialEq)]
pub enum ContentType {
    /// That of the body.
    #[default]
    Own,
    /// This one.
    Given(HeaderValue),
    /// No such header.
    Omit,
}

/// The token counts of an answer.
#[derive(Debug, Default, PartialEq)]
pub enum UsageSpec {
    /// Counted from the request and the answer.
    #[default]
    Counted,
    /// `"usage": null`.
    Null,
    /// No token counts.
    Omit,
    /// This object, unchanged.
    Given(Value),
}

/// What goes wrong. Faults with `after_chunks` occur after that many content chunks; at 0, before the first event.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// RST before any byte of the response.
    ResetBeforeHeaders,
    /// FIN before any byte of the response.
    CloseBeforeHeaders,
    /// No response, ever.
    HangBeforeHeaders,
    /// Headers, then nothing.
    HangAfterHeaders,
    /// RST in the middle of the body.
    ResetMidStream(Strike),
    /// FIN in the middle of the body.
    CloseMidStream(Strike),
    /// Nothing more from the middle of the body on.
    HangMidStream(Strike),
    /// A clean end of the response in the middle of an event.
    TruncateEvent(Strike),
    /// A clean end without `[DONE]`.
    NoDone,
    /// An error inside a 200 stream, which then ends.
    ErrorEvent(ErrorStrike),
    /// The dialect's other way to fail inside a 200 stream: `response.failed` of the Responses API.
    Failed(ErrorStrike),
    /// From here on only signs of life, until the other side goes away.
    PingOnly(PingStrike),
    /// One event whose data is not JSON; the stream goes on after it.
    MalformedJson(Strike),
    /// 200 with a page of HTML.
    WrongContentType,
    /// 200 with no body.
    EmptyBody,
    /// A response header of 100 KiB.
    OversizedHeaders,
}

/// When a fault occurs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Strike {
    /// After this many content chunks.
    pub after_chunks: usize,
    /// Not before the events that precede the content.
    pub after_head: bool,
}

/// When a stream falls silent but for signs of life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PingStrike {
    /// After this many content chunks.
    pub after_chunks: usize,
    /// Not before the events that precede the content.
    pub after_head: bool,
    /// Milliseconds between two of them; 0 counts as 100.
    pub every_ms: u64,
}

/// When an error event comes, and what it says.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ErrorStrike {
    /// After this many content chunks.
    pub after_chunks: usize,
    /// Not before the events that precede the content.
    pub after_head: bool,
    /// The event's data; the provider's own server error when left out.
    pub json: Option<Value>,
}

/// Writing a body in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// The size of each piece; 0 counts as 1.
    pub bytes: usize,
    /// Milliseconds between pieces. At 0 each piece is flushed, but the peer may read several at once.
    #[serde(default)]
    pub ms: u64,
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StatusCode>, D::Error> {
    let Some(code) = Option::<u16>::deserialize(deserializer)? else { return Ok(None) };
    match StatusCode::from_u16(code) {
        Ok(status) if (200..600).contains(&code) => Ok(Some(status)),
        _ => Err(D::Error::custom(format!("status: {code} is not between 200 and 599"))),
    }
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(HeaderName, HeaderValue)>, D::Error> {
    Vec::<(String, String)>::deserialize(deserializer)?
        .into_iter()
        .map(|(name, value)| {
            let valid = HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::try_from(value.as_str()).ok());
            valid.ok_or_else(|| D::Error::custom(format!("headers: {name:?}: {value:?} is not a valid header")))
        })
        .collect()
}

fn content_type<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ContentType, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(ContentType::Omit) };
    let value = HeaderValue::try_from(text.as_str());
    value
        .map(ContentType::Given)
        .map_err(|_| D::Error::custom(format!("content_type: {text:?} is not a valid header value")))
}

fn usage<'de, D: Deserializer<'de>>(deserializer: D) -> Result<UsageSpec, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(UsageSpec::Null),
        Value::String(text) if text == "omit" => Ok(UsageSpec::Omit),
        given @ Value::Object(_) => Ok(UsageSpec::Given(given)),
        other => Err(D::Error::custom(format!("usage: {other} is neither an object, null nor \"omit\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Behavior, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn faults_are_a_word_or_an_object() {
        assert_eq!(read(r#"{"fault":"no_done"}"#).unwrap().fault, Some(Fault::NoDone));
        let strike = read(r#"{"fault":{"reset_mid_stream":{"after_chunks":3}}}"#).unwrap();
        assert_eq!(strike.fault, Some(Fault::ResetMidStream(Strike { after_chunks: 3, after_head: false })));
        assert!(read(r#"{"fault":"reset"}"#).unwrap_err().contains("unknown variant `reset`"));
    }

    #[test]
    fn usage_tells_null_from_left_out() {
        assert_eq!(read("{}").unwrap().usage, UsageSpec::Counted);
        assert_eq!(read(r#"{"usage":null}"#).unwrap().usage, UsageSpec::Null);
        assert_eq!(read(r#"{"usage":"omit"}"#).unwrap().usage, UsageSpec::Omit);
        assert_eq!(read("{}").unwrap().content_type, ContentType::Own);
        assert_eq!(read(r#"{"content_type":null}"#).unwrap().content_type, ContentType::Omit);
        assert!(read(r#"{"usage":3}"#).unwrap_err().starts_with("usage: 3 is neither"));
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        assert!(read(r#"{"status":99}"#).unwrap_err().starts_with("status: 99 is not between"));
        assert!(read(r#"{"headers":[["a b","c"]]}"#).unwrap_err().starts_with("headers: \"a b\""));
        assert!(read(r#"{"contents":"x"}"#).unwrap_err().contains("unknown field `contents`"));
        assert!(read(r#"{"echo":"x"}"#).unwrap_err().starts_with("echo: \"x\" is neither"));
    }
}
