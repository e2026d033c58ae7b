//! A whole answer that is put together from a stream (`stream_upstream`): when it may be, and what the caller gets.
//!
//! Nothing reaches the caller before the stream has ended, so a stream that fails becomes an error with a status. What
//! was made until then is known, and charged.

use crate::cache::local::recording::Recording;
use crate::dialect::client::ClientRequest;
use crate::exchange::answer::Answer;
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
use crate::routing::plan::Plan;
use crate::store::shared_data::SharedData;

impl Exchange {
    /// Whether to put the whole answer to a request together from a stream: the policy wants it, and the answer is the
    /// same as far as the request, the models and their streams so far tell.
    pub(super) fn assembles(context: &Context, request: &ClientRequest, plan: &Plan) -> bool {
        let policy = context.policy;
        plan.task.is_some_and(|task| policy.task(task).stream_upstream)
            && !request.facts().stream
            && plan.models.iter().all(|model| {
                // Without it, the stream has no usage.
                policy.model(*model).takes("stream_options") && !context.memory.doubtful.contains(model)
            })
            && request.is_streamable()
    }

    /// Whether the caller gets a whole answer that is put together from a stream, which has begun.
    pub(super) fn is_assembled(&self) -> bool {
        matches!(self.state.upstream(), Some(Upstream { answer: Answer::Stream(stream), .. }) if stream.is_held())
    }

    /// How to record a stream: for the caller, or for the cache.
    pub(super) fn recording(&self, context: &Context) -> Option<Recording> {
        match self.routed().is_some_and(|routed| routed.is_assembled) {
            true => {
                Some(Recording { max_bytes: COPY_LIMIT, budget: context.memory.copies.guard(), is_for_caller: true })
            }
            false => self.stored_recording(context),
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
            return OnResponseBody::Drop.into();
        }
        self.estimate_abandoned(context.policy, shared);
        let answer = self.state.upstream_mut().map(|upstream| &mut upstream.answer);
        let Some(Answer::Stream(stream)) = answer else { return BodyStep::PASS };
        let is_unmarked = stream.is_unmarked();
        let assembled = match stream.take_assembled() {
            Ok(assembled) => assembled,
            Err(error) => {
                self.receive(Reception::Over);
                let reply = self.broken(context.policy, error);
                return BodyStep { next: OnResponseBody::Reply(reply), call: None, is_over: true };
            }
        };
        let status = self.state.status().unwrap_or(200);
        match (assembled.is_doubtful, self.routed().and_then(|routed| routed.served)) {
            (true, Some(served)) => drop(context.memory.doubtful.insert(served.model)),
            _ if is_unmarked => {}
            _ => self.note_whole(context.policy, &assembled.body),
        }
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
        Reply { status: error.status, headers, body: self.dialect().error_body(&error), code: None }
    }
}
