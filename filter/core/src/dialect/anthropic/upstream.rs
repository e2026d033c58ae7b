//! The request as it goes upstream: the caller's bytes behind a short head, the only part that differs between
//! attempts. The head has `model`, and `max_tokens` where the policy lowers it.

use crate::dialect::anthropic::request::MessagesRequest;
use crate::ids::{ModelId, TaskId};
use crate::policy::limits::Limits;
use crate::policy::output_limit::OutputLimit;
use crate::policy::{Model, Policy};
use crate::request::facts::Member;
use crate::request::splice::Splice;
use crate::wire::json::quote_into;

/// Builds the request for the plan's `models`.
pub fn build(
    policy: &Policy,
    request: &MessagesRequest,
    task: Option<TaskId>,
    models: &[ModelId],
    output: OutputLimit,
) -> Splice {
    let facts = &request.facts;
    let task_limit = task.and_then(|task| policy.task(task).max_output_tokens);
    let has_budget = output.limits.is_some_and(Limits::has_budget);
    // Each model with the output limit of its requests; `None` where they have none.
    let models: Vec<(&Model, Option<u64>)> = models
        .iter()
        .map(|id| {
            let model = policy.model(*id);
            let most = output.of(*id).into_iter().chain(task_limit).chain([model.max_output_tokens]).min();
            (model, facts.output.least.and_then(|asked| most.map(|most| asked.min(most))))
        })
        .collect();
    let limit_changes = models.iter().any(|(_, limit)| *limit != facts.output.least);
    let takes = |model: &Model, name: &str| {
        model.takes(name) && !model.drops_for_price(name, facts.service_tier, facts.needs, has_budget)
    };
    let moves = |member: &Member| match &*member.name {
        "model" => true,
        "max_tokens" if limit_changes => true,
        name => models.iter().any(|(model, _)| !takes(model, name)),
    };
    let moved: Vec<&Member> = facts.members.iter().filter(|member| moves(member)).collect();
    let heads = models
        .iter()
        .map(|(model, limit)| {
            let mut head = Vec::with_capacity(96);
            head.extend_from_slice(b"{\"model\":");
            quote_into(&mut head, &model.upstream_id);
            if let Some(limit) = limit.filter(|_| limit_changes) {
                head.extend_from_slice(b",\"max_tokens\":");
                head.extend_from_slice(itoa::Buffer::new().format(limit).as_bytes());
            }
            for member in &moved {
                let is_written = matches!(&*member.name, "model" | "max_tokens");
                if !is_written && takes(model, &member.name) {
                    head.push(b',');
                    head.extend_from_slice(facts.bytes(&(member.key.start..member.value.span.end)));
                }
            }
            head.push(b',');
            head
        })
        .collect();
    Splice::new(facts, heads, moves)
}
