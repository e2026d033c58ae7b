//! The answer as it arrives: judged, counted, passed to the caller with its headers, or replaced by an accurate error.

use crate::exchange::answer::held::Held;
use crate::exchange::answer::{Answer, StreamRules};
use crate::exchange::state::{Routed, Served, State, Upstream};
use crate::exchange::{Exchange, OnResponseHead, ResponseHead, Whole};
use crate::memory::Context;
use crate::outcome::error_body::ProviderMessage;
use crate::outcome::outcome::Outcome;
use crate::outcome::provider_error::{self, CallersOwn};
use crate::outcome::reply::Reply;
use crate::policy::Policy;
use crate::policy::price::MicroUsd;
use crate::routing::attempt::{self, Failure, HOLD_LIMIT, OnHead};
use crate::usage::{Estimated, Usage};
use crate::wire::header::HeaderLine;

/// How long a provider may hold a response open after the end marker, in milliseconds. A caller that reads to the end
/// of the body sees a reset as an incomplete response, so this leaves time for slow providers.
const GRACE_MS: u64 = 10_000;

/// How long it may do so after an error. Most providers end the response at once, and the error has to reach the caller
/// first.
const GRACE_OF_ERROR_MS: u64 = 100;

impl Exchange {
    /// The response's headers have arrived.
    pub(super) fn response_head(&mut self, context: &mut Context, head: &ResponseHead) -> OnResponseHead {
        let policy = context.policy;
        let State::Upstream(upstream) = &mut self.state else { return OnResponseHead::Own };
        let routed = &mut upstream.routed;
        routed.served = match (routed.plan.find(policy, head.model), parse(head.attempts)) {
            // Nothing has overwritten what the provider may have sent under these names.
            _ if routed.skips_model_stage && provider_error::is_unasked(head.details) => None,
            _ if routed.skips_model_stage => routed.last_attempt(Some((0, 1))),
            (Some(model), Some(attempts)) => Some(Served { model, attempts, headers_already_sent: true }),
            _ => routed.last_attempt(head.last_attempt),
        };
        let judged = attempt::head(routed.stream, head.status, head.content_type, head.is_encoded, head.end_of_stream);
        if matches!(judged, OnHead::HoldEvent | OnHead::HoldWhole) {
            routed.corrected_type = match routed.is_assembled() {
                true => Some(attempt::JSON),
                false => attempt::corrected_type(routed.stream, head.content_type),
            };
        }
        let status = match judged {
            OnHead::HoldEvent => {
                let hide_usage = routed.hide_usage;
                let max_event = policy.response.max_event_bytes;
                let is_assembled = routed.is_assembled();
                let held = self.room().map(|room| Held::new(room.guard()));
                let recording = self.recording(context);
                let rules = StreamRules { hide_usage, recording, max_event, held };
                self.set_answer(Answer::stream(self.dialect(), head.status, rules));
                return match is_assembled {
                    true => OnResponseHead::Hold,
                    false => OnResponseHead::Stream(self.response_headers(policy)),
                };
            }
            OnHead::HoldWhole => {
                upstream.answer = Answer::buffered(head.status);
                return OnResponseHead::Hold;
            }
            OnHead::Pass => head.status,
            OnHead::Fail(failure) => failure.status,
        };
        let cause = routed.cause(head.details);
        let is_envoys = !matches!(head.details, "" | "via_upstream");
        let (status, cause) = provider_error::told_by_last_attempt(status, cause, head.last_failure, is_envoys);
        routed.failed_as = match judged {
            OnHead::Fail(failure) => Some(failure.code),
            _ if cause.is_some() => cause.filter(|_| !is_envoys),
            _ => Some(Outcome::Status(status)),
        };
        upstream.answer = Answer::failed(status, cause);
        upstream.is_body_envoys = is_envoys;
        // Envoy's own answer is already whole; a provider's is awaited only where it must be.
        let is_short = head.content_length.is_some_and(|length| (1..=HOLD_LIMIT as u64).contains(&length));
        let must_wait = is_envoys || is_short || provider_error::is_read(status) && head.content_length != Some(0);
        if !head.end_of_stream && must_wait {
            return OnResponseHead::Hold;
        }
        let mut reply = self.failed_reply(policy);
        let is_told = reply.headers.iter().any(|(name, _)| *name == "retry-after");
        for (name, wait) in [("retry-after", head.retry_after), ("retry-after-ms", head.retry_after_ms)] {
            if let Some(wait) = std::str::from_utf8(wait).ok().filter(|wait| !wait.is_empty() && !is_told) {
                reply.headers.push((name, wait.to_owned().into()));
            }
        }
        OnResponseHead::Replace(reply)
    }

