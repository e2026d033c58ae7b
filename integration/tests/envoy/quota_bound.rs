//! No prompt passes a limit on tokens because its provider counts more than was reserved.

use crate::quota_gateways::{EACH, gateways, used, window};
use crate::standard::ask;
use crate::unsteady::at_once;
use pointsman_estimate::tokenizers::{self, Tokenizer};
use pointsman_estimate::{ORDINARY, hostile};
use pointsman_integration::deadline::await_true;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// What a provider counts of this prompt, by whichever tokenizer counts more, and the marks around its one message.
fn counted(text: &str) -> u64 {
    static TOKENIZERS: LazyLock<[Tokenizer; 2]> = LazyLock::new(tokenizers::included);
    TOKENIZERS.iter().map(|tokenizer| tokenizer.count(text)).max().expect("there are two") + 7
}

/// A request whose provider reports this usage.
fn request(text: &str, mark: &str) -> Value {
    let mut request = ask("paid", text);
    request["user"] = json!(mark);
    request
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn prompts_that_no_vocabulary_knows_do_not_pass_the_days_tokens() {
    for gateway in gateways() {
        for (n, (kind, text)) in hostile().into_iter().take(EACH).enumerate() {
            let (key, mark) = (format!("sk-worded{n}"), format!("hostile-{n}"));
            let tokens = counted(&text);
            let usage = json!({"usage": {"prompt_tokens": tokens, "completion_tokens": 10}, "content": "done"});
            gateway.simulator.rule("vllm", &mark, &usage);
            let answers = at_once(120_000 / tokens as usize + 8, |_| gateway.chat(&key, &request(&text, &mark)));
            let (passed, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
            await_true("everything to be settled", || window(&gateway, &key, "tokens_per_day")["reserved"] == 0);
            let all = used(&gateway, &key, "tokens_per_day");
            assert_eq!(all, passed.len() as u64 * (tokens + 10), "{kind}");
            assert!(all <= 100_000, "{kind}: {all}");
            for refused in refused {
                refused.assert_refusal(429, "rate_limit_exceeded");
            }
            // One after the other, they use what is left, as far as the bound allows.
            while gateway.chat(&key, &request(&text, &mark)).status == 200 {
                await_true("everything to be settled", || window(&gateway, &key, "tokens_per_day")["reserved"] == 0);
            }
            let all = used(&gateway, &key, "tokens_per_day");
            assert!((85_000..=100_000).contains(&all), "{kind}: {all}");
        }
    }
}

/// Returns the longest start of an endless repetition of `text` of which at most this many tokens are counted.
fn counted_at_most(text: &str, most: u64) -> String {
    let start = |length: usize| text.chars().cycle().take(length).collect::<String>();
    let (mut fits, mut exceeds) = (0usize, 40_000);
    while exceeds - fits > 1 {
        let middle = fits.midpoint(exceeds);
        match counted(&start(middle)) <= most {
            true => fits = middle,
            false => exceeds = middle,
        }
    }
    start(fits)
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_limit_on_input_tokens_holds_for_every_prompt_and_is_close_for_ordinary_ones() {
    let texts: Vec<_> = hostile()
        .into_iter()
        .flat_map(|(kind, text)| [(kind, counted_at_most(&text, 4000) + "Xq", 400), (kind, text.repeat(8), 400)])
        .chain([("English", 3500), ("Chinese", 3500), ("code", 3100), ("Vietnamese", 2500)].map(|(name, most)| {
            let text = ORDINARY.iter().find(|(known, _)| *known == name).expect("is there").1;
            (name, counted_at_most(text, most), 200)
        }))
        .collect();
    for gateway in gateways() {
        for (kind, text, status) in &texts {
            let answer = gateway.chat("sk-narrow0", &ask("paid", text));
            assert_eq!(answer.status, *status, "{kind}: {}", answer.text());
            if *status == 400 {
                answer.assert_refusal(400, "context_length_exceeded");
            }
        }
    }
}
