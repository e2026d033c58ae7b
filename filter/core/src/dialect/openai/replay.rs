//! Replays a stored answer to a caller, whole or as a stream.

use crate::dialect::openai::completion::{Choice, Completion};
use crate::usage::Usage;

/// Returns the answer for a caller that does not stream.
pub fn whole(kept: &Completion, id: &str, now_ms: u64) -> Vec<u8> {
    let Completion { common, extra, usage, choices } = kept;
    let mut out = Out(Vec::with_capacity(room(kept, id)));
    let mut digits = itoa::Buffer::new();
    out.all(&[
        "{\"id\":\"",
        id,
        "\",\"object\":\"chat.completion\",\"created\":",
        digits.format(now_ms / 1000),
        common,
    ]);
    out.all(&[",\"choices\":["]);
    for (i, choice) in choices.iter().enumerate() {
        out.all(&[
            if i > 0 { "," } else { "" },
            "{\"index\":",
            digits.format(choice.index),
            ",\"message\":",
            &choice.message,
        ]);
        out.all(&[",\"logprobs\":", choice.logprobs.as_deref().unwrap_or("null")]);
        out.all(&[",\"finish_reason\":\"", &choice.finish_reason, "\"", &choice.ending, "}"]);
    }
    out.all(&["]"]);
    if let Some(usage) = usage {
        out.all(&[",\"usage\":", usage]);
    }
    out.all(&[extra, "}"]);
    out.0
}

/// Returns the answer as a complete stream of server-sent events. `counted`: its usage as it was charged.
pub fn stream(kept: &Completion, counted: &Usage, id: &str, now_ms: u64, include_usage: bool) -> Vec<u8> {
    let Completion { common, extra, usage, choices } = kept;
    let created = (now_ms / 1000).to_string();
    let head = ["data: {\"id\":\"", id, "\",\"object\":\"chat.completion.chunk\",\"created\":", &created, common];
    // If usage is requested, every other chunk has `"usage":null`.
    let tail = if include_usage { ",\"usage\":null}\n\n" } else { "}\n\n" };
    let mut out = Out(Vec::with_capacity(room(kept, id)));
    for choice in choices {
        let index = choice.index.to_string();
        out.all(&head);
        out.all(&[
            ",\"choices\":[{\"index\":",
            &index,
            ",\"delta\":",
            choice.delta.as_ref().unwrap_or(&choice.message),
        ]);
        out.all(&[",\"logprobs\":", choice.logprobs.as_deref().unwrap_or("null"), ",\"finish_reason\":null}]", tail]);
    }
    for (i, choice) in choices.iter().enumerate() {
        out.all(&head);
        out.all(&[",\"choices\":[{\"index\":", &choice.index.to_string(), ",\"delta\":{},\"logprobs\":null"]);
        // What the server says of the whole answer comes with its end.
        let extra = if i + 1 == choices.len() { extra } else { "" };
        out.all(&[",\"finish_reason\":\"", &choice.finish_reason, "\"", &choice.ending, "}]", extra, tail]);
    }
    if include_usage {
        out.all(&head);
        out.all(&[",\"choices\":[],\"usage\":"]);
        match usage {
            Some(usage) => out.all(&[usage]),
            None => out.all(&[&own_usage(counted)]),
        }
        out.all(&["}\n\n"]);
    }
    out.all(&["data: [DONE]\n\n"]);
    out.0
}

fn own_usage(usage: &Usage) -> String {
    let Usage { input, output, .. } = *usage;
    let total = input.saturating_add(output);
    format!("{{\"prompt_tokens\":{input},\"completion_tokens\":{output},\"total_tokens\":{total}}}")
}

/// Returns an upper bound of the answer's length in bytes, so that the buffer never grows while it is written.
fn room(kept: &Completion, id: &str) -> usize {
    const AROUND: usize = 256;
    let Completion { common, extra, usage, choices } = kept;
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let chunk = AROUND + id.len() + common.len();
    let of_choice = |choice: &Choice| {
        let text = choice.message.len().max(length(&choice.delta));
        2 * chunk + text + length(&choice.logprobs) + choice.finish_reason.len() + choice.ending.len()
    };
    2 * chunk + extra.len() + length(usage) + choices.iter().map(of_choice).sum::<usize>()
}

struct Out(Vec<u8>);

impl Out {
    fn all(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.0.extend_from_slice(part.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn kept() -> Completion {
        let call = json!([{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]);
        let whole = json!({"id": "old", "created": 1, "model": "gpt", "vendor": true,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "é\n"}, "finish_reason": "stop",
                 "stop_reason": "#"},
                {"index": 1, "message": {"role": "assistant", "tool_calls": call}, "finish_reason": "tool_calls"}],
            "usage": {"prompt_tokens": 3, "completion_tokens": 4}});
        Completion::from_whole(whole, 2).unwrap()
    }

    #[test]
    fn answers_both_kinds_of_callers() {
        let kept = kept();
        let counted = Usage { input: 3, cached_input: 1, output: 4, ..Usage::default() };
        let room = room(&kept, "chatcmpl-new");
        assert!(whole(&kept, "chatcmpl-new", 5_000_000).len() <= room);
        let answer: Value = serde_json::from_slice(&whole(&kept, "chatcmpl-new", 5_000_000)).unwrap();
        assert_eq!(
            (&answer["id"], &answer["created"], &answer["model"]),
            (&json!("chatcmpl-new"), &json!(5000), &json!("gpt"))
        );
        assert_eq!(answer["choices"][0]["message"]["content"], "é\n");
        assert_eq!((&answer["usage"]["prompt_tokens"], &answer["vendor"]), (&json!(3), &json!(true)));
        for include_usage in [false, true] {
            let text = String::from_utf8(stream(&kept, &counted, "chatcmpl-new", 5_000_000, include_usage)).unwrap();
            assert!(text.len() <= room);
            let events: Vec<&str> = text.split_terminator("\n\n").map(|e| e.strip_prefix("data: ").unwrap()).collect();
            assert_eq!(events.last(), Some(&"[DONE]"));
            let chunks: Vec<Value> =
                events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).unwrap()).collect();
            assert_eq!(chunks.len(), 4 + usize::from(include_usage));
            assert!(chunks.iter().all(|c| c["object"] == "chat.completion.chunk" && c["id"] == "chatcmpl-new"));
            assert_eq!(chunks[0]["choices"][0]["delta"]["content"], "é\n");
            assert_eq!(chunks[1]["choices"][0]["delta"]["tool_calls"][0]["index"], 0);
            assert_eq!(chunks[3]["choices"][0]["finish_reason"], "tool_calls");
            assert_eq!(chunks[0].get("usage"), include_usage.then_some(&Value::Null));
            if include_usage {
                assert_eq!((&chunks[4]["choices"], &chunks[4]["usage"]["completion_tokens"]), (&json!([]), &json!(4)));
            }
        }
    }
}
