//! What the glue tells an exchange, and what it is to do in turn.

use crate::outcome::reply::Reply;
use crate::wire::header::HeaderLine;
use crate::wire::http_call::HttpCall;
use crate::wire::json::Span;

/// What the request's headers led to.
#[derive(Debug)]
pub enum OnRequestHead {
    /// Answer now.
    Reply(Reply),
    /// Read the whole body, then call [`Exchange::request_body`](super::Exchange::request_body).
    AwaitBody,
    /// Answer with [`Exchange::usage_reply`](super::Exchange::usage_reply).
    Usage,
}

/// What the whole request led to, or the answer to a call that it waited for.
#[derive(Debug)]
pub enum OnRequestBody {
    /// Send it on.
    Send(Box<Outgoing>),
    /// Answer now.
    Reply(Reply),
    /// Hold it, make this call, and tell [`Exchange::answered`](super::Exchange::answered) how it ended.
    Call(HttpCall),
    /// Hold it, and call [`Exchange::request_body`](super::Exchange::request_body) again once
    /// [`Exchange::is_awake`](super::Exchange::is_awake).
    Wait,
}

/// How the request goes upstream.
#[derive(Debug)]
pub struct Outgoing {
    /// Name of the plan cluster.
    pub cluster: String,
    /// The record for the model stage, if there is one.
    pub dispatch: Option<Vec<u8>>,
    /// Headers that tell Envoy's router about attempts and timers.
    pub headers: Vec<HeaderLine>,
    /// Length of the new body, in bytes.
    pub content_length: usize,
    /// How to make the new body.
    pub edit: BodyEdit,
}

/// An edit of the request body.
#[derive(Debug)]
pub enum BodyEdit {
    /// Replace this many bytes at the start.
    Prefix(usize, Vec<u8>),
    /// Replace everything: by these bytes, then these parts of the old body with commas between them, then this last part.
    Whole(Vec<u8>, Vec<Span>, Span),
}

/// What is known when a response's headers come.
#[derive(Debug, Default, Clone, Copy)]
pub struct ResponseHead<'a> {
    /// `:status`
    pub status: u16,
    /// `content-type`
    pub content_type: &'a [u8],
    /// `x-pointsman-model`, which the model stage has set; empty where Envoy answered itself.
    pub model: &'a [u8],
    /// `x-pointsman-attempts`, likewise.
    pub attempts: &'a [u8],
    /// The last attempt (its place in the plan, its number) by the model stage's record, where there are no such headers.
    pub last_attempt: Option<(usize, u32)>,
    /// Whether it has a `content-encoding`.
    pub is_encoded: bool,
    /// `content-length`; `None` where there is none.
    pub content_length: Option<u64>,
    /// `retry-after`; empty where there is none.
    pub retry_after: &'a [u8],
    /// Whether the response has no body.
    pub end_of_stream: bool,
    /// Envoy's `response.code_details`, which say why Envoy answered itself; needed only where the status is no success.
    pub details: &'a str,
}

/// What the response's headers led to.
#[derive(Debug)]
pub enum OnResponseHead {
    /// It is the module's own reply: leave it alone.
    Own,
    /// Send the headers with these set, and give every chunk to [`Exchange::stream_chunk`](super::Exchange::stream_chunk).
    Stream(Vec<HeaderLine>),
    /// Hold headers and body, then call [`Exchange::whole_body`](super::Exchange::whole_body).
    Hold,
    /// Answer this instead.
    Replace(Reply),
}

/// How a held response goes on.
#[derive(Debug)]
pub struct Whole {
    /// Headers to set.
    pub headers: Vec<HeaderLine>,
    /// The status and body to put in place of the provider's.
    pub replace: Option<(u16, Vec<u8>)>,
}
