//! The model stage: an upstream HTTP filter of every plan cluster, once per attempt.
//!
//! Envoy keeps the header edits of one attempt for the next, so each attempt sets or removes every header that depends
//! on the provider. The body is the original one on each attempt.

use crate::attempt_places::PlaceId;
use crate::host::{Action, Buffer, HeaderMap as _, Host, LogLevel, Map, Property, status_of};
use crate::shared_data::InFlightGuard;
use crate::stage::Stage;
use crate::worker_host::WorkerHost;
use pointsman_core::config::Dialect;
use pointsman_core::dialect::client::ClientDialect;
use pointsman_core::outcome::blame::Blame;
use pointsman_core::outcome::outcome::Outcome;
use pointsman_core::outcome::provider_error;
use pointsman_core::outcome::refusal::Refusal;
use pointsman_core::policy::resilience::NEXT_HEADER;
use pointsman_core::request::head::CREDENTIALS;
use pointsman_core::routing::attempt::{self, Failure, HOLD_LIMIT, OF_ONE_REQUEST, OnHead};
use pointsman_core::routing::begun::{self, End, STATE_ENDED, STATE_SERVED};
use pointsman_core::routing::dispatch::{self, STATE_DISPATCH, STATE_FAILED, STATE_PLACE, STATE_PROVIDER, Wanted};
use pointsman_core::routing::in_flight::Places;
use pointsman_core::routing::next;
use pointsman_core::wire::header::RetryAfter;
use std::rc::Rc;

/// One attempt.
pub struct ModelStage<H: Host> {
    host: Rc<WorkerHost<H>>,
    fails_at_end: bool,
    /// The answer that the caller wants.
    wanted: Wanted,
    /// The API dialect of the provider.
    dialect: Dialect,
    request: RequestBody,
    response: ResponseBody,
    /// The index in the plan, the model, and the number of the attempt.
    attempt: Option<(usize, String, usize)>,
    /// Counts the attempt against its model. The gateway stage has already counted the plan's first model.
    place: Option<PlaceId>,
    /// The media type of the answer, where its provider labels it otherwise.
    corrected_type: Option<&'static str>,
    /// Bytes of a held stream that have nothing for the caller.
    judged: usize,
    progress: Progress,
}

/// Whether an attempt has answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Not yet.
    Awaited,
    /// It has answered, or is about to.
    Answered,
    /// It has failed.
    Failed,
}

/// What is left to do with the request body.
enum RequestBody {
    /// Nothing: the body passes.
    Pass,
    /// Replace its first bytes.
    Replace { prefix: usize, head: Vec<u8> },
    /// The request was refused.
    Refused,
}

/// What is left to do with the response body.
enum ResponseBody {
    /// Nothing: the body passes.
    Pass,
    /// Hold it until its first event is complete.
    HoldEvent,
    /// Hold it until it is complete.
    HoldWhole,
    /// Hold it until it is complete: it says why the provider refused the request with this status. It may have this
    /// many bytes.
    HoldRefusal(u16, Option<usize>),
    /// The attempt failed: drop the whole body.
    Drop,
}

impl<H: Host> ModelStage<H> {
    /// Creates the stage for a new attempt. `fails_at_end`: whether the attempt may still be failed when its response
    /// ends.
    pub fn new(host: Rc<WorkerHost<H>>, fails_at_end: bool) -> Self {
        Self {
            host,
            fails_at_end,
            wanted: Wanted::Whole,
            dialect: Dialect::Openai,
            request: RequestBody::Pass,
            response: ResponseBody::Pass,
            attempt: None,
            place: None,
            corrected_type: None,
            judged: 0,
            progress: Progress::Awaited,
        }
    }

    fn host(&self) -> &H {
        self.host.host()
    }

    fn refuse(&mut self, why: &str) -> Action {
        self.host().log(LogLevel::Error, why);
        let reply = ClientDialect::default().refusal(&Refusal::Internal, "");
        self.host().reply(&reply);
        self.request = RequestBody::Refused;
        Action::Pause
    }

