//! The gateway stage: a downstream HTTP filter, once per request.

use crate::generation::PolicyGeneration;
use crate::host::{Action, Buffer, CallId, HeaderMap as _, Host, LogLevel, Map, Property, status_of};
use crate::request_body;
use crate::response_headers::ResponseHeaders;
use crate::shared_data::{HostStore, InFlightGuard};
use crate::stage::Stage;
use crate::worker::Worker;
use pointsman_core::exchange::{
    BodyEdit, Exchange, OnRequestBody, OnRequestHead, OnResponseHead, Outgoing, ResponseHead,
};
use pointsman_core::outcome::refusal::Refusal;
use pointsman_core::outcome::reply::Reply;
use pointsman_core::request::head::{RequestHead, request_header_passes};
use pointsman_core::routing::attempt::{self, HOLD_LIMIT};
use pointsman_core::routing::dispatch::{
    STATE_AUDIT, STATE_DISPATCH, STATE_FAILED, STATE_SERVED, decode_served, last_failed_status, read_failed,
};
use pointsman_core::wire::header::{HeaderLine, is_retry_after};
use pointsman_core::wire::http_call::HttpCallResult;
use std::rc::Rc;

/// A copy of a response is kept up to this many bytes; the usage of a longer one is estimated.
const COPY_LIMIT: usize = 8 << 20;

/// One request.
pub struct GatewayStage<H: Host> {
    generation: Rc<PolicyGeneration<H>>,
    exchange: Exchange,
    phase: Phase,
    /// The request as it counts against the plan's first model.
    in_flight: Option<InFlightGuard>,
    /// The call that is waited for.
    call: Option<u32>,
    /// The request's headers as they came, until it is sent.
    headers: Option<H::Headers>,
    /// The response's, until the gateway's own have been added.
    response: Option<ResponseHeaders<H::Headers>>,
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
    Coalesced,
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

impl<H: Host> GatewayStage<H> {
    /// A new request.
    pub fn new(generation: Rc<PolicyGeneration<H>>) -> Self {
        Self {
            exchange: Exchange::new(generation.host().now_ms()),
            generation,
            phase: Phase::Request,
            in_flight: None,
            call: None,
            headers: None,
            response: None,
            answered_ms: None,
        }
    }

    fn host(&self) -> &H {
        self.generation.host()
    }

    /// The worker that serves it.
    pub(crate) fn worker(&self) -> &Rc<Worker<H>> {
        self.generation.worker()
    }

    fn store(&self) -> HostStore<H> {
        HostStore::new(self.generation.worker())
    }

    fn answer(&mut self, reply: &Reply) -> Action {
        self.phase = Phase::Pass;
        self.host().reply(reply);
        Action::Pause
    }

    /// The whole request is here: decide, and send it on or answer it.
    fn dispatch(&mut self) -> Action {
        let body = self.host().buffer(Buffer::RequestBody, usize::MAX);
        let mut store = self.store();
        let next = self.generation.serve(|context| self.exchange.request_body(context, &body, &mut store));
        self.proceed(next, &body, store)
    }

    /// Does what the exchange says of a request that is whole.
    fn proceed(&mut self, mut next: OnRequestBody, body: &[u8], mut store: HostStore<H>) -> Action {
        loop {
            if store.in_flight.is_some() {
                self.in_flight = store.in_flight.take();
            }
            match next {
                OnRequestBody::Send(outgoing) => return self.send(&outgoing, body),
                OnRequestBody::Reply(reply) => {
                    self.answered_ms = store.cached_now_ms();
                    return self.answer(&reply);
                }
                OnRequestBody::Call(call) => {
                    self.call = self.host().call(&call);
                    if self.call.is_some() {
                        self.phase = Phase::Waiting;
                        return Action::Pause;
                    }
                    let not_sent = &HttpCallResult::NOT_SENT;
                    next = self.generation.serve(|context| self.exchange.answered(context, body, &mut store, not_sent));
                }
                OnRequestBody::Wait => {
                    self.phase = Phase::Coalesced;
                    return Action::Pause;
                }
            }
        }
    }

    /// Whether the request waits for another one.
    pub fn is_coalesced(&self) -> bool {
        matches!(self.phase, Phase::Coalesced)
    }

    /// The call that the request waits for.
    pub fn take_call(&mut self) -> Option<u32> {
        self.call.take()
    }

    /// Looks whether the request need not wait for another one any longer, and lets it go on.
    pub fn look(&mut self) {
        self.call = None;
        let mut store = self.store();
        if !self.is_coalesced() || !self.exchange.is_awake(self.generation.policy(), &mut store, self.host().now_ms()) {
            return;
        }
        if self.dispatch() == Action::Continue {
            self.host().resume_request();
        }
    }

