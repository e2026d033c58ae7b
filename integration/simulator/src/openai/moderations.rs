//! Moderations: an input is flagged as violent if it has the word `violence`, and never otherwise.

use serde_json::{Map, Value, json};

use super::request::{NOT_JSON, missing};
use crate::answer::{Ask, Stamp};
use crate::refusal::Refusal;

const CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

/// Reads a request.
pub fn read(body: &[u8]) -> Result<Ask, Refusal> {
    let document: Value = serde_json::from_slice(body).map_err(|_| Refusal::bad(NOT_JSON))?;
    let input = document.get("input").ok_or_else(|| missing("input"))?;
    let last_text = texts(input).last().cloned().unwrap_or_default();
    let model = document.get("model").and_then(Value::as_str).unwrap_or("omni-moderation-latest").to_owned();
    Ok(Ask { model, last_text, asked: document, ..Ask::default() })
}

/// Returns a result for each input.
pub fn document(stamp: Stamp, ask: &Ask) -> Value {
    let texts = ask.asked.get("input").map(texts).unwrap_or_default();
    let results: Vec<Value> = texts.iter().map(|text| result(text.contains("violence"))).collect();
    json!({"id": stamp.id("modr-sim-"), "model": ask.model, "results": results})
}

/// Returns the texts to judge. Parts of one input are judged together.
fn texts(input: &Value) -> Vec<String> {
    let Some(items) = input.as_array() else { return input.as_str().map(str::to_owned).into_iter().collect() };
    if items.iter().any(Value::is_object) {
        let parts = items.iter().filter_map(|part| part.get("text").and_then(Value::as_str));
        return vec![parts.collect::<Vec<_>>().concat()];
    }
    items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn result(flagged: bool) -> Value {
    let of = |value: fn(bool) -> Value| -> Map<String, Value> {
        CATEGORIES.iter().map(|name| ((*name).to_owned(), value(flagged && *name == "violence"))).collect()
    };
    json!({
        "flagged": flagged,
        "categories": of(|is| json!(is)),
        "category_scores": of(|is| json!(if is { 0.98 } else { 0.0001 })),
        "category_applied_input_types": of(|_| json!(["text"])),
    })
}
