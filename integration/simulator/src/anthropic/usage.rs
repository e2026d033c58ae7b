//! Writes the token counts of a message. `input_tokens` leaves out what a cache had or took in.

use serde_json::{Value, json};

use crate::answer::{Answer, Usage};
use crate::write::quoted_or_null;

/// Returns the counts of a whole message, if it has any.
pub fn whole(answer: &Answer) -> Option<String> {
    match &answer.usage {
        Usage::Tokens { output, reasoning, .. } => Some(full(answer, *output, *reasoning)),
        Usage::Given(value) => Some(value.to_string()),
        Usage::Omit => None,
    }
}

/// Returns the counts of a `message_start`, if it has any: the output is one token so far.
pub fn start(answer: &Answer, given: Option<&Value>) -> Option<String> {
    if let Some(given) = given {
        return Some(given.to_string());
    }
    match &answer.usage {
        Usage::Tokens { output, .. } => Some(full(answer, 1.min(*output), 0)),
        Usage::Given(value) => {
            let mut value = value.clone();
            if let Some(output) = value.get_mut("output_tokens") {
                *output = json!(1);
            }
            Some(value.to_string())
        }
        Usage::Omit => None,
    }
}

/// Returns the counts of the `message_delta`, if it has any. They are those of the whole message.
pub fn delta(answer: &Answer) -> Option<String> {
    match &answer.usage {
        Usage::Tokens { input, output, cached, cache_write, reasoning } => {
            let fresh = input.saturating_sub(cached + cache_write);
            Some(format!(
                r#"{{"input_tokens":{fresh},"cache_creation_input_tokens":{cache_write},"cache_read_input_tokens":{cached},"output_tokens":{output}{}}}"#,
                thinking(*reasoning),
            ))
        }
        Usage::Given(value) => Some(value.to_string()),
        Usage::Omit => None,
    }
}

fn full(answer: &Answer, output: u64, reasoning: u64) -> String {
    let Usage::Tokens { input, cached, cache_write, .. } = &answer.usage else { return "null".to_owned() };
    let fresh = input.saturating_sub(cached + cache_write);
    let tier = Some(answer.service_tier.as_str()).filter(|tier| !tier.is_empty());
    format!(
        r#"{{"input_tokens":{fresh},"cache_creation_input_tokens":{cache_write},"cache_read_input_tokens":{cached},"cache_creation":{{"ephemeral_5m_input_tokens":{cache_write},"ephemeral_1h_input_tokens":0}},"output_tokens":{output}{},"service_tier":{}}}"#,
        thinking(reasoning),
        quoted_or_null(tier),
    )
}

fn thinking(tokens: u64) -> String {
    if tokens == 0 { String::new() } else { format!(r#","output_tokens_details":{{"thinking_tokens":{tokens}}}"#) }
}
