//! The gateway stage: a downstream HTTP filter, once per request.

use crate::generation::Shared;
use crate::host::{self, Headers};
use crate::request_body;
use crate::response_headers::ResponseHeaders;
use crate::settlements;
use crate::shared_data::{Held, SharedLoad};
use pointsman_core::exchange::{
    BodyEdit, Exchange, OnRequestBody, OnRequestHead, OnResponseHead, Outgoing, ResponseHead,
};
use pointsman_core::outcome::reply::Reply;
use pointsman_core::request::head::{RequestHead, request_header_passes};
use pointsman_core::routing::attempt::{self, HOLD_LIMIT};
use pointsman_core::routing::dispatch::{
    STATE_AUDIT, STATE_DISPATCH, STATE_FAILED, STATE_SERVED, decode_served, last_failed_status, read_failed,
};
use pointsman_core::wire::header::HeaderLine;
use pointsman_core::wire::header::is_retry_after;
use pointsman_core::wire::http_call::HttpCallResult;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, BufferType, LogLevel, MapType};
use std::rc::Rc;

/// A copy of a response is kept up to this many bytes; the usage of a longer one is estimated.
const COPY_LIMIT: usize = 8 << 20;

/// One request.
pub struct Gateway {
    shared: Rc<Shared>,
    exchange: Exchange,
    phase: Phase,
    /// The request as it counts against the plan's first model.
    held: Option<Held>,
    /// The call that is waited for.
    call: Option<u32>,
    /// The request's headers as they came, until it is sent.
    headers: Option<Headers>,
    /// The response's, until the gateway's own have been added.
    response: Option<ResponseHeaders>,
    /// When the request was answered here, in milliseconds since the Unix epoch, if that is known.
    answered_ms: Option<u64>,
}

/// How far the exchange is, as Envoy's callbacks tell it.
enum Phase {
    /// The request is being read.
    Request,
    /// The request is whole, and is held until a call has been answered.
    Waiting,
    /// The request is whole, and is held while another one asks the same.
    InLine,
    /// The request went on, or was answered here: nothing more to do for its body.
    Sent,
    /// A stream passes chunk by chunk.
    Stream,
    /// The response is held until it is whole.
    Hold,
    /// The response was too long to hold and passes, while a copy is kept to read the usage from.
    Released(Vec<u8>),
    /// The response is too long even to keep a copy of; so many bytes of it have passed.
    Counted(usize),
    /// The response passes unread.
    Pass,
}

impl Gateway {
    /// A new request.
    pub fn new(shared: Rc<Shared>) -> Self {
        Self {
            shared,
            exchange: Exchange::new(host::now_ms()),
            phase: Phase::Request,
            held: None,
            call: None,
            headers: None,
            response: None,
            answered_ms: None,
        }
    }

    fn answer(&mut self, reply: &Reply) -> Action {
        self.phase = Phase::Pass;
        host::reply(reply.status, &reply.headers, &reply.body);
        Action::Pause
    }

    /// The whole request is here: decide, and send it on or answer it.
    fn dispatch(&mut self) -> Action {
        let body = host::buffer(BufferType::HttpRequestBody, 0, usize::MAX);
        let mut load = SharedLoad::default();
        let next = self.exchange.request_body(self.shared.policy(), &body, &mut load);
        self.proceed(next, &body, load)
    }

    /// Does what the exchange says of a request that is whole.
    fn proceed(&mut self, mut next: OnRequestBody, body: &[u8], mut load: SharedLoad) -> Action {
        loop {
            if load.held.is_some() {
                self.held = load.held.take();
            }
            match next {
                OnRequestBody::Send(outgoing) => return self.send(&outgoing, body),
                OnRequestBody::Reply(reply) => {
                    self.answered_ms = load.known_ms();
                    return self.answer(&reply);
                }
                OnRequestBody::Call(call) => {
                    self.call = host::call_with_id(&call);
                    if self.call.is_some() {
                        self.phase = Phase::Waiting;
                        return Action::Pause;
                    }
                    next = self.exchange.answered(self.shared.policy(), body, &mut load, &HttpCallResult::NOT_SENT);
                }
                OnRequestBody::Wait => {
                    self.phase = Phase::InLine;
                    return Action::Pause;
                }
            }
        }
    }

    /// Whether the request waits for another one.
    pub fn is_in_line(&self) -> bool {
        matches!(self.phase, Phase::InLine)
    }

    /// The call that the request waits for.
    pub fn take_call(&mut self) -> Option<u32> {
        self.call.take()
    }