    /// The reply in place of a failed answer whose body is not awaited.
    fn failed_reply(&mut self, policy: &Policy) -> Reply {
        // The reply has none of the headers of the answer it replaces.
        if let Some(served) = self.state.upstream_mut().and_then(|upstream| upstream.routed.served.as_mut()) {
            served.headers_already_sent = false;
        }
        let Whole { headers, replace } = self.on_full_body(policy, b"");
        let (status, body) = replace.unwrap_or((502, Vec::new()));
        Reply { status, headers, body, code: None }
    }

    /// Whether the request bypassed the model stage, which would have recorded its attempts.
    pub(super) fn skips_model_stage(&self) -> bool {
        self.routed().is_some_and(|routed| routed.skips_model_stage)
    }

    /// Whether a model other than the plan's first serves.
    pub fn is_fallback(&self) -> bool {
        self.routed().is_some_and(Routed::is_fallback)
    }

    /// Whether the stream has reached its end marker.
    pub(super) fn is_done(&self) -> bool {
        self.state.upstream().is_some_and(|upstream| upstream.answer.is_done())
    }

    /// Whether the stream has reached its end marker or an error: nothing of it counts any more.
    pub(super) fn is_over(&self) -> bool {
        self.state.upstream().is_some_and(|upstream| upstream.answer.is_over())
    }

    /// How long the response may stay open after that, in milliseconds.
    pub fn grace_ms(&self) -> u64 {
        if self.is_done() { GRACE_MS } else { GRACE_OF_ERROR_MS }
    }

    /// Whether the provider goes on for too long after that.
    pub(super) fn goes_on_too_long(&self) -> bool {
        self.state.upstream().is_some_and(|upstream| upstream.answer.goes_on_too_long())
    }

    /// A chunk of a stream has arrived. `Some` replaces it. `now_ms`: milliseconds since the Unix epoch.
    pub(super) fn stream_chunk(
        &mut self,
        chunk: &[u8],
        end_of_stream: bool,
        now_ms: impl Fn() -> u64,
    ) -> Option<Vec<u8>> {
        let started_ms = self.started_ms;
        let answer = &mut self.state.upstream_mut()?.answer;
        answer.stream_chunk(chunk, end_of_stream, || now_ms().saturating_sub(started_ms))
    }

    /// A stream ended after its last chunk was forwarded. Whether the caller lacks something: the rest of an event, or
    /// notice of an error.
    pub(super) fn ends_short(&mut self, now_ms: impl Fn() -> u64) -> bool {
        let unsent = self.stream_chunk(&[], true, now_ms);
        // A missing end marker alone is nothing that the caller lacks.
        let is_short = !self.is_done() && unsent.is_some_and(|unsent| !unsent.is_empty());
        if is_short && let Some(upstream) = self.state.upstream_mut() {
            upstream.answer.truncated();
        }
        is_short
    }