    /// Returns the number of the attempt, from 1, as Envoy counts.
    fn attempt_count(&self) -> usize {
        self.host().number(Property::AttemptCount).and_then(|count| usize::try_from(count).ok()).unwrap_or(1)
    }

    /// Records the previous attempt as unanswered if it left no record.
    fn note_silent_attempt(&self, count: usize) {
        let host = self.host();
        let mut record = host.state(STATE_FAILED).unwrap_or_default();
        if dispatch::read_failed(&record).len() + 1 < count {
            let before = host.state(STATE_SERVED).and_then(|state| begun::last_begun(&state));
            dispatch::push_failed(&mut record, before.map_or(0, |(index, _)| index), Outcome::NoResponse);
            host.set_state(STATE_FAILED, &record);
        }
    }

    /// Records that this attempt failed.
    fn failed(&mut self, outcome: Outcome) {
        self.progress = Progress::Failed;
        if let Some((index, ..)) = &self.attempt {
            let mut record = self.host().state(STATE_FAILED).unwrap_or_default();
            dispatch::push_failed(&mut record, *index, outcome);
            self.host().set_state(STATE_FAILED, &record);
        }
    }

    /// Records how this attempt ended, unless it answered.
    fn note_end(&self) {
        let Some((_, _, number)) = &self.attempt else { return };
        let end = match self.progress {
            Progress::Answered => return,
            Progress::Awaited if self.host().text(Property::LocalAddress).is_some() => {
                End::Unanswered(self.host().now_ms())
            }
            Progress::Awaited | Progress::Failed => End::Failed,
        };
        let mut record = self.host().state(STATE_ENDED).unwrap_or_default();
        begun::push_ended(&mut record, *number, end);
        self.host().set_state(STATE_ENDED, &record);
    }

    /// Records that this attempt failed, and asks Envoy for the next one if a model may serve that has not been asked.
    /// `can_fail`: whether this is not too late. Returns whether it asked.
    fn lead_on(&mut self, blame: Blame, outcome: Outcome, can_fail: bool) -> bool {
        let record = self.host().state(STATE_DISPATCH).unwrap_or_default();
        let failed = dispatch::read_failed(&self.host().state(STATE_FAILED).unwrap_or_default());
        self.failed(provider_error::meaning(blame).map_or(outcome, |told| provider_error::recorded(told, outcome)));
        let (Some((index, ..)), Some(plan)) = (&self.attempt, dispatch::decode(&record)) else { return false };
        let leads = can_fail && next::may_serve(&plan, *index, &failed, blame);
        if leads {
            self.host().set_header(Map::ResponseHeaders, NEXT_HEADER, "1");
            // Envoy would wait that long before it asks another provider.
            self.remove_retry_after();
        }
        leads
    }

    /// Drops the body, of which this many bytes are held: Envoy must not see any of a body that was held when it
    /// retries. Before 1.38 it would send them to the caller.
    fn drop_body(&mut self, held: usize) {
        let map = Map::ResponseHeaders;
        self.host().set_header(map, "content-type", "application/json");
        // With length 0, the gateway stage answers without waiting for the end of the body. Before Envoy 1.38 it must
        // not answer during a body callback of this filter: Envoy crashes.
        self.host().set_header(map, "content-length", if self.fails_at_end { "0" } else { "1" });
        self.host().remove_header(map, b"content-encoding");
        if held > 0 {
            self.host().replace_prefix(Buffer::ResponseBody, held, b"");
        }
        self.response = ResponseBody::Drop;
    }

    fn remove_retry_after(&self) {
        for name in [&b"retry-after"[..], b"retry-after-ms"] {
            self.host().remove_header(Map::ResponseHeaders, name);
        }
    }

