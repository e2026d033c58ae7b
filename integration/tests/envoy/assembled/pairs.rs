//! Streams of providers, each with the whole answer that it must become.

use serde_json::{Value, json};

/// A provider's stream and the whole answer to the same question, as OpenAI, DeepSeek, OpenRouter
/// and Mistral send them.
pub fn pairs() -> Vec<(&'static str, Vec<Value>, Value)> {
    let chunk = |choices: Value| {
        json!({"id": "chatcmpl-B", "object": "chat.completion.chunk", "created": 1_741_569_952, "model": "m-2",
            "service_tier": "default", "system_fingerprint": "fp_1", "choices": choices, "usage": null,
            "obfuscation": "x"})
    };
    let usage = json!({"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 6, "audio_tokens": 0}});
    let of = |deltas: &[Value], finish: &str| {
        let choice = |delta: &Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": null}]);
        let mut chunks: Vec<Value> = deltas.iter().map(|delta| chunk(choice(delta))).collect();
        chunks.push(chunk(json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": finish}])));
        let mut last = chunk(json!([]));
        last["usage"] = usage.clone();
        chunks.push(last);
        chunks
    };
    let whole = |choices: Value| {
        json!({"id": "chatcmpl-B", "object": "chat.completion", "created": 1_741_569_952, "model": "m-2",
            "service_tier": "default", "system_fingerprint": "fp_1", "choices": choices, "usage": usage})
    };
    let one = |message: Value, finish: &str| {
        whole(json!([{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}]))
    };
    let token = |text: &str, logprob: f64| {
        json!({"token": text, "logprob": logprob, "bytes": text.as_bytes(),
               "top_logprobs": [{"token": text, "logprob": logprob, "bytes": text.as_bytes()}]})
    };
    let logged = |text: &str, logprob: f64| {
        chunk(json!([{"index": 0, "delta": {"content": text}, "finish_reason": null,
                      "logprobs": {"content": [token(text, logprob)], "refusal": null}}]))
    };
    let mut with_logprobs = of(&[json!({"role": "assistant", "content": "", "refusal": null})], "stop");
    with_logprobs.splice(1..1, [logged("Hé", -0.317_253_05), logged("llo", -1e-7)]);
    let calls = |arguments: [&str; 2]| {
        json!([{"id": "call_a", "type": "function", "function": {"name": "f", "arguments": arguments[0]}},
               {"id": "call_b", "type": "function", "function": {"name": "g", "arguments": arguments[1]}}])
    };
    let call = |index: u64, of: Value| {
        let mut of = of;
        of["index"] = json!(index);
        json!({"tool_calls": [of]})
    };
    let begun = calls(["", ""]);
    let open_ai = json!({"role": "assistant", "content": null, "refusal": null});
    vec![
        (
            "logprobs",
            with_logprobs,
            whole(json!([{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Héllo", "refusal": null, "annotations": []},
                "logprobs": {"content": [token("Hé", -0.317_253_05), token("llo", -1e-7)], "refusal": null}}])),
        ),
        (
            "parallel-tools",
            of(
                &[
                    open_ai.clone(),
                    call(0, begun[0].clone()),
                    call(0, json!({"function": {"arguments": "{\"x\""}})),
                    call(0, json!({"function": {"arguments": ":1}"}})),
                    call(1, begun[1].clone()),
                    call(1, json!({"function": {"arguments": "{}"}})),
                ],
                "tool_calls",
            ),
            one(
                json!({"role": "assistant", "content": null, "refusal": null, "annotations": [],
                       "tool_calls": calls(["{\"x\":1}", "{}"])}),
                "tool_calls",
            ),
        ),
        (
            "older-function",
            of(
                &[
                    json!({"role": "assistant", "content": null, "refusal": null,
                           "function_call": {"name": "f", "arguments": ""}}),
                    json!({"function_call": {"arguments": "{\"x\":"}}),
                    json!({"function_call": {"arguments": "1}"}}),
                ],
                "function_call",
            ),
            one(
                json!({"role": "assistant", "content": null, "refusal": null, "annotations": [],
                       "function_call": {"name": "f", "arguments": "{\"x\":1}"}}),
                "function_call",
            ),
        ),
        (
            "reasoning",
            of(
                &[
                    json!({"role": "assistant", "content": null, "reasoning_content": ""}),
                    json!({"content": null, "reasoning_content": "Let me "}),
                    json!({"content": null, "reasoning_content": "see.\n"}),
                    json!({"content": "42", "reasoning_content": null}),
                ],
                "stop",
            ),
            one(json!({"role": "assistant", "content": "42", "reasoning_content": "Let me see.\n"}), "stop"),
        ),
        (
            // OpenRouter's, for a model of Anthropic's.
            "details",
            of(
                &[
                    json!({"role": "assistant", "content": "", "reasoning": "Let", "reasoning_details":
                        [{"type": "reasoning.text", "text": "Let", "format": "anthropic-claude-v1", "index": 0}]}),
                    json!({"content": "", "reasoning": " me.", "reasoning_details":
                        [{"type": "reasoning.text", "text": " me.", "format": "anthropic-claude-v1", "index": 0}]}),
                    json!({"content": "", "reasoning_details":
                        [{"type": "reasoning.text", "signature": "Et8B", "format": "anthropic-claude-v1",
                         "index": 0}]}),
                    json!({"content": "42"}),
                ],
                "stop",
            ),
            one(
                json!({"role": "assistant", "content": "42", "reasoning": "Let me.", "reasoning_details":
                    [{"type": "reasoning.text", "text": "Let me.", "format": "anthropic-claude-v1", "index": 0,
                      "signature": "Et8B"}]}),
                "stop",
            ),
        ),
        (
            // Mistral's, for a model that reasons.
            "thinking",
            of(
                &[
                    json!({"role": "assistant", "content": ""}),
                    json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Okay"}]}]}),
                    json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": ", é."}]}]}),
                    json!({"content": "The "}),
                    json!({"content": "answer"}),
                ],
                "stop",
            ),
            one(
                json!({"role": "assistant", "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "Okay, é."}]},
                    {"type": "text", "text": "The answer"}]}),
                "stop",
            ),
        ),
        (
            "whole-message",
            vec![
                chunk(json!([{"index": 0, "logprobs": null, "finish_reason": "stop",
                              "message": {"role": "assistant", "content": "All at once"}}])),
                of(&[], "stop").pop().unwrap(),
            ],
            one(json!({"role": "assistant", "content": "All at once"}), "stop"),
        ),
        (
            "refusal",
            of(&[open_ai, json!({"refusal": "I can"}), json!({"refusal": "not."})], "stop"),
            one(json!({"role": "assistant", "content": null, "refusal": "I cannot.", "annotations": []}), "stop"),
        ),
    ]
}