    /// Looks whether the request need not wait for another one any longer, and lets it go on.
    pub fn look(&mut self) {
        self.call = None;
        let mut load = SharedLoad::default();
        if !self.is_in_line() || !self.exchange.is_awake(self.shared.policy(), &mut load, host::now_ms()) {
            return;
        }
        if self.dispatch() == Action::Continue {
            host::resume_request();
        }
    }

    fn send(&mut self, outgoing: &Outgoing, body: &[u8]) -> Action {
        let replaced = match &outgoing.edit {
            BodyEdit::Prefix(len, head) => host::replace_prefix(BufferType::HttpRequestBody, *len, head),
            BodyEdit::Whole(head, rest, closing) => request_body::replace(body, head, rest, closing),
        };
        if !replaced {
            return self.answer(&Reply::refusal(&pointsman_core::outcome::refusal::Refusal::Internal));
        }
        let map = MapType::HttpRequestHeaders;
        // Only now, because a request that is answered here need not lose any.
        let headers = self.headers.take();
        let mut passing = Vec::with_capacity(16);
        for header @ (name, _) in headers.iter().flat_map(Headers::iter) {
            match request_header_passes(name) {
                true => passing.push(header),
                false => host::remove_header(map, name),
            }
        }
        if let Some(record) = &outgoing.dispatch {
            host::set_state(STATE_DISPATCH, record);
        }
        // Whether a header is what it is to be already, and nothing besides.
        let has = |name: &str, value: &str| {
            let mut lines = passing.iter().filter(|(other, _)| *other == name.as_bytes());
            lines.next().is_some_and(|(_, said)| *said == value.as_bytes()) && lines.next().is_none()
        };
        let length = outgoing.content_length.to_string();
        let own =
            [("content-length", &*length), ("user-agent", "pointsman"), ("x-pointsman-cluster", &outgoing.cluster)];
        for (name, value) in own.into_iter().chain(outgoing.headers.iter().map(|(name, value)| (*name, &**value))) {
            match request_header_passes(name.as_bytes()) {
                true if has(name, value) => {}
                true => host::set_header(map, name, value),
                // What does not pass has been removed already.
                false => host::add_header(map, name, value),
            }
        }
        self.phase = Phase::Sent;
        Action::Continue
    }

    /// More of a response that is too long to copy has passed.
    fn count_rest(&mut self, size: usize, end_of_stream: bool) -> Action {
        if let Phase::Counted(bytes) = &mut self.phase {
            *bytes += size;
            if end_of_stream {
                self.exchange.whole_uncopied(*bytes, true);
                self.phase = Phase::Pass;
                self.keep();
            }
        }
        Action::Continue
    }

    /// Gives the response the gateway's own headers.
    fn give_headers(&mut self, own: &[HeaderLine]) {
        if let Some(headers) = self.response.take() {
            headers.give(own);
        }
    }

    fn release(&mut self) {
        if let Some(held) = self.held.take() {
            held.release();
        }
    }

    /// The answer has ended: keeps it, if it is one to keep.
    fn keep(&mut self) {
        if self.exchange.keeps() {
            let call = self.exchange.keep(self.shared.policy(), &mut SharedLoad::default(), host::now_ms());
            call.and_then(|call| host::call_with_id(&call));
        }
    }

    fn whole_response(&mut self) -> Action {
        let body = host::buffer(BufferType::HttpResponseBody, 0, usize::MAX);
        let whole = self.exchange.whole_body(self.shared.policy(), &body);
        self.keep();
        self.phase = Phase::Pass;
        self.give_headers(&whole.headers);
        if let Some((status, text)) = whole.replace {
            host::replace_prefix(BufferType::HttpResponseBody, body.len(), &text);
            host::set_header(MapType::HttpResponseHeaders, ":status", &status.to_string());
            host::set_header(MapType::HttpResponseHeaders, "content-length", &text.len().to_string());
        }
        Action::Continue
    }
}

/// The attempt that the model stage recorded last: its place in the plan, and its number.
fn last_attempt() -> Option<(usize, u32)> {
    host::property(STATE_SERVED).and_then(|state| decode_served(&state))
}

/// Trailers name the caller or the provider as headers can, and no chat needs them.
fn remove_all(map: MapType) {
    for (name, _) in Headers::of(map).iter() {
        host::remove_header(map, name);
    }
}

const RESPONSE_CODE: &str = "response\0code";
const CODE_DETAILS: &str = "response\0code_details";

