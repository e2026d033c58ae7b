//! The gateway stage: a downstream HTTP filter, once per request.

use crate::attempt_places::PlaceId;
use crate::generation::PolicyGeneration;
use crate::host::{Action, Buffer, CallId, ContextId, HeaderMap as _, Host, LogLevel, Map, Property, status_of};
use crate::request_body;
use crate::response_headers::ResponseHeaders;
use crate::settlements::SettlementQueue;
use crate::shared_data::{HostStore, InFlightGuard};
use crate::stage::Stage;
use pointsman_core::exchange::{
    BodyEdit, BodyPart, BodyStep, Exchange, Observer, OnResponseBody, OnResponseHead, Outgoing, RequestStep,
    ResponseHead, ResponseStep,
};
use pointsman_core::memory::Context;
use pointsman_core::outcome::outcome::Outcome;
use pointsman_core::outcome::refusal::Refusal;
use pointsman_core::outcome::reply::Reply;
use pointsman_core::quota::store::Store as _;
use pointsman_core::request::head::{RequestHead, request_header_passes};
use pointsman_core::routing::attempt;
use pointsman_core::routing::begun::{self, Begun, STATE_ENDED, STATE_SERVED};
use pointsman_core::routing::dispatch::{
    ROUTED, STATE_AUDIT, STATE_COST, STATE_DISPATCH, STATE_FAILED, STATE_MODEL, STATE_PLACE, STATE_ROUTED, read_failed,
};
use pointsman_core::wire::header::{HeaderLine, is_retry_after, is_retry_after_ms};
use pointsman_core::wire::http_call::HttpCallResult;
use std::rc::Rc;

/// One request.
pub struct GatewayStage<H: Host> {
    id: ContextId,
    generation: Rc<PolicyGeneration<H>>,
    settlements: Rc<SettlementQueue<H>>,
    exchange: Exchange,
    phase: Phase,
    /// Counts the request against the plan's first model.
    in_flight: Option<InFlightGuard>,
    /// The call that the request waits for.
    call: Option<u32>,
    /// The request headers as received, until the request is sent.
    headers: Option<H::Headers>,
    /// The response headers, until the gateway's own have been added.
    response: Option<ResponseHeaders<H::Headers>>,
    /// Set while its provider holds the response open after its end.
    lingers: Option<Rc<()>>,
    /// When the gateway answered the request itself, in milliseconds since the Unix epoch, if known.
    answered_ms: Option<u64>,
}

/// What to do when more of the request body arrives.
enum Phase {
    /// The request is being read.
    Request,
    /// The request is complete, and is held until a call is answered.
    Waiting,
    /// The request is complete, and is held while an identical request is in flight.
    Coalesced,
    /// The request was sent upstream.
    Sent,
    /// The gateway answered the request itself.
    Answered,
}

/// What the host knows of the current stream.
struct Observed<'a, H: Host>(&'a H);

impl<H: Host> Observer for Observed<'_, H> {
    fn code_details(&self) -> String {
        self.0.text(Property::CodeDetails).and_then(|details| String::from_utf8(details).ok()).unwrap_or_default()
    }

    fn response_code(&self) -> u16 {
        self.0.number(Property::ResponseCode).and_then(|code| u16::try_from(code).ok()).unwrap_or(0)
    }

    fn last_attempt(&self) -> Option<(usize, u32)> {
        self.0.state(STATE_SERVED).and_then(|state| begun::last_begun(&state))
    }

    fn failed_attempts(&self) -> Vec<(usize, Outcome)> {
        self.0.state(STATE_FAILED).map_or(Vec::new(), |record| read_failed(&record))
    }

    fn attempts(&self) -> Vec<Begun> {
        let ended = self.0.state(STATE_ENDED).unwrap_or_default();
        self.0.state(STATE_SERVED).map_or(Vec::new(), |begun| begun::read(&begun, &ended))
    }

    fn has_connection(&self) -> bool {
        self.0.text(Property::LocalAddress).is_some()
    }

    fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }
}

impl<H: Host> GatewayStage<H> {
    /// Creates the stage for a new request, whose context is `id`.
    pub fn new(id: ContextId, generation: Rc<PolicyGeneration<H>>, settlements: Rc<SettlementQueue<H>>) -> Self {
        Self {
            id,
            exchange: Exchange::new(generation.host().now_ms()),
            generation,
            settlements,
            phase: Phase::Request,
            in_flight: None,
            call: None,
            headers: None,
            response: None,
            lingers: None,
            answered_ms: None,
        }
    }

