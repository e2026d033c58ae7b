//! Writes a chat completion as one document.

use super::put_usage;
use crate::answer::{Answer, Ask, Ending, Said, Stamp, Usage};
use crate::write::put_string;

/// Returns the `chat.completion` document.
pub fn document(stamp: &Stamp, ask: &Ask, answer: &Answer) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"id\":");
    put_string(&mut out, &stamp.id("chatcmpl-sim-"));
    out.extend_from_slice(format!(r#","object":"chat.completion","created":{},"model":"#, stamp.created).as_bytes());
    put_string(&mut out, &ask.model);
    out.extend_from_slice(b",\"choices\":[");
    for index in 0..ask.choices.max(1) {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(format!(r#"{{"index":{index},"message":{{"role":"assistant","content":"#).as_bytes());
        put_message(&mut out, answer);
        out.extend_from_slice(b",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":");
        put_string(&mut out, finish_reason(answer));
        out.push(b'}');
    }
    out.push(b']');
    if !matches!(answer.usage, Usage::Omit) {
        out.extend_from_slice(b",\"usage\":");
        put_usage(&mut out, &answer.usage);
    }
    put_service_tier(&mut out, answer);
    out.extend_from_slice(br#","system_fingerprint":"fp_simulator"}"#);
    out
}

/// Writes the service tier, if the answer names it.
pub(super) fn put_service_tier(out: &mut Vec<u8>, answer: &Answer) {
    if !answer.service_tier.is_empty() {
        out.extend_from_slice(b",\"service_tier\":");
        put_string(out, &answer.service_tier);
    }
}

/// Returns the finish reason.
pub(super) fn finish_reason(answer: &Answer) -> &str {
    match (&answer.ending, &answer.said) {
        (Ending::Given(reason), _) => reason,
        (Ending::Limit, _) => "length",
        (Ending::Natural, Said::Text(_)) => "stop",
        (Ending::Natural, Said::Calls(_)) => "tool_calls",
    }
}

/// Writes the content, the tool calls and the reasoning.
fn put_message(out: &mut Vec<u8>, answer: &Answer) {
    match &answer.said {
        Said::Text(text) => put_string(out, text.text()),
        Said::Calls(calls) => {
            match &answer.lead {
                Some(text) => put_string(out, text.text()),
                None => out.extend_from_slice(b"null"),
            }
            out.extend_from_slice(b",\"tool_calls\":[");
            for (index, call) in calls.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(b"{\"id\":");
                put_string(out, &call.id);
                out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
                put_string(out, &call.name);
                out.extend_from_slice(b",\"arguments\":");
                put_string(out, call.arguments.text());
                out.extend_from_slice(b"}}");
            }
            out.push(b']');
        }
    }
    if let Some(reasoning) = &answer.reasoning {
        out.extend_from_slice(b",\"reasoning_content\":");
        put_string(out, reasoning.text.text());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::answer::Call;
    use crate::chunked::Chunked;

    fn made(said: Said, usage: Usage, choices: usize) -> Value {
        let ask = Ask { model: "m\"1".to_owned(), choices, ..Ask::default() };
        let stamp = Stamp { number: 1, created: 5 };
        serde_json::from_slice(&document(
            &stamp,
            &ask,
            &Answer {
                said,
                reasoning: None,
                lead: None,
                ending: Ending::Natural,
                service_tier: "flex".to_owned(),
                usage,
            },
        ))
        .unwrap()
    }

    #[test]
    fn text_comes_once_per_choice() {
        let text = Said::Text(Chunked::words("hi \"you\"".to_owned()));
        let made = made(text, Usage::Tokens { input: 3, output: 4, cached: 0, cache_write: 0, reasoning: 0 }, 2);
        assert_eq!(made["model"], "m\"1");
        assert_eq!(made["service_tier"], "flex");
        assert_eq!(made["choices"][1]["message"]["content"], "hi \"you\"");
        assert_eq!(made["choices"][1]["finish_reason"], "stop");
        assert_eq!(made["usage"]["total_tokens"], 7);
        assert_eq!(made["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    }

    #[test]
    fn calls_come_with_null_content() {
        let arguments = Chunked::bytes("{\"a\":1}".to_owned(), 2);
        let call = Call { id: "c".to_owned(), name: "f".to_owned(), arguments, takes_text: false };
        let made = made(Said::Calls(vec![call]), Usage::Omit, 1);
        assert_eq!(made["choices"][0]["message"]["content"], Value::Null);
        assert_eq!(made["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"], "{\"a\":1}");
        assert_eq!(made["choices"][0]["finish_reason"], "tool_calls");
        assert_eq!(made.get("usage"), None);
    }
}
