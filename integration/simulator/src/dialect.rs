//! The dialect of an endpoint: its errors, the events that are no answer, and its headers.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::answer::Stamp;
use crate::refusal::Refusal;
use crate::sse::{Framing, Kind};
use crate::{anthropic, openai};

/// What a provider speaks at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat completions, and its other endpoints.
    OpenAi,
    /// Anthropic's Messages.
    Anthropic,
}

impl Dialect {
    /// Returns the error document for a request that is refused.
    pub fn refusal(self, refusal: &Refusal, stamp: Stamp) -> Value {
        match self {
            Self::OpenAi => openai::refusal(refusal),
            Self::Anthropic => anthropic::refusal(refusal, stamp),
        }
    }

    /// Returns the error document for a status, in the provider's wording.
    pub fn error_document(self, status: StatusCode, model: &str, stamp: Stamp) -> Value {
        match self {
            Self::OpenAi => openai::error_document(status, model),
            Self::Anthropic => anthropic::error_document(status, model, stamp),
        }
    }

    /// Returns the error of a provider that fails in the middle.
    pub fn server_error(self, stamp: Stamp) -> Value {
        match self {
            Self::OpenAi => openai::server_error(),
            Self::Anthropic => anthropic::overloaded(stamp),
        }
    }

    /// Returns the event with which a stream fails after `sent` events. `json` is its data, if a behavior gives it.
    pub fn error_event(self, json: Option<Value>, framing: Framing, stamp: Stamp, _sent: usize) -> Bytes {
        let data = |error: Value| move |out: &mut Vec<u8>| out.extend_from_slice(error.to_string().as_bytes());
        let error = json.unwrap_or_else(|| self.server_error(stamp));
        match self {
            Self::OpenAi => framing.event(Kind::Tail, data(error)).bytes,
            Self::Anthropic => framing.named(Kind::Tail, "error", data(error)).bytes,
        }
    }

    /// Returns an event whose data is not JSON.
    pub fn malformed(self, framing: Framing) -> Bytes {
        let data = |text: &'static [u8]| move |out: &mut Vec<u8>| out.extend_from_slice(text);
        match self {
            Self::OpenAi => {
                let text =
                    br#"{"id":"chatcmpl-sim","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"con"#;
                framing.event(Kind::Tail, data(text)).bytes
            }
            Self::Anthropic => {
                let text = br#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","te"#;
                framing.named(Kind::Tail, "content_block_delta", data(text)).bytes
            }
        }
    }

    /// Returns a sign of life.
    pub fn ping(self, framing: Framing) -> Bytes {
        match self {
            Self::OpenAi => framing.comment().bytes,
            Self::Anthropic => anthropic::ping(framing, Kind::Ping).bytes,
        }
    }

    /// Returns the headers that every response of this dialect has.
    pub fn headers(self, stamp: Stamp) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::OpenAi => Vec::new(),
            Self::Anthropic => anthropic::headers(stamp),
        }
    }
}
