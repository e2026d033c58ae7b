//! Images: one transparent pixel, as often as asked.

use serde_json::{Value, json};

use super::multipart;
use super::request::{NOT_JSON, missing};
use crate::answer::{Ask, Stamp, Usage};
use crate::refusal::Refusal;

/// A PNG of one transparent pixel, in base64.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAAC0lEQVR4nGNgAAIAAAUAAXpeqz8AAAAASUVORK5CYII=";

/// Reads a request to make an image, in JSON, or to edit one, as a form.
pub fn read(content_type: &str, body: &[u8]) -> Result<Ask, Refusal> {
    let document = match multipart::fields(content_type, body) {
        Some(fields) => fields,
        None => serde_json::from_slice(body).map_err(|_| Refusal::bad(NOT_JSON))?,
    };
    let prompt = document.get("prompt").and_then(Value::as_str).ok_or_else(|| missing("prompt"))?.to_owned();
    let model = document.get("model").and_then(Value::as_str).unwrap_or("gpt-image-1").to_owned();
    let prompt_tokens = (prompt.len() as u64).div_ceil(4);
    Ok(Ask { model, last_text: prompt, prompt_tokens, asked: document, ..Ask::default() })
}

/// Returns the images, in base64 or as addresses that lead nowhere.
pub fn document(stamp: Stamp, ask: &Ask, usage: &Usage) -> Value {
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let count = ask.asked.get("n").and_then(number).unwrap_or(1).clamp(1, 10);
    let as_url = ask.asked.get("response_format").and_then(Value::as_str) == Some("url");
    let image = |index| match as_url {
        true => json!({"url": format!("https://images.simulator.invalid/{}.png", index)}),
        false => json!({"b64_json": PIXEL}),
    };
    let data: Vec<Value> = (0..count).map(image).collect();
    let mut document = json!({"created": stamp.created, "data": data, "output_format": "png"});
    let usage = match usage {
        Usage::Tokens { input, .. } => Some(json!({
            "input_tokens": input,
            "input_tokens_details": {"text_tokens": input, "image_tokens": 0},
            "output_tokens": 272 * count,
            "total_tokens": input + 272 * count,
        })),
        Usage::Given(value) => Some(value.clone()),
        Usage::Omit => None,
    };
    if let (Some(usage), Some(members)) = (usage, document.as_object_mut()) {
        members.insert("usage".to_owned(), usage);
    }
    document
}