impl Context for Gateway {
    fn on_http_call_response(&mut self, _: u32, _: usize, size: usize, _: usize) {
        // The end of a call that nobody waits for is none of this request's business.
        if !matches!(self.phase, Phase::Waiting) {
            return;
        }
        self.call = None;
        let status = Headers::of(MapType::HttpCallResponseHeaders).status();
        let answer = host::buffer(BufferType::HttpCallResponseBody, 0, size);
        let body = host::buffer(BufferType::HttpRequestBody, 0, usize::MAX);
        let mut load = SharedLoad::default();
        let answered = HttpCallResult { status, body: &answer };
        let next = self.exchange.answered(self.shared.policy(), &body, &mut load, &answered);
        if self.proceed(next, &body, load) == Action::Continue {
            host::resume_request();
        }
    }
}

impl HttpContext for Gateway {
    fn on_http_request_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        let headers = Headers::of(MapType::HttpRequestHeaders);
        let head = RequestHead::read(self.shared.policy(), headers.iter());
        let next = self.exchange.request_head(self.shared.policy(), &head);
        self.headers = Some(headers);
        match next {
            OnRequestHead::Reply(reply) => self.answer(&reply),
            OnRequestHead::Usage => {
                let mut load = SharedLoad::default();
                let next = self.exchange.usage_reply(self.shared.policy(), &mut load);
                self.proceed(next, &[], load)
            }
            OnRequestHead::AwaitBody => {
                if end_of_stream {
                    self.dispatch()
                } else {
                    Action::Pause
                }
            }
        }
    }

    fn on_http_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match self.phase {
            Phase::Request => {}
            // It does not go on before it has been decided that it may, whatever body a request without one has.
            Phase::Waiting | Phase::InLine | Phase::Pass => return Action::Pause,
            _ => return Action::Continue,
        }
        if let Some(reply) = self.exchange.request_body_size(self.shared.policy(), size) {
            return self.answer(&reply);
        }
        if end_of_stream { self.dispatch() } else { Action::Pause }
    }

    fn on_http_request_trailers(&mut self, _: usize) -> Action {
        remove_all(MapType::HttpRequestTrailers);
        // HTTP/2 trailers end the body without end_of_stream in the body callback.
        match self.phase {
            Phase::Request => self.dispatch(),
            Phase::Waiting | Phase::InLine | Phase::Pass => Action::Pause,
            _ => Action::Continue,
        }
    }

    fn on_http_response_headers(&mut self, _: usize, end_of_stream: bool) -> Action {
        if matches!(self.phase, Phase::Pass | Phase::Request | Phase::Waiting | Phase::InLine) {
            return Action::Continue;
        }
        let headers = Headers::of(MapType::HttpResponseHeaders);
        let mut head = ResponseHead { end_of_stream, ..ResponseHead::default() };
        for (name, value) in headers.iter() {
            match name {
                b":status" => head.status = Some(host::status_of(value)).filter(|status| *status > 0).unwrap_or(502),
                b"content-type" => head.content_type = value,
                b"content-length" => head.content_length = std::str::from_utf8(value).ok().and_then(|n| n.parse().ok()),
                b"retry-after" if is_retry_after(value) => head.retry_after = value,
                b"content-encoding" => head.is_encoded = attempt::is_encoding(value),
                b"x-pointsman-model" => head.model = value,
                b"x-pointsman-attempts" => head.attempts = value,
                _ => {}
            }
        }
        let mut details = match head.status {
            200..300 => Vec::new(),
            _ => host::property(CODE_DETAILS).unwrap_or_default(),
        };
        // No model that is left is healthy: what the last attempt failed with says more.
        if details.starts_with(b"no_healthy_upstream")
            && let Some(status) = host::property(STATE_FAILED).and_then(|failed| last_failed_status(&failed))
        {
            head.status = status;
            details.clear();
        }
        head.details = std::str::from_utf8(&details).unwrap_or_default();
        if head.model.is_empty() && !self.exchange.is_direct() {
            head.last_attempt = last_attempt();
        }
        let verdict = self.exchange.response_head(self.shared.policy(), &head);
        let made = match self.exchange.is_hedged(self.shared.policy()) {
            true => self.exchange.overtaken(last_attempt()),
            false => None,
        };
        // Another model serves: this request is off the first one's hands.
        if self.exchange.is_fallback() {
            self.release();
        }
        if matches!(verdict, OnResponseHead::Own) {
            self.phase = Phase::Pass;
            return Action::Continue;
        }
        let mut headers = ResponseHeaders::new(headers, self.exchange.is_direct());
        headers.remove_foreign();
        if let Some((name, value)) = &made {
            headers.change(name, value);
        }
        match verdict {
            OnResponseHead::Own => {}
            OnResponseHead::Stream(own) => {
                headers.give(&own);
                // Events may be taken out, so the provider's length, if it gave one, need not hold.
                host::remove_header(MapType::HttpResponseHeaders, b"content-length");
                self.phase = Phase::Stream;
            }
            OnResponseHead::Hold => {
                self.phase = Phase::Hold;
                self.response = Some(headers);
                return if end_of_stream { self.whole_response() } else { Action::Pause };
            }
            OnResponseHead::Replace(reply) => return self.answer(&reply),
        }
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match &mut self.phase {
            Phase::Stream => {
                let chunk = if size > 0 { host::buffer(BufferType::HttpResponseBody, 0, size) } else { Vec::new() };
                if let Some(replacement) = self.exchange.stream_chunk(&chunk, end_of_stream, host::now_ms) {
                    host::replace_prefix(BufferType::HttpResponseBody, size, &replacement);
                }
                // Many callers leave as soon as they have the end marker, before the body's end has come.
                if end_of_stream || self.exchange.is_done() {
                    self.keep();
                }
                Action::Continue
            }
            Phase::Hold if end_of_stream => self.whole_response(),
            Phase::Hold if size > HOLD_LIMIT => {
                let held = host::buffer(BufferType::HttpResponseBody, 0, size);
                match self.exchange.release(self.shared.policy(), &held) {
                    Ok(own) => self.give_headers(&own),
                    Err(reply) => return self.answer(&reply),
                }
                self.phase = Phase::Released(held);
                Action::Continue
            }
            Phase::Hold => Action::Pause,
            Phase::Released(copy) if copy.len() + size > COPY_LIMIT => {
                self.phase = Phase::Counted(copy.len() + size);
                self.count_rest(0, end_of_stream)
            }
            Phase::Released(copy) => {
                copy.extend(host::buffer(BufferType::HttpResponseBody, 0, size));
                if end_of_stream {
                    self.exchange.passed_body(copy);
                    self.phase = Phase::Pass;
                    self.keep();
                }
                Action::Continue
            }
            Phase::Counted(_) => self.count_rest(size, end_of_stream),
            Phase::Request | Phase::Waiting | Phase::InLine | Phase::Sent | Phase::Pass => Action::Continue,
        }
    }

    fn on_http_response_trailers(&mut self, _: usize) -> Action {
        remove_all(MapType::HttpResponseTrailers);
        match &mut self.phase {
            Phase::Hold => return self.whole_response(),
            Phase::Released(copy) => self.exchange.passed_body(copy),
            Phase::Counted(bytes) => self.exchange.whole_uncopied(*bytes, true),
            // Its last chunk has gone. What it lacks to be whole, or to say that it is not, cannot be sent any more.
            Phase::Stream => {
                if self.exchange.ends_short(host::now_ms) {
                    self.keep();
                    self.phase = Phase::Pass;
                    host::reset_response();
                    // Envoy must not go on with a stream that is no more.
                    return Action::Pause;
                }
            }
            Phase::Request | Phase::Waiting | Phase::InLine | Phase::Sent | Phase::Pass => return Action::Continue,
        }
        self.keep();
        self.phase = Phase::Pass;
        Action::Continue
    }

    fn on_log(&mut self) {
        // Of an answer that broke off, what has passed is known.
        match &self.phase {
            Phase::Released(copy) => self.exchange.whole_cut(copy),
            Phase::Counted(bytes) => self.exchange.whole_uncopied(*bytes, false),
            _ => {}
        }
        self.release();
        if self.exchange.is_in_flight() {
            self.exchange.leave(&mut SharedLoad::default(), host::now_ms());
        }
        if self.exchange.is_cut_off() {
            let details = host::property(CODE_DETAILS).unwrap_or_default();
            let status = host::property(RESPONSE_CODE).and_then(|code| code.first_chunk::<8>().copied());
            let status = status.and_then(|code| u16::try_from(i64::from_le_bytes(code)).ok()).unwrap_or(0);
            self.exchange.cut_off(std::str::from_utf8(&details).unwrap_or_default(), status, last_attempt());
        }
        let now = self.answered_ms.unwrap_or_else(host::now_ms);
        let policy = self.shared.policy();
        if self.exchange.has_reserved() {
            let (lines, remote) = self.exchange.settle(policy, &mut SharedLoad::at(now));
            lines.iter().for_each(|line| host::log(LogLevel::Warn, line));
            if let Some(unsettled) = remote {
                settlements::keep(Rc::clone(&self.shared), unsettled);
            }
        }
        let failed = match self.exchange.has_failed_attempts() {
            true => host::property(STATE_FAILED).unwrap_or_default(),
            false => Vec::new(),
        };
        let failed = read_failed(&failed);
        host::set_state(STATE_AUDIT, &self.exchange.audit(policy, &failed, now));
        self.shared.count_request(self.exchange.metrics(policy, &failed, now), now);
    }
}
