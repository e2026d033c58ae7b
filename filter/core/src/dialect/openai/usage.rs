//! The usage object of OpenAI's format, in every form that servers send.

use crate::usage::ReportedUsage;
use crate::wire::json::{InvalidJson, Kind, Scanner, names};

/// Counts as they came; `None` where a member is absent or null.
#[derive(Default)]
struct Counts {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    reasoning: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    audio_input: Option<u64>,
    audio_output: Option<u64>,
}

/// Reads a usage object. Returns `None` if it counts nothing.
///
/// # Errors
/// If it is not a JSON object.
pub fn read(s: &mut Scanner) -> Result<Option<ReportedUsage>, InvalidJson> {
    let mut counts = Counts::default();
    s.object(|s, key| {
        let into = match &*names::quoted(s, &key) {
            b"\"prompt_tokens\"" | b"\"input_tokens\"" => &mut counts.prompt,
            b"\"completion_tokens\"" | b"\"output_tokens\"" => &mut counts.completion,
            b"\"total_tokens\"" => &mut counts.total,
            // Kimi; DeepSeek; Anthropic's names, as LiteLLM and Bedrock's gateways pass them on.
            b"\"cached_tokens\"" | b"\"prompt_cache_hit_tokens\"" | b"\"cache_read_input_tokens\"" => {
                &mut counts.cached
            }
            b"\"cache_creation_input_tokens\"" => &mut counts.cache_write,
            b"\"prompt_tokens_details\"" | b"\"input_tokens_details\"" if s.peek()? == Kind::Object => {
                return input_details(s, &mut counts);
            }
            b"\"completion_tokens_details\"" | b"\"output_tokens_details\"" if s.peek()? == Kind::Object => {
                return output_details(s, &mut counts);
            }
            _ => return s.value().map(drop),
        };
        tokens(s, into)
    })?;
    Ok(counts.reported())
}

fn input_details(s: &mut Scanner, counts: &mut Counts) -> Result<(), InvalidJson> {
    s.object(|s, key| match &*names::quoted(s, &key) {
        b"\"cached_tokens\"" => tokens(s, &mut counts.cached),
        b"\"audio_tokens\"" => tokens(s, &mut counts.audio_input),
        b"\"cache_write_tokens\"" | b"\"cache_creation_tokens\"" | b"\"cache_creation_input_tokens\"" => {
            tokens(s, &mut counts.cache_write)
        }
        _ => s.value().map(drop),
    })
}

fn output_details(s: &mut Scanner, counts: &mut Counts) -> Result<(), InvalidJson> {
    s.object(|s, key| match &*names::quoted(s, &key) {
        b"\"reasoning_tokens\"" => tokens(s, &mut counts.reasoning),
        b"\"audio_tokens\"" => tokens(s, &mut counts.audio_output),
        _ => s.value().map(drop),
    })
}

impl Counts {
    /// Some servers leave reasoning out of the completion, or count no prompt; the total tells.
    fn reported(self) -> Option<ReportedUsage> {
        if self.prompt.is_none() && self.completion.is_none() && self.total.is_none() {
            return None;
        }
        let (cached_input, cache_write) = (self.cached.unwrap_or(0), self.cache_write.unwrap_or(0));
        let (completion, reasoning) = (self.completion.unwrap_or(0), self.reasoning.unwrap_or(0));
        let prompt = self.prompt.filter(|tokens| *tokens > 0).map(|prompt| {
            // As Anthropic does it: the prompt is what the cache has nothing to do with.
            let (beside, plain) = (cached_input + cache_write, prompt.saturating_add(completion));
            let is_beside = beside > prompt || beside > 0 && self.total == plain.checked_add(beside);
            if is_beside { prompt.saturating_add(beside) } else { prompt }
        });
        // Reasoning that exceeds the completion cannot be a part of it.
        let counted = if reasoning > completion { completion.saturating_add(reasoning) } else { completion };
        let (input, output) = match (prompt, self.total) {
            (Some(prompt), Some(total)) => (Some(prompt), completion.max(total.saturating_sub(prompt))),
            (Some(prompt), None) => (Some(prompt), counted),
            // A total alone does not tell input from output.
            (None, Some(_)) if self.completion.is_none() => (None, counted),
            (None, Some(total)) => (total.checked_sub(counted).filter(|input| *input > 0), counted),
            (None, None) => (None, counted),
        };
        let (audio_input, audio_output) = (self.audio_input.unwrap_or(0), self.audio_output.unwrap_or(0));
        Some(ReportedUsage { input, cached_input, cache_write, output, audio_input, audio_output })
    }
}