    /// The whole body of a held response has arrived.
    pub(super) fn on_full_body(&mut self, policy: &Policy, body: &[u8]) -> Whole {
        let mut replace = None;
        let dialect = self.dialect();
        let read = self.state.upstream_mut().map_or(Ok(()), |upstream| upstream.answer.on_full_body(dialect, body));
        match read {
            Ok(()) => self.note_whole(policy, body),
            Err(failure) => self.fail(failure, body),
        }
        let (mut final_for_caller, mut retry_after) = (false, None);
        if let Some(Upstream { answer: Answer::Failed { status, code }, routed, is_body_envoys, .. }) =
            self.state.upstream_mut()
        {
            let served = routed.served.map(|served| policy.model(served.model));
            let own = CallersOwn {
                urls: &routed.urls,
                models: served.map_or([""; 2], |model| [&*model.name, &*model.upstream_id]),
            };
            let message = || if *is_body_envoys { ProviderMessage::default() } else { dialect.read_error(body) };
            let error = dialect.adapted(provider_error::error_body(*status, *code, &own, message));
            *status = error.status;
            *code = Some(error.code);
            routed.failed_as = routed.failed_as.map(|failed_as| provider_error::recorded(error.code, failed_as));
            final_for_caller = !provider_error::may_retry(&error);
            retry_after = provider_error::retry_after(&error);
            replace = Some((error.status, dialect.error_body(&error, &self.trace_id)));
        }
        let mut headers = self.response_headers(policy);
        headers.extend(self.cost_header(policy));
        if replace.is_some() {
            headers.retain(|(name, _)| *name != "content-type");
            headers.push(("content-type", "application/json".into()));
        }
        headers.extend(retry_after);
        if final_for_caller {
            headers.push(("x-should-retry", "false".into()));
        }
        Whole { headers, replace }
    }

    /// The header that tells what the request costs, if that is known.
    pub(super) fn cost_header(&self, policy: &Policy) -> Option<HeaderLine> {
        let cost = self.cost(policy, &self.usage()?.0)?;
        let MicroUsd(usd) = self.abandoned_cost().unwrap_or_default();
        Some(("x-pointsman-cost-usd", MicroUsd(cost.usd.0.saturating_add(usd)).to_decimal()))
    }

    /// The whole body of a response that was too long to hold has passed.
    pub(super) fn on_passed_through(&mut self, body: &[u8]) {
        // Only the record can say that it was not a completion: the caller already has it, and is charged for it.
        let dialect = self.dialect();
        if let Some(upstream) = self.state.upstream_mut()
            && upstream.answer.on_full_body(dialect, body).is_err()
        {
            upstream.answer.on_truncated(body);
        }
    }

    /// A response too long to hold broke off after this part of its body.
    pub(super) fn on_truncated(&mut self, body: &[u8]) {
        if let Some(upstream) = self.state.upstream_mut() {
            upstream.answer.on_truncated(body);
        }
    }

    /// This many bytes of a response have passed, too many to read: its usage is estimated. `is_whole`: that was all of
    /// it.
    pub(super) fn on_uninspected(&mut self, bytes: usize, is_whole: bool) {
        if let Some(upstream) = self.state.upstream_mut() {
            upstream.answer.on_uninspected(bytes, is_whole);
        }
    }

    /// A held response has become too long to hold. `Ok`: set these headers and pass it. `Err`: answer this instead,
    /// because a failed response never reaches the caller as it came. `held`: the body so far.
    pub(super) fn release(&mut self, policy: &Policy, held: &[u8]) -> Result<Vec<HeaderLine>, Reply> {
        if let Some(Upstream { answer: Answer::Whole { .. }, .. }) = self.state.upstream()
            && let Err(failure) = self.dialect().beginning(held)
        {
            self.fail(failure, held);
        }
        match self.state.upstream() {
            Some(Upstream { answer: Answer::Failed { .. }, .. }) => Err(self.failed_reply(policy)),
            _ => Ok(self.response_headers(policy)),
        }
    }

    /// The response claimed to be an answer but is not one.
    fn fail(&mut self, failure: Failure, body: &[u8]) {
        let means = match failure.code {
            Outcome::ErrorBody => {
                let code = self.dialect().read_error(body).code;
                provider_error::meaning(provider_error::blame_of_error(failure.status, code))
            }
            _ => None,
        };
        if let Some(upstream) = self.state.upstream_mut() {
            upstream.answer = Answer::failed(failure.status, means);
            upstream.routed.failed_as = Some(failure.code);
        }
    }

