//! The bound of a whole request covers what templates make of its messages.

use pointsman_core::dialect::client::ClientDialect;
use pointsman_core::quota::demand;
use pointsman_estimate::search::Random;
use pointsman_estimate::tokenizers::{self, Tokenizer};
use pointsman_estimate::{ORDINARY, hostile};
use serde_json::{Value, json};

/// What a template makes of messages: each with a mark at its start and its end, its role and line breaks, and the
/// start of the answer.
fn rendered(messages: &[(&str, String)], tokenizer: &Tokenizer, breaks: &str) -> u64 {
    let all = messages.iter().map(|(role, text)| 4 + tokenizer.count(&format!("{role}{breaks}{text}")));
    all.sum::<u64>() + 4 + tokenizer.count("assistant\n\n")
}

/// Writes a string with every character as an escape.
fn escaped(text: &str) -> String {
    text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()
}

fn bound(body: &str) -> (u64, u64) {
    let request = ClientDialect::OpenAi.parse(body.as_bytes(), 16).expect("is a request");
    (demand::input_tokens(request.facts()), demand::rough_input_tokens(request.facts()))
}

#[test]
fn the_bound_covers_templates_and_every_way_to_write_a_message() {
    let (tokenizers, mut random) = (tokenizers::included(), Random(5));
    let hostile = hostile();
    let texts: Vec<&str> =
        ORDINARY.iter().map(|(_, text)| *text).chain(hostile.iter().map(|(_, text)| text.as_str())).collect();
    for round in 0..300 {
        let mut message = || {
            let text = texts[random.below(texts.len())];
            let (skip, take) = (random.below(200), random.below(if round % 2 == 0 { 8 } else { 200 }));
            (["user", "assistant", "system"][random.below(3)], text.chars().skip(skip).take(take).collect::<String>())
        };
        let messages: Vec<(&str, String)> = (0..1 + round % 7).map(|_| message()).collect();
        let counted = tokenizers
            .iter()
            .flat_map(|tokenizer| ["\n", "\n\n"].map(|breaks| rendered(&messages, tokenizer, breaks)))
            .max()
            .expect("there are two");
        let plain: Vec<Value> = messages.iter().map(|(role, text)| json!({"role": role, "content": text})).collect();
        let plain = json!({"model": "m", "messages": plain}).to_string();
        let list: Vec<String> = messages
            .iter()
            .map(|(role, text)| format!("{{\"role\":\"{role}\",\"content\":\"{}\"}}", escaped(text)))
            .collect();
        for body in [plain, format!("{{\"model\":\"m\",\"messages\":[{}]}}", list.join(","))] {
            let (close, rough) = bound(&body);
            assert!(counted <= close && close <= rough, "{counted}, {close}, {rough}: {body}");
        }
    }
}

#[test]
fn the_bound_covers_tools_that_a_template_writes_in_lines() {
    let tokenizers = tokenizers::included();
    let numbers: Vec<u32> = (0..500).collect();
    for schema in [
        json!({"type": "object", "properties": {"place": {"type": "string", "enum": ["here", "there"]}}}),
        json!({"enum": numbers}),
        json!({"a": {"b": {"c": [[], {}, [1], [null, true, {"d": [{}]}]]}}}),
    ] {
        let tool = json!({"type": "function", "function": {"name": "get_weather", "parameters": schema}});
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": [tool]}).to_string();
        let (close, rough) = bound(&body);
        for rendered in [serde_json::to_string_pretty(&tool), serde_json::to_string(&tool)] {
            let rendered = rendered.expect("is JSON").replace("  ", "    ");
            for tokenizer in &tokenizers {
                let counted = tokenizer.count(&rendered) + 12;
                assert!(counted <= close && close <= rough, "{counted}, {close}, {rough}: {rendered}");
            }
        }
    }
}
