//! The worst case of a request: the most that each model of its plan could use.

use crate::ids::{ModelId, TaskId};
use crate::policy::Policy;
use crate::policy::limits::Limits;
use crate::policy::output_limit::OutputLimit;
use crate::policy::price::MicroUsd;
use crate::quota::window::Amount;
use crate::request::facts::{AskedOutput, Facts};
use crate::tokens::Correction;
use crate::tokens::bound::{self, Bound, Weights};
use crate::tokens::sample::Sample;
use crate::usage::Usage;
use crate::wire::json::Span;
use std::cmp::Reverse;

/// Estimated input tokens of an image. The request does not reveal its size, so this is more than the usual hosted
/// models count for a large image. Audio, video and files reserve the same number, in addition to the tokens estimated
/// from their bytes in the body.
const IMAGE_TOKENS: u64 = 3000;

/// JSON within the messages. Around each message it is at least thirteen tokens, where templates add four to seven.
const OF_MESSAGES: Weights = Weights { string: 1, sign: 1 };
/// Other JSON: templates render tools with line breaks and indentation.
const OF_OTHERS: Weights = Weights { string: 2, sign: 2 };

/// The parts of the body without images, in order, and whether each is within the messages or system prompt.
fn parts<'r>(request: &'r Facts) -> impl Iterator<Item = (&'r [u8], bool)> {
    let mut edges = vec![0, request.body.len()];
    for span in request.images.iter().chain([&request.system, &request.messages]) {
        edges.extend([span.start, span.end]);
    }
    edges.sort_unstable();
    // A body may have very many images, so each is looked at once.
    let mut images: Vec<&Span> = request.images.iter().collect();
    images.sort_unstable_by_key(|image| (image.start, Reverse(image.end)));
    let mut images = images.into_iter().peekable();
    let is_in = |span: &Span, at: usize| span.contains(&at);
    let pairs: Vec<_> = edges.iter().copied().zip(edges.iter().copied().skip(1)).collect();
    pairs.into_iter().filter(|(from, to)| from < to).filter_map(move |(from, to)| {
        while images.next_if(|image| image.end <= from).is_some() {}
        let is_image = images.peek().is_some_and(|image| is_in(image, from));
        let is_of_messages = is_in(&request.system, from) || is_in(&request.messages, from);
        (!is_image).then(|| (request.bytes(&(from..to)), is_of_messages))
    })
}

/// Returns whether a request generates nothing and so is charged nothing: a count of tokens.
fn is_free(request: &Facts) -> bool {
    request.generated == 0
}

/// Returns what images, audio, video and files count.
pub fn media(request: &Facts) -> u64 {
    IMAGE_TOKENS.saturating_mul((request.images.len() + request.files.len()) as u64)
}

/// Returns an upper bound of the input tokens, for the tokenizers of [`bound`]. Everything in the body counts except
/// the bytes of images. Takes some ten nanoseconds per byte, and at most some 50 ms.
pub fn input_tokens(request: &Facts) -> u64 {
    if is_free(request) {
        return 0;
    }
    let (mut bound, mut buffer, mut around) = (Bound::default(), Vec::new(), 0);
    for (part, is_of_messages) in parts(request) {
        let weights = if is_of_messages { OF_MESSAGES } else { OF_OTHERS };
        around += bound::scan(part, weights, &mut buffer, &mut |text| bound.add(text));
    }
    bound.tokens().saturating_add(around).saturating_add(media(request))
}

/// Returns a higher upper bound: about one token per byte. Takes a fraction of a nanosecond per byte.
pub fn rough_input_tokens(request: &Facts) -> u64 {
    if is_free(request) {
        return 0;
    }
    let rough = |(part, is_of_messages)| bound::rough_tokens(part) * if is_of_messages { 1 } else { 2 };
    parts(request).map(rough).sum::<u64>().saturating_add(media(request))
}