/// Reads a token count. Truncates fractions, and clamps the count to between 0 and one billion, so that nothing wraps
/// and a broken provider cannot charge without bound. A value that is not a number leaves `into` unchanged; of several
/// names for one count the largest counts.
fn tokens(s: &mut Scanner, into: &mut Option<u64>) -> Result<(), InvalidJson> {
    const MAX: u64 = 1_000_000_000;
    let value = s.value()?;
    if value.kind == Kind::Number {
        let text = std::str::from_utf8(s.bytes(&value.span)).unwrap_or_default();
        // `as` saturates: a negative number or NaN becomes 0.
        let count = text.parse::<u64>().unwrap_or_else(|_| text.parse::<f64>().unwrap_or(0.0) as u64).min(MAX);
        *into = Some(into.map_or(count, |before| before.max(count)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn reported(usage: Value) -> Option<ReportedUsage> {
        read(&mut Scanner::new(usage.to_string().as_bytes(), 64)).unwrap()
    }

    fn counts(usage: Value) -> (Option<u64>, u64) {
        reported(usage).map(|usage| (usage.input, usage.output)).unwrap()
    }

    #[test]
    fn reasoning_beside_the_completion_is_output() {
        let details = |reasoning: u64| json!({"reasoning_tokens": reasoning});
        let beside = json!({"prompt_tokens": 16003, "completion_tokens": 9, "total_tokens": 17012,
                            "completion_tokens_details": details(1000)});
        assert_eq!(counts(beside), (Some(16003), 1009));
        let alone = json!({"prompt_tokens": 21, "completion_tokens": 0, "total_tokens": 81,
                           "completion_tokens_details": details(60)});
        assert_eq!(counts(alone), (Some(21), 60));
        let no_total = json!({"prompt_tokens": 21, "completion_tokens": 9, "completion_tokens_details": details(60)});
        assert_eq!(counts(no_total), (Some(21), 69));
        let within = json!({"prompt_tokens": 21, "completion_tokens": 69, "total_tokens": 90,
                            "completion_tokens_details": details(60)});
        assert_eq!(counts(within), (Some(21), 69));
        // A total that cannot be one says nothing.
        assert_eq!(counts(json!({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 3})), (Some(5), 7));
    }

    #[test]
    fn a_prompt_that_was_not_counted_is_what_the_total_leaves() {
        for prompt in [json!(0), Value::Null, json!("20000"), json!(-3)] {
            let usage = json!({"prompt_tokens": prompt, "completion_tokens": 10, "total_tokens": 20_010});
            assert_eq!(counts(usage), (Some(20_000), 10));
            assert_eq!(counts(json!({"prompt_tokens": prompt, "completion_tokens": 10})), (None, 10));
            assert_eq!(
                counts(json!({"prompt_tokens": prompt, "completion_tokens": 10, "total_tokens": 10})),
                (None, 10)
            );
        }
        assert_eq!(counts(json!({"completion_tokens": 10, "total_tokens": 15})), (Some(5), 10));
        assert_eq!(reported(json!({"queue_time": 0.1})), None);
    }

    #[test]
    fn the_prompt_cache_has_many_names() {
        let cached = |mut usage: Value| {
            usage["prompt_tokens"] = json!(100);
            reported(usage).map(|usage| (usage.cached_input, usage.cache_write)).unwrap()
        };
        assert_eq!(cached(json!({"prompt_tokens_details": {"cached_tokens": 40}})), (40, 0));
        assert_eq!(cached(json!({"cached_tokens": 40})), (40, 0));
        assert_eq!(cached(json!({"prompt_cache_hit_tokens": 40, "prompt_cache_miss_tokens": 60})), (40, 0));
        assert_eq!(cached(json!({"cached_tokens": 40, "prompt_tokens_details": {"cached_tokens": 0}})), (40, 0));
        let anthropic = json!({"cache_read_input_tokens": 30, "cache_creation_input_tokens": 50});
        assert_eq!(cached(anthropic), (30, 50));
        assert_eq!(cached(json!({"prompt_tokens_details": {"cache_creation_input_tokens": 5}})), (0, 5));
        assert_eq!(cached(json!({"prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 5}})), (3, 5));
    }

    #[test]
    fn what_the_prompt_cache_served_may_be_counted_beside_the_prompt() {
        let usage = json!({"prompt_tokens": 368, "completion_tokens": 19, "total_tokens": 10923,
                           "cache_read_input_tokens": 10536, "cache_creation_input_tokens": 0});
        let read = reported(usage).unwrap();
        assert_eq!((read.input, read.cached_input, read.output), (Some(10_904), 10_536, 19));
        let no_total = json!({"input_tokens": 5, "output_tokens": 7, "cache_creation_input_tokens": 90});
        assert_eq!(counts(no_total), (Some(95), 7));
        let within = json!({"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107,
                            "prompt_tokens_details": {"cached_tokens": 90}});
        assert_eq!(counts(within), (Some(100), 7));
    }

    #[test]
    fn absurd_counts_neither_wrap_nor_charge_without_bound() {
        let input = |n: &str| {
            let usage = format!(r#"{{"prompt_tokens":{n},"completion_tokens":1}}"#);
            read(&mut Scanner::new(usage.as_bytes(), 64)).unwrap().unwrap().input
        };
        assert_eq!(input("-5"), None);
        assert_eq!(input("1e30"), Some(1_000_000_000));
        assert_eq!(input("99999999999999999999999"), Some(1_000_000_000));
        assert_eq!(input("12.0"), Some(12));
        assert_eq!(input("\"7\""), None);
        assert_eq!(input("null"), None);
    }
}