    /// The provider answered a status that the policy may retry. If an attempt follows, `retry-after` is for Envoy,
    /// otherwise for the caller.
    fn wait(&self, status: u16, retry_after: &[u8], retry_after_ms: &[u8]) {
        let Some(asked) = RetryAfter::read(retry_after, retry_after_ms) else { return };
        let record = self.host().state(STATE_DISPATCH).unwrap_or_default();
        let (Some((index, ..)), Some(plan)) = (&self.attempt, dispatch::decode(&record)) else { return };
        let mut attempts = plan.attempts.iter().skip(*index);
        let (Some(this), Some(next)) = (attempts.next(), attempts.next()) else { return };
        if !plan.retries.follow(status) {
            return;
        }
        match plan.retries.wait(&asked, self.host().now_ms()).filter(|_| next.provider == this.provider) {
            Some(seconds) => self.host().set_header(Map::ResponseHeaders, "retry-after", &seconds),
            None => self.remove_retry_after(),
        }
    }

    /// Turns a response that claimed success into a failed attempt. Envoy decides on a retry by the headers set here.
    /// `blame`: whose matter the failure is.
    /// `held`: the bytes of its body that are held.
    fn fail(&mut self, failure: Failure, blame: Blame, held: usize) {
        self.lead_on(blame, failure.code, true);
        // The policy may retry the status that stands for an error without one, as it must not after these.
        let status = match blame {
            Blame::Context => 400,
            Blame::Gateway if Blame::of_status(failure.status) != Blame::Gateway => 403,
            Blame::Provider if failure.is_of_request => OF_ONE_REQUEST,
            _ => failure.status,
        };
        self.host().set_header(Map::ResponseHeaders, ":status", &status.to_string());
        self.remove_retry_after();
        self.drop_body(held);
    }

    /// Judges the part of the body that is held. Returns whether it can go on.
    fn judge(&mut self, size: usize, end_of_stream: bool) -> bool {
        let held = self.host().buffer(Buffer::ResponseBody, size);
        let verdict = match self.response {
            ResponseBody::HoldEvent => self.dialect.first_event(&held, &mut self.judged, end_of_stream),
            ResponseBody::HoldWhole if end_of_stream => Some(self.dialect.whole(&held)),
            ResponseBody::HoldWhole => (size > HOLD_LIMIT).then(|| self.dialect.beginning(&held)),
            ResponseBody::HoldRefusal(status, length) => {
                return self.judge_refusal(status, length, &held, end_of_stream);
            }
            ResponseBody::Pass | ResponseBody::Drop => Some(Ok(())),
        };
        match verdict {
            None => return false,
            Some(Ok(())) => {
                self.response = ResponseBody::Pass;
                if self.progress == Progress::Awaited {
                    self.progress = Progress::Answered;
                }
                if let Some(corrected) = self.corrected_type {
                    self.host().set_header(Map::ResponseHeaders, "content-type", corrected);
                }
            }
            Some(Err(failure)) => {
                let code = match failure.code {
                    Outcome::ErrorEvent | Outcome::ErrorBody => self.dialect.read_error(&held).code,
                    _ => None,
                };
                let blame = provider_error::blame_of_error(failure.status, code);
                // Too late to fail the attempt: the gateway stage reports the failure to the caller.
                if end_of_stream && !self.fails_at_end {
                    self.lead_on(blame, failure.code, false);
                    self.response = ResponseBody::Pass;
                    return true;
                }
                self.fail(failure, blame, held.len());
            }
        }
        true
    }

    /// Judges the body of a rejected request, which passes unless another attempt follows. Returns whether it goes on.
    fn judge_refusal(&mut self, status: u16, length: Option<usize>, held: &[u8], end_of_stream: bool) -> bool {
        let is_whole = end_of_stream || length.is_some_and(|length| held.len() >= length);
        if !is_whole && held.len() <= HOLD_LIMIT {
            return false;
        }
        let code = if is_whole { self.dialect.read_error(held).code } else { None };
        let can_fail = !end_of_stream || self.fails_at_end;
        if self.lead_on(provider_error::blame(status, code), Outcome::Status(status), can_fail) {
            self.drop_body(held.len());
        } else {
            self.response = ResponseBody::Pass;
        }
        true
    }
}