    fn set_answer(&mut self, answer: Answer) {
        if let Some(upstream) = self.state.upstream_mut() {
            upstream.answer = answer;
        }
    }

    /// The usage to charge, and whether it is an estimate; `None` if nothing is charged.
    pub(super) fn usage(&self) -> Option<(Usage, bool)> {
        self.counted().map(|(usage, estimated)| (usage, estimated.any()))
    }

    /// The usage to charge, and which of it is estimated; `None` if nothing is charged.
    pub(super) fn counted(&self) -> Option<(Usage, Estimated)> {
        // A cached answer uses no tokens.
        if self.saved().is_some() {
            return Some((Usage::default(), Estimated::default()));
        }
        let Upstream { routed, answer, .. } = self.state.upstream()?;
        if let Some(abandoned) = self.abandoned_last() {
            return Some((abandoned.usage, Estimated { input: true, output: true }));
        }
        let (mut usage, mut estimated) = answer.usage(routed.prompt_bytes)?;
        // One absurd report must not use up a month's budget.
        estimated.input |= usage.input > routed.most_tokens;
        estimated.output |= usage.output > routed.most_tokens;
        usage.input = usage.input.min(routed.most_tokens);
        usage.output = usage.output.min(routed.most_tokens);
        // Nothing says how much of an estimate of ours is audio.
        if estimated.input && routed.needs.may_hear() {
            usage.audio_input = u64::MAX;
        }
        if estimated.output && routed.needs.may_speak() {
            usage.audio_output = u64::MAX;
        }
        // An estimate of ours must not exceed the reservation, which is the most that the provider was allowed to use.
        let reserved = self.reserved_tokens();
        if estimated.input {
            usage.input = self.estimated_input().unwrap_or(usage.input);
            usage.input = reserved.map_or(usage.input, |(input, _)| usage.input.min(input));
        }
        if let (true, Some((_, output))) = (estimated.output, reserved) {
            usage.output = usage.output.min(output);
        }
        let usage = usage.limit_parts();
        Some((usage, estimated))
    }

    /// Whether an exchange with this outcome ended at a deadline that the caller set.
    pub(super) fn is_callers_deadline(&self, outcome: Outcome) -> bool {
        outcome == Outcome::DeadlineExceeded && self.caller.as_ref().is_some_and(|caller| caller.deadline_ms.is_some())
    }

    /// The gateway's own headers, set once per answer.
    pub(super) fn response_headers(&mut self, policy: &Policy) -> Vec<HeaderLine> {
        let mut headers = Vec::with_capacity(8 + self.quota.headers.len());
        headers.push(("x-pointsman-cache", self.cache_header().into()));
        headers.extend(self.dialect().id_header().map(|name| (name, self.trace_id.clone().into())));
        headers.append(&mut self.quota.headers);
        if let Some(corrected) = self.routed().and_then(|routed| routed.corrected_type) {
            headers.push(("content-type", corrected.into()));
        }
        if let Some(Routed { plan, served: Some(served), .. }) = self.routed() {
            let model = policy.model(served.model);
            headers.push(("x-pointsman-provider", (*policy.provider(model.provider).name).to_owned().into()));
            headers.push((
                "x-pointsman-fallback",
                if plan.models.first() == Some(&served.model) { "false" } else { "true" }.into(),
            ));
            if !served.headers_already_sent {
                headers.push(("x-pointsman-model", (*model.name).to_owned().into()));
                headers.push((
                    "x-pointsman-attempts",
                    match served.attempts {
                        1 => "1".into(),
                        attempts => attempts.to_string().into(),
                    },
                ));
            }
        }
        headers
    }
}

fn parse(number: &[u8]) -> Option<u32> {
    std::str::from_utf8(number).ok()?.parse().ok()
}