    /// Returns the stage's host.
    pub(crate) fn host(&self) -> &H {
        self.generation.host()
    }

    fn store(&self) -> HostStore<H> {
        HostStore::new(self.generation.worker_host())
    }

    fn answer(&mut self, reply: &Reply) -> Action {
        self.phase = Phase::Answered;
        self.host().reply(reply);
        Action::Pause
    }

    /// Decides on the complete request, then sends it on or answers it.
    fn dispatch(&mut self) -> Action {
        let body = self.host().buffer(Buffer::RequestBody, usize::MAX);
        let mut store = self.store();
        let next = self.generation.serve(|context| self.exchange.on_request(context, &body, &mut store));
        self.proceed(next, &body, store)
    }

    /// Carries out what the exchange decided for the complete request.
    fn proceed(&mut self, mut next: RequestStep, body: &[u8], mut store: HostStore<H>) -> Action {
        loop {
            if store.in_flight.is_some() {
                self.in_flight = store.in_flight.take();
            }
            match next {
                RequestStep::Send(outgoing) => return self.send(&outgoing, body),
                RequestStep::Reply(reply) => {
                    self.answered_ms = store.cached_now_ms();
                    return self.answer(&reply);
                }
                RequestStep::Call(call) => {
                    self.call = self.host().call(&call);
                    if self.call.is_some() {
                        self.phase = Phase::Waiting;
                        return Action::Pause;
                    }
                    let not_sent = &HttpCallResult::NOT_SENT;
                    next = self
                        .generation
                        .serve(|context| self.exchange.on_call_result(context, body, &mut store, not_sent));
                }
                RequestStep::Park => {
                    self.phase = Phase::Coalesced;
                    return Action::Pause;
                }
                RequestStep::AwaitBody => return Action::Pause,
            }
        }
    }

    /// Returns whether the request waits for another one.
    pub fn is_coalesced(&self) -> bool {
        matches!(self.phase, Phase::Coalesced)
    }

    /// Takes the call that the request waits for.
    pub fn take_call(&mut self) -> Option<u32> {
        self.call.take()
    }

