//! The worst case of a request: the most that each model of its plan could use.

use crate::ids::{ModelId, TaskId};
use crate::policy::Policy;
use crate::policy::limits::Limits;
use crate::policy::output_limit::OutputLimit;
use crate::policy::price::MicroUsd;
use crate::quota::window::Amount;
use crate::request::facts::Facts;
use crate::tokens::{self, Correction};
use crate::usage::Usage;

/// Estimated input tokens of an image. The request does not reveal its size, so this is more than the usual hosted
/// models count for a large image. Audio, video and files reserve the same number, in addition to the tokens estimated
/// from their bytes in the body.
const IMAGE_TOKENS: u64 = 3000;

/// Estimates the input tokens. Everything in the body counts except the bytes of images.
pub fn input_tokens(request: &Facts) -> u64 {
    let (mut scaled, mut from) = (0u64, 0);
    for image in &request.images {
        scaled += tokens::scaled_tokens(request.bytes(&(from..image.start)));
        from = image.end;
    }
    scaled += tokens::scaled_tokens(request.bytes(&(from..request.body.len())));
    scaled.div_ceil(64).saturating_add(IMAGE_TOKENS.saturating_mul((request.images.len() + request.files.len()) as u64))
}

/// Returns whether the input estimate can be compared with the provider's count. It can if the prompt is at least three
/// quarters of the body and there are no images or files: a provider may not count the request's other fields, and the
/// tokens of images and files are only guessed.
pub fn is_estimate_comparable(request: &Facts) -> bool {
    request.images.is_empty()
        && request.files.is_empty()
        && request.prompt_bytes().saturating_mul(4) >= request.body.len().saturating_mul(3)
}

/// Returns the most output tokens of one choice of `model`: the limit that is sent to the provider, or the model's own
/// limit if the provider may ignore the name under which the caller sent its limit.
fn output_limit(policy: &Policy, request: &Facts, task: Option<TaskId>, id: ModelId, most: Option<u64>) -> u64 {
    let model = policy.model(id);
    let task = task.and_then(|task| policy.task(task).max_output_tokens);
    // If the model has a set parameter name, the caller's limit is sent under that name.
    let asked = if model.output_param.is_some() { request.output.least } else { request.output.as_written };
    if asked.is_none() && request.output.least.is_some() {
        return model.max_output_tokens;
    }
    [Some(model.max_output_tokens), task, most, asked].into_iter().flatten().min().unwrap_or(0)
}

/// Returns the most output tokens of each model, for all choices.
pub fn most_output(
    policy: &Policy,
    output: OutputLimit,
    request: &Facts,
    task: Option<TaskId>,
    models: &[ModelId],
) -> Vec<u64> {
    let one = |id: &ModelId| output_limit(policy, request, task, *id, output.of(*id)).saturating_mul(request.choices);
    models.iter().map(one).collect()
}

/// Returns the worst case of each model, at the base price or at that of the service tier which the request asks for,
/// whichever is higher. `input`: the estimated input tokens. `correction`: what has been learned about
/// a model's tokenizer.
pub fn worst_cases(
    policy: &Policy,
    output: OutputLimit,
    request: &Facts,
    task: Option<TaskId>,
    models: &[ModelId],
    input: u64,
    mut correction: impl FnMut(ModelId) -> Correction,
) -> Vec<(ModelId, Amount)> {
    let has_budget = output.limits.is_some_and(Limits::has_budget);
    let one = |id: &ModelId| {
        let output = output_limit(policy, request, task, *id, output.of(*id)).saturating_mul(request.choices);
        // The estimate is 0 if no limit depends on tokens. Then skip the correction.
        let input = if input == 0 { 0 } else { correction(*id).apply(input) };
        // Input that the provider's prompt cache serves or stores has its own price: reserve the highest cost.
        let model = policy.model(*id);
        let tier = model.asked_tier(request.service_tier, has_budget);
        let cost = |usage: &Usage| model.price.as_ref().map_or(MicroUsd(0), |price| price.worst(usage, tier));
        let [plain, cached, written] = [(0, 0), (input, 0), (0, input)].map(|(cached_input, cache_write)| {
            let usage = Usage { input, cached_input, cache_write, output };
            amount(&usage, cost(&usage))
        });
        (*id, plain.max(cached).max(written))
    };
    models.iter().map(one).collect()
}

/// Returns what `usage` counts against limits.
pub fn amount(usage: &Usage, cost: MicroUsd) -> Amount {
    Amount::new(usage.input.saturating_add(usage.output), cost.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::client::ClientDialect;

    #[test]
    fn an_images_bytes_are_no_tokens_but_each_image_is_some() {
        let body = |url: &str| {
            format!(
                r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"What is this?"}},{{"type":"image_url","image_url":{{"url":"{url}"}}}},{{"type":"image_url","image_url":{{"url":"{url}"}}}}]}}]}}"#
            )
        };
        let tokens = |body: &str| input_tokens(ClientDialect::OpenAi.parse(body.as_bytes(), 16).unwrap().facts());
        let small = tokens(&body("https://example.com/a.png"));
        assert_eq!(small, tokens(&body(&format!("data:image/png;base64,{}", "iVBORw0KGgo".repeat(10_000)))));
        assert!((2 * IMAGE_TOKENS..2 * IMAGE_TOKENS + 120).contains(&small), "{small}");
        for kind in ["video_url", "audio_url", "input_audio", "file"] {
            let body =
                format!(r#"{{"messages":[{{"role":"user","content":[{{"type":"{kind}","{kind}":{{"x":"y"}}}}]}}]}}"#);
            assert!((IMAGE_TOKENS..IMAGE_TOKENS + 120).contains(&tokens(&body)), "{kind}");
        }
        let words = tokens(r#"{"messages":[{"role":"user","content":"What is this?"}]}"#);
        assert!((4..40).contains(&words), "{words}");
    }
}