impl<H: Host> Stage for ModelStage<H> {
    fn on_done(&mut self) {
        if let Some(place) = self.place.take() {
            InFlightGuard::release_shared(&self.host, place);
        }
        self.note_end();
    }

    fn on_request_headers(&mut self, _: bool) -> Action {
        let record = self.host().state(STATE_DISPATCH).unwrap_or_default();
        let Some(plan) = dispatch::decode(&record) else {
            return self.refuse("pointsman: a request reached the model stage without passing the gateway stage");
        };
        let provider = self.host().text(Property::Provider).unwrap_or_default();
        let provider = std::str::from_utf8(&provider).unwrap_or_default();
        // The count is costly to read, and known for the attempt that comes first and finds the first provider.
        let begun = if plan.attempts.len() > 1 { self.host().state(STATE_SERVED) } else { None };
        let count = if begun.is_some() || plan.needs_count(provider) { self.attempt_count() } else { 1 };
        let Some((index, attempt)) = plan.choose(provider, count) else {
            return self
                .refuse("pointsman: the selected host's metadata pointsman.provider is not a provider of the plan");
        };
        if count > 1 {
            self.note_silent_attempt(count);
        }
        if let Some(tenant) = attempt.counted
            && !plan.is_of_first_model(attempt)
        {
            // Envoy has already chosen the attempt, so it counts even if the model is full.
            let (places, now_ms) = (Places::unlimited(tenant), self.host().now_ms());
            let guard = InFlightGuard::acquire(&self.host, attempt.model, places, now_ms).ok();
            self.place = guard.map(|guard| guard.share(&self.host));
            if let Some(place) = self.place {
                self.host().set_state(STATE_PLACE, &place.to_bytes());
            }
        }
        self.wanted = plan.wanted;
        self.dialect = attempt.dialect;
        // The gateway stage has prepared the headers for the plan's first attempt.
        let is_prepared = index == 0 && count == 1;
        if !is_prepared {
            let map = Map::RequestHeaders;
            self.host().set_header(map, ":path", attempt.path);
            self.host().set_header(map, "content-length", &plan.content_length(attempt).to_string());
            let own = plan.attempts.iter().map(|other| other.credential_header).filter(|name| !name.is_empty());
            for name in CREDENTIALS.into_iter().chain(own.filter(|name| !CREDENTIALS.contains(name))) {
                self.host().remove_header(map, name.as_bytes());
            }
        }
        if attempt.head != plan.canonical_head() {
            self.request = RequestBody::Replace { prefix: plan.canonical_head().len(), head: attempt.head.to_vec() };
        }
        if plan.attempts.len() > 1 && !(is_prepared && attempt.credential_header.is_empty()) {
            self.host().set_state(STATE_PROVIDER, attempt.provider.as_bytes());
        }
        let mut begun = begun.unwrap_or_default();
        begun::push_begun(&mut begun, index, count, if count > 1 { self.host().now_ms() } else { 0 });
        self.host().set_state(STATE_SERVED, &begun);
        self.attempt = Some((index, attempt.model.to_owned(), count));
        Action::Continue
    }

    fn on_request_body(&mut self, size: usize, _: bool) -> Action {
        match &self.request {
            RequestBody::Pass => Action::Continue,
            RequestBody::Refused => Action::Pause,
            // The head has not arrived completely.
            RequestBody::Replace { prefix, .. } if size < *prefix => Action::Pause,
            RequestBody::Replace { prefix, head } => {
                self.host().replace_prefix(Buffer::RequestBody, *prefix, head);
                self.request = RequestBody::Pass;
                Action::Continue
            }
        }
    }

