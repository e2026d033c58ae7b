//! A whole answer that is put together from a stream (`stream_upstream`): what the caller gets, and what a doubt means.
//!
//! Nothing reaches the caller before the stream has ended, so a stream that fails becomes an error with a status. What
//! was made until then is known, and charged.

use crate::cache::local::recording::{Recording, RecordingBudget};
use crate::exchange::answer::Answer;
use crate::exchange::form::Form;
use crate::exchange::reception::COPY_LIMIT;
use crate::exchange::state::{Reception, Upstream};
use crate::exchange::{BodyPart, BodyStep, Exchange, OnResponseBody, Whole};
use crate::memory::Context;
use crate::outcome::error_body::ProviderMessage;
use crate::outcome::outcome::Outcome;
use crate::outcome::provider_error::{self, CallersOwn};
use crate::outcome::reply::Reply;
use crate::policy::Policy;
use crate::quota::store::Store;
use crate::routing::attempt;
use crate::store::shared_data::SharedData;

mod choose_form;

impl Exchange {
    /// Whether the caller gets a whole answer that is put together from a stream, which has begun.
    pub fn is_assembled(&self) -> bool {
        matches!(self.state.upstream(), Some(Upstream { answer: Answer::Stream(stream), .. }) if stream.is_held())
    }

    /// How to record a stream: for the caller, or for the cache.
    pub(super) fn recording(&self, context: &Context) -> Option<Recording> {
        match self.room() {
            Some(room) => Some(Recording { max_bytes: COPY_LIMIT, budget: room.guard(), is_for_caller: true }),
            None => self.stored_recording(context),
        }
    }

    /// The memory for the answer that is put together from a stream.
    pub(super) fn room(&self) -> Option<&RecordingBudget> {
        match self.routed()?.form.as_ref()? {
            Form::Assembled(room) => room.as_ref(),
            Form::Doubtful | Form::Whole(_) => None,
        }
    }

    /// The stream of the model that serves has left a doubt what the whole answer is. The tenant's next requests to it
    /// are for whole answers.
    fn doubt(&mut self, context: &mut Context) {
        let Some(tenant) = self.caller.as_ref().map(|caller| caller.tenant) else { return };
        let Some(routed) = self.state.upstream_mut().map(|upstream| &mut upstream.routed) else { return };
        routed.form = Some(Form::Doubtful);
        let Some(served) = routed.served else { return };
        if context.memory.doubtful.insert((tenant, served.model)) {
            routed.first_doubt = Some(served.model);
        }
    }

    /// What to log of the first doubt about a model's streams to a tenant.
    pub(super) fn doubt_line(&self, policy: &Policy) -> Option<String> {
        let (routed, caller) = (self.routed()?, self.caller.as_ref()?);
        let model = routed.first_doubt?;
        Some(format!(
            "pointsman: the stream of model {} (provider {}) did not say for certain what the whole response is (task \
             {}, request {}). Until the policy changes, this worker requests whole responses from the model for tenant \
             {}. llm_not_assembled_total counts them.",
            policy.model(model).name,
            policy.provider_of(model).name,
            routed.plan.task.map_or("none", |task| &policy.task(task).name),
            self.trace_id,
            policy.tenant(caller.tenant).name,
        ))
    }

    /// Nothing more is put together, although the response may linger.
    fn give_room_back(&mut self) {
        let Some(upstream) = self.state.upstream_mut() else { return };
        if let Answer::Stream(stream) = &mut upstream.answer {
            stream.release();
        }
        if let Some(Form::Assembled(room)) = &mut upstream.routed.form {
            *room = None;
        }
    }

    /// A part of the stream has arrived.
    pub(super) fn assemble<S: Store + SharedData>(
        &mut self,
        context: &mut Context,
        part: &BodyPart,
        shared: &mut S,
    ) -> BodyStep {
        let BodyPart { size, end_of_stream, read, now_ms } = *part;
        let chunk = if size > 0 { read(size) } else { Vec::new() };
        self.stream_chunk(&chunk, end_of_stream, now_ms);
        if !self.is_over() {
            // For Envoy's own reply, if the stream breaks off.
            return OnResponseBody::Drop(self.cost_header(context.policy).map(|(_, cost)| cost)).into();
        }
        self.estimate_abandoned(context.policy, shared);
        let answer = self.state.upstream_mut().map(|upstream| &mut upstream.answer);
        let Some(Answer::Stream(stream)) = answer else { return BodyStep::PASS };
        let is_unmarked = stream.is_unmarked();
        let assembled = match stream.take_assembled() {
            Ok(assembled) => assembled,
            Err(error) => {
                if stream.is_unfit() {
                    self.doubt(context);
                }
                self.give_room_back();
                self.receive(Reception::Over);
                let reply = self.broken(context.policy, error);
                return BodyStep { next: OnResponseBody::Reply(reply), call: None, is_over: true };
            }
        };
        let status = self.state.status().unwrap_or(200);
        match assembled.is_doubtful {
            true => self.doubt(context),
            false if is_unmarked => {}
            false => self.note_whole(context.policy, &assembled.body),
        }
        self.give_room_back();
        let mut headers = self.response_headers(context.policy);
        headers.extend(self.cost_header(context.policy));
        let call = self.keep_if_wanted(context, shared, now_ms);
        // The caller has all of it. Nothing that follows passes.
        self.receive(if end_of_stream { Reception::Over } else { Reception::Stream });
        let whole = Whole { headers, replace: Some((status, assembled.body)) };
        BodyStep { next: OnResponseBody::Complete(whole, size), call, is_over: true }
    }

    /// Trailers end the stream. No body can follow them, so the answer is a reply of its own.
    pub(super) fn assemble_at_trailers<S: Store + SharedData>(
        &mut self,
        context: &mut Context,
        part: &BodyPart,
        shared: &mut S,
    ) -> BodyStep {
        if let Some(served) = self.state.upstream_mut().and_then(|upstream| upstream.routed.served.as_mut()) {
            served.headers_already_sent = false;
        }
        let BodyStep { next, call, is_over } = self.assemble(context, &BodyPart { size: 0, ..*part }, shared);
        let next = match next {
            OnResponseBody::Complete(Whole { headers, replace: Some((status, body)) }, _) => {
                OnResponseBody::Reply(Reply { status, headers, body, code: None })
            }
            other => other,
        };
        BodyStep { next, call, is_over }
    }

    /// The reply in place of an answer whose stream failed.
    fn broken(&mut self, policy: &Policy, why: Outcome) -> Reply {
        let error = provider_error::error_body(502, Some(why), &CallersOwn::default(), ProviderMessage::default);
        let error = self.dialect().adapted(error);
        if let Some(upstream) = self.state.upstream_mut() {
            // The reply has none of the headers of the answer that it replaces.
            upstream.routed.served = upstream.routed.served.map(|mut served| {
                served.headers_already_sent = false;
                served
            });
            upstream.routed.corrected_type = Some(attempt::JSON);
            if let Answer::Stream(stream) = &mut upstream.answer {
                stream.fail(error.status);
            }
        }
        let mut headers = self.response_headers(policy);
        headers.extend(self.cost_header(policy));
        Reply { status: error.status, headers, body: self.dialect().error_body(&error, &self.trace_id), code: None }
    }
}