    /// Lets the request go on if it need not wait for another one any longer.
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
            return self.answer(&self.exchange.dialect().refusal(&Refusal::Internal, ""));
        }
        let map = Map::RequestHeaders;
        // Headers are removed only now: a request that is answered here need not lose any.
        let headers = self.headers.take();
        let has_own = self.exchange.dialect().has_headers();
        let passes = |name: &[u8]| request_header_passes(name, has_own);
        let mut passing = Vec::with_capacity(16);
        for header @ (name, _) in headers.iter().flat_map(|headers| headers.iter()) {
            match passes(name) {
                true => passing.push(header),
                false => self.host().remove_header(map, name),
            }
        }
        if let Some(record) = &outgoing.dispatch {
            self.host().set_state(STATE_DISPATCH, record);
        }
        // Before the headers, whose change makes Envoy choose the route again.
        self.host().set_state(STATE_ROUTED, ROUTED.as_bytes());
        // Whether the request already has this header once, with this value.
        let has = |name: &str, value: &str| {
            let mut lines = passing.iter().filter(|(other, _)| *other == name.as_bytes());
            lines.next().is_some_and(|(_, said)| *said == value.as_bytes()) && lines.next().is_none()
        };
        let length = outgoing.content_length.to_string();
        let own =
            [("content-length", &*length), ("user-agent", "pointsman"), ("x-pointsman-cluster", &outgoing.cluster)];
        for (name, value) in own.into_iter().chain(outgoing.headers.iter().map(|(name, value)| (*name, &**value))) {
            match passes(name.as_bytes()) {
                true if has(name, value) => {}
                true => self.host().set_header(map, name, value),
                // A header that does not pass has been removed already.
                false => self.host().add_header(map, name, value),
            }
        }
        self.phase = Phase::Sent;
        Action::Continue
    }

    /// Adds the gateway's own headers to the response.
    fn give_headers(&mut self, own: &[HeaderLine]) {
        if let Some(headers) = self.response.take() {
            headers.give(self.host(), own);
        }
    }

    fn release(&mut self) {
        if let Some(held) = self.in_flight.take() {
            held.release(self.generation.worker_host());
        }
    }

    /// Releases the place of the attempt that answered, too.
    fn release_all(&mut self) {
        self.release();
        if self.exchange.is_fallback() && self.lingers.is_none() {
            let place = self.host().state(STATE_PLACE).and_then(|state| PlaceId::from_bytes(&state));
            if let Some(place) = place {
                InFlightGuard::release_shared(self.generation.worker_host(), place);
            }
        }
    }

    /// Passes a part of the response body to the exchange and applies the result.
    fn step(
        &mut self,
        size: usize,
        end_of_stream: bool,
        act: impl FnOnce(&mut Exchange, &mut Context, &BodyPart, &mut HostStore<H>) -> BodyStep,
    ) -> Action {
        let generation = Rc::clone(&self.generation);
        let host = generation.host();
        let mut store = self.store();
        let read = |max| host.buffer(Buffer::ResponseBody, max);
        let now_ms = || host.now_ms();
        let part = BodyPart { size, end_of_stream, read: &read, now_ms: &now_ms };
        let BodyStep { next, call, is_over } =
            generation.serve(|context| act(&mut self.exchange, context, &part, &mut store));
        // Nothing waits for the result of this call.
        call.and_then(|call| host.call(&call));
        if is_over {
            self.release_all();
            let (lines, settlement) = generation.serve(|context| self.exchange.settle_early(context, &mut store));
            lines.iter().for_each(|line| host.log(LogLevel::Warn, line));
            if let Some(settlement) = settlement {
                self.settlements.push(&generation, settlement);
            }
        }
        let has_ended = end_of_stream || matches!(next, OnResponseBody::Reply(_) | OnResponseBody::Reset);
        if is_over && !has_ended && self.lingers.is_none() {
            let (now_ms, grace_ms) = (store.now_ms(), self.exchange.grace_ms());
            self.lingers = Some(generation.lingering().add(host, self.id, now_ms, grace_ms));
        }
        match next {
            OnResponseBody::Pass => Action::Continue,
            OnResponseBody::Hold => Action::Pause,
            OnResponseBody::Drop(cost) => {
                if let Some(cost) = cost {
                    host.set_state(STATE_COST, cost.as_bytes());
                }
                host.replace_prefix(Buffer::ResponseBody, size, b"");
                Action::Pause
            }
            OnResponseBody::Replace(replacement) => {
                host.replace_prefix(Buffer::ResponseBody, size, &replacement);
                Action::Continue
            }
            OnResponseBody::Release(own) => {
                self.give_headers(&own);
                Action::Continue
            }
            OnResponseBody::Complete(whole, len) => {
                self.give_headers(&whole.headers);
                if let Some((status, text)) = whole.replace {
                    host.replace_prefix(Buffer::ResponseBody, len, &text);
                    host.set_header(Map::ResponseHeaders, ":status", &status.to_string());
                    host.set_header(Map::ResponseHeaders, "content-length", &text.len().to_string());
                }
                Action::Continue
            }
            OnResponseBody::Reply(reply) => self.answer(&reply),
            OnResponseBody::Reset => {
                host.reset_response();
                // Envoy must not continue a stream that has been reset.
                Action::Pause
            }
        }
    }

    /// Removes all trailers. Like headers, they can identify the caller or the provider, and no chat needs them.
    fn remove_all(&self, map: Map) {
        for (name, _) in self.host().headers(map).iter() {
            self.host().remove_header(map, name);
        }
    }
}

impl<H: Host> Stage for GatewayStage<H> {
    fn on_call_end(&mut self, _: CallId, size: usize) {
        // The request does not wait for this call.
        if !matches!(self.phase, Phase::Waiting) {
            return;
        }
        self.call = None;
        let status = self.host().headers(Map::CallHeaders).status();
        let answer = self.host().buffer(Buffer::CallBody, size);
        let body = self.host().buffer(Buffer::RequestBody, usize::MAX);
        let mut store = self.store();
        let answered = HttpCallResult { status, body: &answer };
        let next = self.generation.serve(|context| self.exchange.on_call_result(context, &body, &mut store, &answered));
        if self.proceed(next, &body, store) == Action::Continue {
            self.host().resume_request();
        }
    }

