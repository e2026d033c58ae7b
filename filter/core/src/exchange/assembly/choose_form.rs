//! Chooses the form in which a whole answer is asked for, and sets memory aside for it.

use crate::dialect::client::ClientRequest;
use crate::exchange::Exchange;
use crate::exchange::form::{Form, Why};
use crate::exchange::reception::COPY_LIMIT;
use crate::memory::Context;
use crate::policy::Policy;
use crate::policy::output_limit::OutputLimit;
use crate::quota::demand;
use crate::request::facts::Facts;
use crate::routing::plan::Plan;
use crate::wire::json::Kind;

/// The bytes that a token of output may have in an answer, as JSON. Four are usual, and six for an escape.
const OF_TOKEN: usize = 64;
/// The bytes of one alternative in its log probabilities.
const OF_LOGPROB: usize = 256;
/// The bytes of an answer besides its output.
const FRAME: usize = 16 << 10;

impl Exchange {
    /// In which form to ask for the whole answer to a request; `None` if that is not the question. Sets aside the
    /// memory that the answer can need at the output limit that is sent, so no other request can take it later.
    pub(in crate::exchange) fn form(
        &self,
        context: &mut Context,
        request: &ClientRequest,
        plan: &Plan,
        output: OutputLimit,
    ) -> Option<Form> {
        let (policy, facts) = (context.policy, request.facts());
        let tenant = self.caller.as_ref()?.tenant;
        if facts.stream || !plan.task.is_some_and(|task| policy.task(task).stream_upstream) {
            return None;
        }
        let doubtful = &context.memory.doubtful;
        Some(if !request.is_streamable() {
            Form::Whole(Why::Request)
        } else if !plan.models.iter().all(|model| policy.model(*model).takes("stream_options")) {
            Form::Whole(Why::Model)
        } else if plan.models.iter().any(|model| doubtful.contains(&(tenant, *model))) {
            Form::Whole(Why::Doubted)
        } else {
            match context.memory.copies.of(tenant).reserve(room(policy, facts, plan, output)) {
                Some(room) => Form::Assembled(Some(room)),
                None => Form::Whole(Why::NoRoom),
            }
        })
    }
}

/// Returns the bytes that the answer can need.
fn room(policy: &Policy, facts: &Facts, plan: &Plan, output: OutputLimit) -> usize {
    let most = demand::most_output(policy, output, facts, plan.task, &plan.models);
    let tokens = usize::try_from(most.into_iter().max().unwrap_or(0)).unwrap_or(usize::MAX);
    let logprobs = match facts.member("logprobs") {
        Some(member) if facts.bytes(&member.value.span) == b"true" => {
            let top = facts.member("top_logprobs").filter(|member| member.value.kind == Kind::Number);
            let top = top.and_then(|member| facts.number(&member.value.span)).unwrap_or(0.0);
            (1 + top.clamp(0.0, 1000.0) as usize).saturating_mul(OF_LOGPROB)
        }
        _ => 0,
    };
    tokens.saturating_mul(logprobs.saturating_add(OF_TOKEN)).saturating_add(FRAME).min(COPY_LIMIT)
}
