//! The dialect of an endpoint: its errors, the events that are no answer, and its headers.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::Value;

use crate::answer::{Ask, Stamp};
use crate::refusal::Refusal;
use crate::rerank::{self, Form};
use crate::sse::{Framing, Kind};
use crate::{anthropic, openai, responses};

/// The last event of a stream that fails, made for the number of events before it.
pub type LastWords = Box<dyn FnOnce(usize) -> Bytes + Send>;

/// What a provider speaks at an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's chat completions, and its other endpoints.
    OpenAi,
    /// OpenAI's Responses.
    Responses,
    /// Anthropic's Messages.
    Anthropic,
    /// A rerank service's.
    Rerank(Form),
}

impl Dialect {
    /// Returns the error document for a request that is refused.
    pub fn refusal(self, refusal: &Refusal, stamp: Stamp) -> Value {
        match self {
            Self::OpenAi | Self::Responses => openai::refusal(refusal),
            Self::Anthropic => anthropic::refusal(refusal, stamp),
            Self::Rerank(form) => rerank::error(form, &refusal.message),
        }
    }

    /// Returns the error document for a status, in the provider's wording.
    pub fn error_document(self, status: StatusCode, model: &str, stamp: Stamp) -> Value {
        match self {
            Self::OpenAi | Self::Responses => openai::error_document(status, model),
            Self::Anthropic => anthropic::error_document(status, model, stamp),
            Self::Rerank(form) => rerank::error(form, status.canonical_reason().unwrap_or("error")),
        }
    }

    /// Returns the error of a provider that fails in the middle.
    pub fn server_error(self, stamp: Stamp) -> Value {
        match self {
            Self::OpenAi | Self::Responses => openai::server_error(),
            Self::Anthropic => anthropic::overloaded(stamp),
            Self::Rerank(form) => rerank::error(form, "internal server error"),
        }
    }

    /// Returns the event with which a stream fails. `json` is its data, if a behavior gives it.
    pub fn error_event(self, json: Option<&Value>, framing: Framing, stamp: Stamp) -> LastWords {
        let json = json.cloned();
        let data = |error: Value| move |out: &mut Vec<u8>| out.extend_from_slice(error.to_string().as_bytes());
        if self == Self::Responses {
            return Box::new(move |sent| responses::error(json.as_ref(), framing, sent));
        }
        let name = if self == Self::Anthropic { "error" } else { "" };
        let error = json.unwrap_or_else(|| self.server_error(stamp));
        let event = match name {
            "" => framing.event(Kind::Tail, data(error)),
            name => framing.named(Kind::Tail, name, data(error)),
        };
        Box::new(move |_| event.bytes)
    }

    /// Returns the event with which a response fails, where that is another than an error's. `json` is its error, if a
    /// behavior gives it.
    pub fn failure(self, json: Option<&Value>, framing: Framing, stamp: Stamp, ask: &Ask) -> LastWords {
        match self {
            Self::Responses => Box::new(responses::failure(stamp, ask, json, framing)),
            _ => self.error_event(json, framing, stamp),
        }
    }

    /// Returns the document of a whole answer that fails with status 200. `json` is its error, if a behavior gives it.
    pub fn failed_document(self, json: Option<&Value>, stamp: Stamp, ask: &Ask) -> String {
        match self {
            Self::Responses => responses::failed(stamp, ask, json),
            _ => json.cloned().unwrap_or_else(|| self.server_error(stamp)).to_string(),
        }
    }

    /// Returns an event whose data is not JSON.
    pub fn malformed(self, framing: Framing) -> Bytes {
        let data = |text: &'static [u8]| move |out: &mut Vec<u8>| out.extend_from_slice(text);
        match self {
            Self::Responses => {
                let text = br#"{"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_sim","del"#;
                framing.named(Kind::Tail, "response.output_text.delta", data(text)).bytes
            }
            Self::OpenAi | Self::Rerank(_) => {
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
            Self::OpenAi | Self::Responses | Self::Rerank(_) => framing.comment().bytes,
            Self::Anthropic => anthropic::ping(framing, Kind::Ping).bytes,
        }
    }

    /// Returns the headers that every response of this dialect has.
    pub fn headers(self, stamp: Stamp) -> Vec<(HeaderName, HeaderValue)> {
        match self {
            Self::OpenAi | Self::Responses | Self::Rerank(_) => Vec::new(),
            Self::Anthropic => anthropic::headers(stamp),
        }
    }
}
