//! A response as it arrives at the gateway stage: passed, held, copied or counted, and stored at its end.

use crate::cache::local::recording::{BudgetGuard, RecordingBudget};
use crate::exchange::state::{Reception, State};
use crate::exchange::{
    BodyPart, BodyStep, Exchange, Observer, OnResponseBody, OnResponseHead, ResponseHead, ResponseStep,
};
use crate::memory::Context;
use crate::quota::store::Store;
use crate::routing::attempt::HOLD_LIMIT;
use crate::store::shared_data::SharedData;
use crate::wire::http_call::HttpCall;

/// Max bytes of a response to copy; the usage of a longer one is estimated.
pub(super) const COPY_LIMIT: usize = 8 << 20;

impl Exchange {
    /// The response's headers have arrived.
    pub fn on_response_headers(
        &mut self,
        context: &mut Context,
        head: &ResponseHead,
        host: &impl Observer,
    ) -> ResponseStep {
        let is_awaited =
            |state: &State| state.upstream().is_some_and(|upstream| matches!(upstream.reception, Reception::Awaited));
        if !is_awaited(&self.state) {
            return ResponseStep {
                next: OnResponseHead::Own,
                attempts: None,
                leaves_first_model: false,
                skips_model_stage: false,
            };
        }
        let mut head = *head;
        let details;
        if !(200..300).contains(&head.status) {
            details = host.code_details();
            head.details = &details;
            // No remaining model is healthy: the last attempt's failure says more.
            let is_unserved = details.starts_with("no_healthy_upstream");
            if is_unserved || !self.skips_model_stage() {
                head.last_failure = host.last_failure();
            }
        }
        if head.model.is_empty() && !self.skips_model_stage() {
            head.last_attempt = host.last_attempt();
        }
        let next = self.response_head(context, &head);
        let answers = self.answering_attempt();
        let attempts = match self.is_hedged(context.policy) {
            true => self.hedge_won_by_other(host.last_attempt()),
            false => None,
        };
        match answers {
            Some(number) if self.answering_attempt() > Some(1) => {
                self.note_attempts(context.policy, host, Some(number));
            }
            None if self.is_given_up(context.policy) => self.note_attempts(context.policy, host, None),
            _ => {}
        }
        self.receive(match next {
            OnResponseHead::Own | OnResponseHead::Replace(_) => Reception::Over,
            OnResponseHead::Stream(_) => Reception::Stream,
            OnResponseHead::Hold if self.is_assembled() => Reception::Assembled,
            OnResponseHead::Hold => Reception::Held,
        });
        ResponseStep {
            next,
            attempts,
            leaves_first_model: self.is_fallback(),
            skips_model_stage: self.skips_model_stage(),
        }
    }

    /// A part of the response's body has arrived.
    pub fn on_response_body<S: Store + SharedData>(
        &mut self,
        context: &mut Context,
        part: &BodyPart,
        shared: &mut S,
    ) -> BodyStep {
        let BodyPart { size, end_of_stream, read, now_ms } = *part;
        let Some(upstream) = self.state.upstream_mut() else { return BodyStep::PASS };
        match &mut upstream.reception {
            Reception::Stream => {
                let chunk = if size > 0 { read(size) } else { Vec::new() };
                let next = match self.stream_chunk(&chunk, end_of_stream, now_ms) {
                    _ if self.goes_on_too_long() => OnResponseBody::Reset,
                    Some(replacement) => OnResponseBody::Replace(replacement),
                    None => OnResponseBody::Pass,
                };
                // Many callers leave once they have the end marker, before the body has ended.
                let is_over = end_of_stream || self.is_over();
                let call =
                    if end_of_stream || self.is_done() { self.keep_if_wanted(context, shared, now_ms) } else { None };
                BodyStep { next, call, is_over }
            }
            Reception::Assembled => self.assemble(context, part, shared),
            Reception::Held if end_of_stream => self.complete(context, part, shared),
            Reception::Held if size <= HOLD_LIMIT => OnResponseBody::Hold.into(),
            Reception::Held => {
                let held = read(size);
                let mut budget = self.copy_budget(context);
                match self.release(context.policy, &held) {
                    Ok(headers) => {
                        self.receive(match budget.set(held.len()) {
                            true => Reception::Copied(held, budget),
                            false => Reception::Counted(held.len()),
                        });
                        OnResponseBody::Release(headers).into()
                    }
                    Err(reply) => {
                        self.receive(Reception::Over);
                        OnResponseBody::Reply(reply).into()
                    }
                }
            }
            Reception::Copied(copy, budget) => {
                let all = copy.len() + size;
                match all <= COPY_LIMIT && budget.set(all) {
                    true => copy.extend(read(size)),
                    false => upstream.reception = Reception::Counted(all),
                }
                match end_of_stream {
                    true => self.end(context, part, shared),
                    false => BodyStep::PASS,
                }
            }
            Reception::Counted(bytes) => {
                *bytes += size;
                match end_of_stream {
                    true => self.end(context, part, shared),
                    false => BodyStep::PASS,
                }
            }
            Reception::Awaited | Reception::Over => BodyStep::PASS,
        }
    }

