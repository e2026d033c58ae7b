//! What the glue tells an exchange, and what it is to do in turn.

use crate::outcome::outcome::Outcome;
use crate::outcome::reply::Reply;
use crate::quota::redis::settlement::Unsettled;
use crate::telemetry::metrics::Metric;
use crate::wire::header::HeaderLine;
use crate::wire::http_call::HttpCall;
use crate::wire::json::Span;

/// What a request led to.
#[derive(Debug)]
pub enum RequestStep {
    /// Read the whole body, then call [`Exchange::on_request`](super::Exchange::on_request).
    AwaitBody,
    /// Send it on.
    Send(Box<Outgoing>),
    /// Answer now.
    Reply(Reply),
    /// Hold it, make this call, and tell [`Exchange::on_call_result`](super::Exchange::on_call_result) how it ended.
    Call(HttpCall),
    /// Hold it, and call [`Exchange::on_request`](super::Exchange::on_request) again once
    /// [`Exchange::is_awake`](super::Exchange::is_awake).
    Park,
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

/// What the host knows of an exchange's attempts and of its end. It is asked only where that matters, because each answer
/// costs.
pub trait Observer {
    /// Envoy's `response.code_details`, which say why Envoy answered itself; empty where there are none.
    fn code_details(&self) -> String;
    /// The status that the caller got; 0 where it got none.
    fn response_code(&self) -> u16;
    /// The attempt that the model stage recorded last: its place in the plan, and its number.
    fn last_attempt(&self) -> Option<(usize, u32)>;
    /// The failed attempts that the model stage recorded, by their places in the plan.
    fn failed_attempts(&self) -> Vec<(usize, Outcome)>;

    /// The status with which the last attempt failed, if it was its provider's.
    fn last_failed_status(&self) -> Option<u16> {
        match self.failed_attempts().last()?.1 {
            Outcome::Status(status) => Some(status),
            _ => None,
        }
    }
}

/// What the response's headers led to, and what else has become known with them.
#[derive(Debug)]
pub struct ResponseStep {
    /// What to do.
    pub next: OnResponseHead,
    /// The header with the number of attempts, where the model stage's is to be replaced.
    pub attempts: Option<HeaderLine>,
    /// Whether another model serves, so that the request counts against the plan's first one no longer.
    pub leaves_first_model: bool,
    /// Whether the request went without a model stage.
    pub is_direct: bool,
}

/// A part of a response's body.
#[derive(Clone, Copy)]
pub struct BodyPart<'a> {
    /// Bytes that are held, or pass.
    pub size: usize,
    /// Whether it is the last one.
    pub end_of_stream: bool,
    /// Reads at most so many bytes of it.
    pub read: &'a dyn Fn(usize) -> Vec<u8>,
    /// Milliseconds since the Unix epoch.
    pub now_ms: &'a dyn Fn() -> u64,
}

/// What a part of a response's body led to.
#[derive(Debug)]
pub struct BodyStep {
    /// What to do.
    pub next: OnResponseBody,
    /// A call to make. Nothing waits for its end.
    pub call: Option<HttpCall>,
}

impl BodyStep {
    /// Nothing to do.
    pub const PASS: Self = Self { next: OnResponseBody::Pass, call: None };
}

impl From<OnResponseBody> for BodyStep {
    fn from(next: OnResponseBody) -> Self {
        Self { next, call: None }
    }
}

/// What to do with a response's body.
#[derive(Debug)]
pub enum OnResponseBody {
    /// Let it pass as it is.
    Pass,
    /// Hold it.
    Hold,
    /// Put these bytes in place of the part.
    Replace(Vec<u8>),
    /// Give the headers these lines, and let what was held pass.
    Release(Vec<HeaderLine>),
    /// What was held, so many bytes, is whole.
    Complete(Whole, usize),
    /// Answer this instead.
    Reply(Reply),
    /// Break the response off: its receiver lacks something that cannot be sent any more.
    Reset,
}

/// What is left of an exchange when it is over.
#[derive(Debug)]
pub struct Finished {
    /// The audit record, a line of JSON.
    pub audit: Vec<u8>,
    /// What to count.
    pub metrics: Vec<(Metric, u64)>,
    /// What to log.
    pub log_lines: Vec<String>,
    /// What Redis has to be told.
    pub settlement: Option<Unsettled>,
    /// When it ended, in milliseconds since the Unix epoch.
    pub ended_ms: u64,
}

/// What the response's headers led to.
#[derive(Debug)]
pub enum OnResponseHead {
    /// It is the module's own reply: leave it alone.
    Own,
    /// Send the headers with these set, and give every chunk to [`Exchange::stream_chunk`](super::Exchange::stream_chunk).
    Stream(Vec<HeaderLine>),
    /// Hold headers and body, then call [`Exchange::on_full_body`](super::Exchange::on_full_body).
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