/// Returns a sample of the body, to estimate its tokens later. `phase`: a number that the caller cannot choose.
pub fn sample(request: &Facts, phase: u64) -> Sample {
    let parts: Vec<&[u8]> = parts(request).map(|(part, _)| part).collect();
    Sample::take(&parts, phase)
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
/// limit if the provider may ignore the name under which the caller sent its limit. Other fields may raise it.
fn output_limit(policy: &Policy, request: &Facts, task: Option<TaskId>, id: ModelId, most: Option<u64>) -> u64 {
    let model = policy.model(id);
    let task = task.and_then(|task| policy.task(task).max_output_tokens);
    // If the model has a set parameter name, the caller's limit is sent under that name.
    let asked = if model.output_param.is_some() { request.output.least } else { request.output.as_written };
    let limit = match asked.is_none() && request.output.least.is_some() {
        true => model.max_output_tokens,
        false => [Some(model.max_output_tokens), task, most, asked].into_iter().flatten().min().unwrap_or(0),
    };
    // No answer is longer than the context window.
    let AskedOutput { raised, beside, .. } = request.output;
    limit.max(raised.min(model.context)).saturating_add(beside.min(model.context))
}

/// Returns the most output tokens of each model, for all answers that are generated.
pub fn most_output(
    policy: &Policy,
    output: OutputLimit,
    request: &Facts,
    task: Option<TaskId>,
    models: &[ModelId],
) -> Vec<u64> {
    let one = |id: &ModelId| output_limit(policy, request, task, *id, output.of(*id)).saturating_mul(request.generated);
    models.iter().map(one).collect()
}

/// Returns the worst case of each model, at the highest of the prices that may apply to what the request asks for.
/// `input`: a bound of the input tokens. `correction`: what has been learned about a model's tokenizer.
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
        let output = output_limit(policy, request, task, *id, output.of(*id)).saturating_mul(request.generated);
        // The estimate is 0 if no limit depends on tokens. Then skip the correction.
        let input = if input == 0 { 0 } else { correction(*id).apply(input) };
        let model = policy.model(*id);
        let asked = model.asked(request.service_tier, request.needs, has_budget);
        let cost = model.price.as_ref().map_or(MicroUsd(0), |price| price.worst(input, output, asked));
        (*id, amount(&Usage { input, output, ..Usage::default() }, cost))
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
    fn a_hundred_thousand_images_are_counted_as_fast_as_few() {
        let images = vec![r#"{"type":"image_url","image_url":1}"#; 100_000].join(",");
        let body = format!(r#"{{"messages":[{{"role":"user","content":[{images}]}}]}}"#);
        let request = ClientDialect::OpenAi.parse(body.as_bytes(), 16).unwrap();
        assert_eq!(parts(request.facts()).count(), 100_003);
        assert!(rough_input_tokens(request.facts()) >= 100_000 * IMAGE_TOKENS);
    }

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

    #[test]
    fn what_multiplies_or_raises_the_output_is_reserved() {
        let policy = crate::fixture::policy();
        let big = policy.find_model("big").unwrap();
        let most = |members: &str| {
            let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"max_tokens":100{members}}}"#);
            let request = ClientDialect::OpenAi.parse(body.as_bytes(), 16).unwrap();
            most_output(&policy, OutputLimit::default(), request.facts(), None, &[big])[0]
        };
        for (members, tokens) in [
            ("", 100),
            (r#","n":3"#, 300),
            (r#","best_of":4"#, 400),
            (r#","best_of":4,"n":3"#, 400),
            (r#","best_of":2,"n":3"#, 300),
            (r#","num_return_sequences":5.0"#, 500),
            (r#","min_tokens":250"#, 250),
            (r#","min_tokens":50"#, 100),
            (r#","num_predict":900,"n":2"#, 1800),
            (r#","max_new_tokens":9e2"#, 900),
            // No limit: no answer is longer than the context.
            (r#","num_predict":-1"#, 100_000),
            (r#","n_predict":99999999999999999999"#, 100_000),
            (r#","thinking":{"type":"enabled","budget_tokens":400}"#, 500),
            (r#","thinking":{"type":"disabled"}"#, 100),
            (r#","reasoning":{"max_tokens":40}"#, 140),
            (r#","thinking_budget":30"#, 130),
            (r#","thinking_budget":null,"best_of":null"#, 100),
            (r#","prediction":{"type":"content","content":"x"}"#, 132),
        ] {
            assert_eq!(most(members), tokens, "{members}");
        }
    }
}