    fn on_response_headers(&mut self, end_of_stream: bool) -> Action {
        let Some((_, model, count)) = &self.attempt else { return Action::Continue };
        let map = Map::ResponseHeaders;
        let headers = self.host().headers(map);
        let (mut status, mut content_type, mut is_encoded) = (0, &b""[..], false);
        let (mut retry_after, mut retry_after_ms, mut length) = (&b""[..], &b""[..], None);
        for (name, value) in headers.iter() {
            match name {
                b":status" => status = status_of(value),
                b"content-type" => content_type = value,
                b"retry-after" => retry_after = value,
                b"retry-after-ms" => retry_after_ms = value,
                b"content-length" => length = std::str::from_utf8(value).ok().and_then(|length| length.parse().ok()),
                b"content-encoding" => is_encoded = attempt::is_encoding(value),
                // Set by an Envoy that limits rates in front of the provider. It would keep the router from retrying,
                // whatever the policy says. The other is the word of this stage.
                b"x-envoy-ratelimited" | b"x-pointsman-next" => self.host().remove_header(map, name),
                _ => {}
            }
        }
        // For the gateway stage and for the router's upstream_log, which can read headers but not filter state.
        // Overwrites whatever the provider sent under these names.
        self.host().set_header(map, "x-pointsman-model", model);
        self.host().set_header(map, "x-pointsman-attempts", &count.to_string());
        let stream = self.wanted.is_stream();
        let corrected_type = attempt::corrected_type(stream, content_type);
        let judged = match attempt::head(stream, status, content_type, is_encoded, end_of_stream) {
            // A document of known length instead of a stream shows at its end, which is too late for this host.
            OnHead::HoldEvent if !self.fails_at_end && length.is_some() && corrected_type.is_some() => {
                OnHead::Fail(Failure::bad_gateway(Outcome::WrongContentType))
            }
            judged => judged,
        };
        match judged {
            OnHead::Pass => match Blame::of_status(status) {
                Blame::Request if !end_of_stream && !is_encoded => {
                    self.response = ResponseBody::HoldRefusal(status, length);
                }
                Blame::Provider => {
                    self.failed(Outcome::Status(status));
                    self.wait(status, retry_after, retry_after_ms);
                    return Action::Continue;
                }
                blame => {
                    self.lead_on(blame, Outcome::Status(status), true);
                    return Action::Continue;
                }
            },
            OnHead::Fail(failure) => {
                self.fail(failure, Blame::of_status(failure.status), 0);
                return Action::Continue;
            }
            // The policy gives up the next model for an early first byte. What is not labelled as a stream must still
            // prove to be one.
            OnHead::HoldEvent if self.wanted == Wanted::EarlyStream && corrected_type.is_none() => {
                self.progress = Progress::Answered;
                return Action::Continue;
            }
            OnHead::HoldEvent => self.response = ResponseBody::HoldEvent,
            OnHead::HoldWhole => self.response = ResponseBody::HoldWhole,
        }
        self.corrected_type = corrected_type;
        Action::Pause
    }

    fn on_response_body(&mut self, size: usize, end_of_stream: bool) -> Action {
        match self.response {
            ResponseBody::Pass => Action::Continue,
            ResponseBody::Drop => {
                self.host().replace_prefix(Buffer::ResponseBody, size, b"");
                Action::Continue
            }
            ResponseBody::HoldWhole if !end_of_stream && size <= HOLD_LIMIT => Action::Pause,
            ResponseBody::HoldEvent | ResponseBody::HoldWhole | ResponseBody::HoldRefusal(..) => {
                if self.judge(size, end_of_stream) { Action::Continue } else { Action::Pause }
            }
        }
    }

    fn on_response_trailers(&mut self) -> Action {
        if !matches!(self.response, ResponseBody::Pass | ResponseBody::Drop) {
            self.judge(usize::MAX, true);
        }
        Action::Continue
    }
}