    fn send(&mut self, outgoing: &Outgoing, body: &[u8]) -> Action {
        let replaced = match &outgoing.edit {
            BodyEdit::Prefix(len, head) => self.host().replace_prefix(Buffer::RequestBody, *len, head),
            BodyEdit::Whole(head, rest, closing) => request_body::replace(self.host(), body, head, rest, closing),
        };
        if !replaced {
            return self.answer(&Reply::refusal(&Refusal::Internal));
        }
        let map = Map::RequestHeaders;
        // Only now, because a request that is answered here need not lose any.
        let headers = self.headers.take();
        let mut passing = Vec::with_capacity(16);
        for header @ (name, _) in headers.iter().flat_map(|headers| headers.iter()) {
            match request_header_passes(name) {
                true => passing.push(header),
                false => self.host().remove_header(map, name),
            }
        }
        if let Some(record) = &outgoing.dispatch {
            self.host().set_state(STATE_DISPATCH, record);
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
                true => self.host().set_header(map, name, value),
                // What does not pass has been removed already.
                false => self.host().add_header(map, name, value),
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
            headers.give(self.host(), own);
        }
    }

    fn release(&mut self) {
        if let Some(held) = self.in_flight.take() {
            held.release(self.generation.worker());
        }
    }

    /// The answer has ended: keeps it, if it is one to keep.
    fn keep(&mut self) {
        if self.exchange.keeps() {
            let (mut store, now) = (self.store(), self.host().now_ms());
            let call = self.generation.serve(|context| self.exchange.keep(context, &mut store, now));
            call.and_then(|call| self.host().call(&call));
        }
    }

    fn whole_response(&mut self) -> Action {
        let body = self.host().buffer(Buffer::ResponseBody, usize::MAX);
        let whole = self.exchange.whole_body(self.generation.policy(), &body);
        self.keep();
        self.phase = Phase::Pass;
        self.give_headers(&whole.headers);
        if let Some((status, text)) = whole.replace {
            self.host().replace_prefix(Buffer::ResponseBody, body.len(), &text);
            self.host().set_header(Map::ResponseHeaders, ":status", &status.to_string());
            self.host().set_header(Map::ResponseHeaders, "content-length", &text.len().to_string());
        }
        Action::Continue
    }

    /// The attempt that the model stage recorded last: its place in the plan, and its number.
    fn last_attempt(&self) -> Option<(usize, u32)> {
        self.host().state(STATE_SERVED).and_then(|state| decode_served(&state))
    }

    /// Trailers name the caller or the provider as headers can, and no chat needs them.
    fn remove_all(&self, map: Map) {
        for (name, _) in self.host().headers(map).iter() {
            self.host().remove_header(map, name);
        }
    }
}

impl<H: Host> Stage for GatewayStage<H> {
    fn on_call_end(&mut self, _: CallId, size: usize) {
        // The end of a call that nobody waits for is none of this request's business.
        if !matches!(self.phase, Phase::Waiting) {
            return;
        }
        self.call = None;
        let status = self.host().headers(Map::CallHeaders).status();
        let answer = self.host().buffer(Buffer::CallBody, size);
        let body = self.host().buffer(Buffer::RequestBody, usize::MAX);
        let mut store = self.store();
        let answered = HttpCallResult { status, body: &answer };
        let next = self.generation.serve(|context| self.exchange.answered(context, &body, &mut store, &answered));
        if self.proceed(next, &body, store) == Action::Continue {
            self.host().resume_request();
        }
    }