    fn on_request_headers(&mut self, end_of_stream: bool) -> Action {
        let headers = self.host().headers(Map::RequestHeaders);
        let head = RequestHead::read(self.generation.policy(), headers.iter());
        let mut store = self.store();
        let next = self.generation.serve(|context| self.exchange.on_request_headers(context, &head, &mut store));
        self.headers = Some(headers);
        match next {
            RequestStep::AwaitBody if end_of_stream => self.dispatch(),
            next => self.proceed(next, &[], store),
        }
    }

    fn on_request_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match self.phase {
            Phase::Request => {}
            // Nothing goes on before the decision, not even a body of a request that ended with its headers.
            Phase::Waiting | Phase::Coalesced | Phase::Answered => return Action::Pause,
            Phase::Sent => return Action::Continue,
        }
        let (generation, exchange) = (&self.generation, &mut self.exchange);
        if let Some(reply) = generation.serve(|context| exchange.on_request_size(context, size, end_of_stream)) {
            return self.answer(&reply);
        }
        if end_of_stream { self.dispatch() } else { Action::Pause }
    }

    fn on_request_trailers(&mut self) -> Action {
        self.remove_all(Map::RequestTrailers);
        // HTTP/2 trailers end the body without end_of_stream in the body callback.
        match self.phase {
            Phase::Request => self.dispatch(),
            Phase::Waiting | Phase::Coalesced | Phase::Answered => Action::Pause,
            Phase::Sent => Action::Continue,
        }
    }

    fn on_response_headers(&mut self, end_of_stream: bool) -> Action {
        if !matches!(self.phase, Phase::Sent) {
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
                b"retry-after-ms" if is_retry_after_ms(value) => head.retry_after_ms = value,
                b"content-encoding" => head.is_encoded = attempt::is_encoding(value),
                b"x-pointsman-model" => head.model = value,
                b"x-pointsman-attempts" => head.attempts = value,
                _ => {}
            }
        }
        let ResponseStep { next, attempts, leaves_first_model, skips_model_stage } = self
            .generation
            .serve(|context| self.exchange.on_response_headers(context, &head, &Observed(self.generation.host())));
        if leaves_first_model {
            self.release();
        }
        if matches!(next, OnResponseHead::Own) {
            return Action::Continue;
        }
        if self.exchange.is_assembled() {
            self.host().set_state(STATE_MODEL, head.model);
        }
        let mut headers = ResponseHeaders::new(headers, skips_model_stage);
        headers.remove_foreign(self.host());
        if let Some((name, value)) = &attempts {
            headers.change(self.host(), name, value);
        }
        match next {
            OnResponseHead::Own => Action::Continue,
            OnResponseHead::Stream(own) => {
                headers.give(self.host(), &own);
                // The exchange may remove events, so a content-length of the provider may be wrong.
                self.host().remove_header(Map::ResponseHeaders, b"content-length");
                Action::Continue
            }
            OnResponseHead::Hold => {
                self.response = Some(headers);
                if end_of_stream { self.on_response_body(0, true) } else { Action::Pause }
            }
            OnResponseHead::Replace(reply) => self.answer(&reply),
        }
    }

    fn on_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        self.step(size, end_of_stream, |exchange, context, part, store| exchange.on_response_body(context, part, store))
    }

    fn on_response_trailers(&mut self) -> Action {
        self.remove_all(Map::ResponseTrailers);
        self.step(0, true, |exchange, context, part, store| exchange.on_response_trailers(context, part, store))
    }

    fn on_log(&mut self) {
        self.lingers = None;
        self.release();
        // `finish` consumes the exchange. This is the last callback, so the placeholder is never used.
        let exchange = std::mem::replace(&mut self.exchange, Exchange::new(0));
        let generation = &self.generation;
        let mut store = match self.answered_ms {
            Some(ms) => HostStore::at(generation.worker_host(), ms),
            None => self.store(),
        };
        let observed = Observed(self.host());
        let finished = generation.serve(|context| exchange.finish(context, &mut store, &observed));
        finished.log_lines.iter().for_each(|line| self.host().log(LogLevel::Warn, line));
        if let Some(settlement) = finished.settlement {
            self.settlements.push(generation, settlement);
        }
        self.host().set_state(STATE_AUDIT, &finished.audit);
        generation.count_request(finished.metrics, finished.ended_ms);
    }
}