    /// The memory for the copy of a long response: a part of the tenant's share.
    fn copy_budget(&self, context: &mut Context) -> BudgetGuard {
        match &self.caller {
            Some(caller) => context.memory.copies.of(caller.tenant).guard(),
            None => RecordingBudget::new(0).guard(),
        }
    }

    /// The response's trailers have arrived and end it. `part`: its size is unknown.
    pub fn on_response_trailers<S: Store + SharedData>(
        &mut self,
        context: &mut Context,
        part: &BodyPart,
        shared: &mut S,
    ) -> BodyStep {
        let Some(upstream) = self.state.upstream() else { return BodyStep::PASS };
        match upstream.reception {
            Reception::Assembled => self.assemble_at_trailers(context, part, shared),
            Reception::Held => self.complete(context, part, shared),
            Reception::Copied(..) | Reception::Counted(_) => self.end(context, part, shared),
            // Its last chunk has gone, so nothing can be sent any more, neither a missing part nor an error.
            Reception::Stream => {
                let next = match self.ends_short(part.now_ms) {
                    true => OnResponseBody::Reset,
                    false => OnResponseBody::Pass,
                };
                let call = self.keep_if_wanted(context, shared, part.now_ms);
                self.receive(Reception::Over);
                BodyStep { next, call, is_over: false }
            }
            Reception::Awaited | Reception::Over => BodyStep::PASS,
        }
    }

    /// The response broke off, or ended long ago: what has passed of an unheld one is known.
    pub(super) fn end_reception(&mut self) {
        match self.receive(Reception::Over) {
            Some(Reception::Copied(copy, _)) => self.on_truncated(&copy),
            Some(Reception::Counted(bytes)) => self.on_uninspected(bytes, false),
            _ => {}
        }
    }

    /// A held response is whole.
    fn complete<S: Store + SharedData>(&mut self, context: &mut Context, part: &BodyPart, shared: &mut S) -> BodyStep {
        let body = (part.read)(usize::MAX);
        if self.has_reserved()
            && let Some(upstream) = self.state.upstream_mut()
        {
            upstream.answered_ms = Some((part.now_ms)());
        }
        self.estimate_abandoned(context.policy, shared);
        let whole = self.on_full_body(context.policy, &body);
        let call = self.keep_if_wanted(context, shared, part.now_ms);
        self.receive(Reception::Over);
        BodyStep { next: OnResponseBody::Complete(whole, body.len()), call, is_over: false }
    }

    /// A response that was not held is whole.
    fn end(&mut self, context: &mut Context, part: &BodyPart, shared: &mut dyn SharedData) -> BodyStep {
        match self.receive(Reception::Over) {
            Some(Reception::Copied(copy, _)) => self.on_passed_through(&copy),
            Some(Reception::Counted(bytes)) => self.on_uninspected(bytes, true),
            _ => {}
        }
        BodyStep { next: OnResponseBody::Pass, call: self.keep_if_wanted(context, shared, part.now_ms), is_over: false }
    }

    pub(super) fn receive(&mut self, reception: Reception) -> Option<Reception> {
        self.state.upstream_mut().map(|upstream| std::mem::replace(&mut upstream.reception, reception))
    }

    pub(super) fn keep_if_wanted(
        &mut self,
        context: &mut Context,
        shared: &mut dyn SharedData,
        now_ms: &dyn Fn() -> u64,
    ) -> Option<HttpCall> {
        if self.keeps() { self.keep(context, shared, now_ms()) } else { None }
    }
}