    fn on_request_headers(&mut self, end_of_stream: bool) -> Action {
        let headers = self.host().headers(Map::RequestHeaders);
        let head = RequestHead::read(self.generation.policy(), headers.iter());
        let next = self.generation.serve(|context| self.exchange.request_head(context, &head));
        self.headers = Some(headers);
        match next {
            OnRequestHead::Reply(reply) => self.answer(&reply),
            OnRequestHead::Usage => {
                let mut store = self.store();
                let next = self.generation.serve(|context| self.exchange.usage_reply(context, &mut store));
                self.proceed(next, &[], store)
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

    fn on_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match self.phase {
            Phase::Request => {}
            // It does not go on before it has been decided that it may, whatever body a request without one has.
            Phase::Waiting | Phase::Coalesced | Phase::Pass => return Action::Pause,
            _ => return Action::Continue,
        }
        if let Some(reply) = self.exchange.request_body_size(self.generation.policy(), size) {
            return self.answer(&reply);
        }
        if end_of_stream { self.dispatch() } else { Action::Pause }
    }

    fn on_request_trailers(&mut self) -> Action {
        self.remove_all(Map::RequestTrailers);
        // HTTP/2 trailers end the body without end_of_stream in the body callback.
        match self.phase {
            Phase::Request => self.dispatch(),
            Phase::Waiting | Phase::Coalesced | Phase::Pass => Action::Pause,
            _ => Action::Continue,
        }
    }

    fn on_response_headers(&mut self, end_of_stream: bool) -> Action {
        if matches!(self.phase, Phase::Pass | Phase::Request | Phase::Waiting | Phase::Coalesced) {
            return Action::Continue;
        }
        let headers = self.host().headers(Map::ResponseHeaders);
        let mut head = ResponseHead { end_of_stream, ..ResponseHead::default() };
        for (name, value) in headers.iter() {
            match name {
                b":status" => head.status = Some(status_of(value)).filter(|status| *status > 0).unwrap_or(502),
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
            _ => self.host().text(Property::CodeDetails).unwrap_or_default(),
        };
        // No model that is left is healthy: what the last attempt failed with says more.
        if details.starts_with(b"no_healthy_upstream")
            && let Some(status) = self.host().state(STATE_FAILED).and_then(|failed| last_failed_status(&failed))
        {
            head.status = status;
            details.clear();
        }
        head.details = std::str::from_utf8(&details).unwrap_or_default();
        if head.model.is_empty() && !self.exchange.is_direct() {
            head.last_attempt = self.last_attempt();
        }
        let verdict = self.generation.serve(|context| self.exchange.response_head(context, &head));
        let made = match self.exchange.is_hedged(self.generation.policy()) {
            true => self.exchange.overtaken(self.last_attempt()),
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
        headers.remove_foreign(self.host());
        if let Some((name, value)) = &made {
            headers.change(self.host(), name, value);
        }
        match verdict {
            OnResponseHead::Own => {}
            OnResponseHead::Stream(own) => {
                headers.give(self.host(), &own);
                // Events may be taken out, so the provider's length, if it gave one, need not hold.
                self.host().remove_header(Map::ResponseHeaders, b"content-length");
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

    fn on_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        let host = self.generation.host();
        match &mut self.phase {
            Phase::Stream => {
                let chunk = if size > 0 { self.host().buffer(Buffer::ResponseBody, size) } else { Vec::new() };
                if let Some(replacement) = self.exchange.stream_chunk(&chunk, end_of_stream, || host.now_ms()) {
                    self.host().replace_prefix(Buffer::ResponseBody, size, &replacement);
                }
                // Many callers leave as soon as they have the end marker, before the body's end has come.
                if end_of_stream || self.exchange.is_done() {
                    self.keep();
                }
                Action::Continue
            }
            Phase::Hold if end_of_stream => self.whole_response(),
            Phase::Hold if size > HOLD_LIMIT => {
                let held = self.host().buffer(Buffer::ResponseBody, size);
                match self.exchange.release(self.generation.policy(), &held) {
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
                copy.extend(host.buffer(Buffer::ResponseBody, size));
                if end_of_stream {
                    self.exchange.passed_body(copy);
                    self.phase = Phase::Pass;
                    self.keep();
                }
                Action::Continue
            }
            Phase::Counted(_) => self.count_rest(size, end_of_stream),
            Phase::Request | Phase::Waiting | Phase::Coalesced | Phase::Sent | Phase::Pass => Action::Continue,
        }
    }

    fn on_response_trailers(&mut self) -> Action {
        self.remove_all(Map::ResponseTrailers);
        match &mut self.phase {
            Phase::Hold => return self.whole_response(),
            Phase::Released(copy) => self.exchange.passed_body(copy),
            Phase::Counted(bytes) => self.exchange.whole_uncopied(*bytes, true),
            // Its last chunk has gone. What it lacks to be whole, or to say that it is not, cannot be sent any more.
            Phase::Stream => {
                let host = self.generation.host();
                if self.exchange.ends_short(|| host.now_ms()) {
                    self.keep();
                    self.phase = Phase::Pass;
                    self.host().reset_response();
                    // Envoy must not go on with a stream that is no more.
                    return Action::Pause;
                }
            }
            Phase::Request | Phase::Waiting | Phase::Coalesced | Phase::Sent | Phase::Pass => return Action::Continue,
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
            self.exchange.leave(&mut self.store(), self.host().now_ms());
        }
        if self.exchange.is_cut_off() {
            let details = self.host().text(Property::CodeDetails).unwrap_or_default();
            let status = self.host().number(Property::ResponseCode);
            let status = status.and_then(|code| u16::try_from(code).ok()).unwrap_or(0);
            self.exchange.cut_off(std::str::from_utf8(&details).unwrap_or_default(), status, self.last_attempt());
        }
        let now = self.answered_ms.unwrap_or_else(|| self.host().now_ms());
        let policy = self.generation.policy();
        if self.exchange.has_reserved() {
            let mut store = HostStore::at(self.generation.worker(), now);
            let (lines, remote) = self.generation.serve(|context| self.exchange.settle(context, &mut store));
            lines.iter().for_each(|line| self.host().log(LogLevel::Warn, line));
            if let Some(unsettled) = remote {
                self.generation.keep_settlement(unsettled);
            }
        }
        let failed = match self.exchange.has_failed_attempts() {
            true => self.host().state(STATE_FAILED).unwrap_or_default(),
            false => Vec::new(),
        };
        let failed = read_failed(&failed);
        self.host().set_state(STATE_AUDIT, &self.exchange.audit(policy, &failed, now));
        self.generation.count_request(self.exchange.metrics(policy, &failed, now), now);
    }
}
