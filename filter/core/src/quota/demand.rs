//! The worst case of a request: what every model of its plan could take at the most.

use super::limits::Limits;
use super::window::Amount;
use crate::chat_request::ChatRequest;
use crate::policy::{ModelId, Policy, TaskId};
use crate::usage::Usage;

/// Tokens of an image, which nothing in the request tells: what the larger hosted models take for a detailed one.
const IMAGE_TOKENS: u64 = 3000;

/// Input tokens by estimate.
pub fn input_tokens(request: &ChatRequest) -> u64 {
    let images = if request.has_image { IMAGE_TOKENS } else { 0 };
    (request.body.len() as u64).div_ceil(2).saturating_add(images)
}

/// The output limit of one answer of `model`, in tokens: what is sent to the provider.
pub fn output_limit(
    policy: &Policy,
    request: &ChatRequest,
    task: Option<TaskId>,
    id: ModelId,
    most: Option<u64>,
) -> u64 {
    let model = policy.model(id);
    let task = task.and_then(|task| policy.task(task).max_output_tokens);
    [Some(model.max_output_tokens), task, most, request.asked_output()].into_iter().flatten().min().unwrap_or(0)
}

/// The worst case of each model.
pub fn worst_cases(
    policy: &Policy,
    limits: &Limits,
    request: &ChatRequest,
    task: Option<TaskId>,
    models: &[ModelId],
    input: u64,
) -> Vec<(ModelId, Amount)> {
    let one = |id: &ModelId| {
        let output = output_limit(policy, request, task, *id, limits.max_output).saturating_mul(request.choices);
        let usage = Usage { input, cached_input: 0, output };
        (*id, amount(policy, *id, &usage))
    };
    models.iter().map(one).collect()
}

/// What `usage` of a model counts for.
pub fn amount(policy: &Policy, model: ModelId, usage: &Usage) -> Amount {
    let cost = policy.model(model).price.as_ref().map_or(0, |price| price.cost(usage).0);
    Amount::new(usage.input.saturating_add(usage.output), cost)
}
