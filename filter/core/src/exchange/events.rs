//! What the glue tells an exchange, and what the exchange tells it to do.

use crate::outcome::outcome::Outcome;
use crate::outcome::reply::Reply;
use crate::quota::redis::settlement::Unsettled;
use crate::routing::begun::Begun;
use crate::telemetry::metrics::Metric;
use crate::wire::header::HeaderLine;
use crate::wire::http_call::HttpCall;
use crate::wire::json::Span;
use std::borrow::Cow;

/// What to do with a request.
#[derive(Debug)]
pub enum RequestStep {
    /// Read the whole body, then call [`Exchange::on_request`](super::Exchange::on_request).
    AwaitBody,
    /// Send it on.
    Send(Box<Outgoing>),
    /// Answer now.
    Reply(Reply),
    /// Hold it, make this call, and pass the result to [`Exchange::on_call_result`](super::Exchange::on_call_result).
    Call(HttpCall),
    /// Hold it, and call [`Exchange::on_request`](super::Exchange::on_request) again once
    /// [`Exchange::is_awake`](super::Exchange::is_awake).
    Park,
}

/// How the request goes upstream.
#[derive(Debug)]
pub struct Outgoing {
    /// Name of the plan's cluster.
    pub cluster: String,
    /// The record for the model stage, if there is one.
    pub dispatch: Option<Vec<u8>>,
    /// Headers that tell Envoy's router about attempts and timeouts.
    pub headers: Vec<HeaderLine>,
    /// Length of the new body, in bytes.
    pub content_length: usize,
    /// How to build the new body.
    pub edit: BodyEdit,
}

/// An edit of the request body.
#[derive(Debug)]
pub enum BodyEdit {
    /// Replace this many bytes at the start.
    Prefix(usize, Vec<u8>),
    /// Replace everything: these bytes, then these parts of the old body joined by commas, then this last part.
    Whole(Vec<u8>, Vec<Span>, Span),
}

/// What is known when a response's headers arrive.
#[derive(Debug, Default, Clone, Copy)]
pub struct ResponseHead<'a> {
    /// `:status`
    pub status: u16,
    /// `content-type`
    pub content_type: &'a [u8],
    /// `x-pointsman-model`, which the model stage sets; empty where Envoy answered itself.
    pub model: &'a [u8],
    /// `x-pointsman-attempts`, likewise.
    pub attempts: &'a [u8],
    /// The last attempt (place in the plan, number) from the model stage's record, where those headers are missing.
    pub last_attempt: Option<(usize, u32)>,
    /// Whether it has a `content-encoding`.
    pub is_encoded: bool,
    /// `content-length`, if present.
    pub content_length: Option<u64>,
    /// `retry-after`; empty if absent.
    pub retry_after: &'a [u8],
    /// `retry-after-ms`; empty if absent.
    pub retry_after_ms: &'a [u8],
    /// How the last attempt failed, if the model stage recorded it; needed only if the status is not a success.
    pub last_failure: Option<Outcome>,
    /// Whether the response has no body.
    pub end_of_stream: bool,
    /// Envoy's `response.code_details`, which say why Envoy answered itself; needed only if the status is not a
    /// success.
    pub details: &'a str,
}

/// What the host knows about an exchange's attempts and its end. Each method is a host call, so call it only when
/// needed.
pub trait Observer {
    /// Envoy's `response.code_details`, which say why Envoy answered itself; empty if absent.
    fn code_details(&self) -> String;
    /// Status the caller got; 0 if none.
    fn response_code(&self) -> u16;
    /// The last attempt the model stage recorded: place in the plan, number.
    fn last_attempt(&self) -> Option<(usize, u32)>;
    /// The failed attempts the model stage recorded, by place in the plan.
    fn failed_attempts(&self) -> Vec<(usize, Outcome)>;
    /// All attempts the model stage recorded.
    fn attempts(&self) -> Vec<Begun>;
    /// Whether the request, or its last attempt, has a connection to the provider.
    fn has_connection(&self) -> bool;
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// How the last attempt failed, if the model stage recorded it.
    fn last_failure(&self) -> Option<Outcome> {
        self.failed_attempts().last().map(|(_, outcome)| *outcome)
    }
}

/// What to do after the response's headers, and what became known with them.
#[derive(Debug)]
pub struct ResponseStep {
    /// What to do.
    pub next: OnResponseHead,
    /// The header with the number of attempts, where it replaces the model stage's.
    pub attempts: Option<HeaderLine>,
    /// Whether another model serves, so the request no longer counts against the plan's first one.
    pub leaves_first_model: bool,
    /// Whether the request bypassed the model stage.
    pub skips_model_stage: bool,
}

/// A part of a response's body.
#[derive(Clone, Copy)]
pub struct BodyPart<'a> {
    /// Bytes held or passing.
    pub size: usize,
    /// Whether it is the last one.
    pub end_of_stream: bool,
    /// Reads up to this many bytes of it.
    pub read: &'a dyn Fn(usize) -> Vec<u8>,
    /// Milliseconds since the Unix epoch.
    pub now_ms: &'a dyn Fn() -> u64,
}

/// What to do after a part of a response's body.
#[derive(Debug)]
pub struct BodyStep {
    /// What to do.
    pub next: OnResponseBody,
    /// A call to make; nothing waits for its end.
    pub call: Option<HttpCall>,
    /// Whether nothing that counts can follow, although the response may not have ended: its places are free.
    pub is_over: bool,
}

impl BodyStep {
    /// Nothing to do.
    pub const PASS: Self = Self { next: OnResponseBody::Pass, call: None, is_over: false };
}

impl From<OnResponseBody> for BodyStep {
    fn from(next: OnResponseBody) -> Self {
        Self { next, call: None, is_over: false }
    }
}

/// What to do with a response's body.
#[derive(Debug)]
pub enum OnResponseBody {
    /// Pass it unchanged.
    Pass,
    /// Hold it.
    Hold,
    /// Hold the response, without this part of its body: it has been read.
    Drop(Option<Cow<'static, str>>),
    /// Replace the part with these bytes.
    Replace(Vec<u8>),
    /// Set these headers, and release what was held.
    Release(Vec<HeaderLine>),
    /// The held response, of this many bytes, is whole.
    Complete(Whole, usize),
    /// Answer this instead.
    Reply(Reply),
    /// Reset the response: the receiver lacks something that can no longer be sent.
    Reset,
}

/// What remains of an exchange when it is over.
#[derive(Debug)]
pub struct Finished {
    /// The audit record, a line of JSON.
    pub audit: Vec<u8>,
    /// What to count.
    pub metrics: Vec<(Metric, u64)>,
    /// What to log.
    pub log_lines: Vec<String>,
    /// What Redis must be told.
    pub settlement: Option<Unsettled>,
    /// When it ended, in milliseconds since the Unix epoch.
    pub ended_ms: u64,
}

/// What to do after the response's headers.
#[derive(Debug)]
pub enum OnResponseHead {
    /// It is the module's own reply: leave it alone.
    Own,
    /// Send the headers with these set, and pass every chunk to
    /// [`Exchange::stream_chunk`](super::Exchange::stream_chunk).
    Stream(Vec<HeaderLine>),
    /// Hold headers and body, then call [`Exchange::on_full_body`](super::Exchange::on_full_body).
    Hold,
    /// Answer this instead.
    Replace(Reply),
}

/// How a held response proceeds.
#[derive(Debug)]
pub struct Whole {
    /// Headers to set.
    pub headers: Vec<HeaderLine>,
    /// The status and body that replace the provider's.
    pub replace: Option<(u16, Vec<u8>)>,
}
