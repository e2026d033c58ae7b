//! Embeddings: a vector of length 1 for each input, the same for the same input.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::request::{NOT_JSON, missing};
use super::tokens::{Input, inputs};
use crate::answer::{Ask, Usage};
use crate::refusal::Refusal;
use crate::write::{array, quoted};

/// The dimensions of a vector, unless the request says how many.
const DIMENSIONS: u64 = 16;
/// The maximum number of inputs.
const MAX_INPUTS: usize = 2048;

/// Reads a request.
pub fn read(body: &[u8]) -> Result<Ask, Refusal> {
    let document: Value = serde_json::from_slice(body).map_err(|_| Refusal::bad(NOT_JSON))?;
    let input = document.get("input").ok_or_else(|| missing("input"))?;
    let found = inputs(input).filter(|found| (1..=MAX_INPUTS).contains(&found.len()));
    let Some(found) = found.filter(|found| found.iter().all(|input| input.tokens > 0)) else {
        return Err(Refusal::of("input", None, "'$.input' is invalid. Please check the API reference."));
    };
    let model = document.get("model").and_then(Value::as_str).ok_or_else(|| missing("model"))?.to_owned();
    let last_text = found.last().map(|input| input.text.to_owned()).unwrap_or_default();
    let prompt_tokens = found.iter().map(|input| input.tokens).sum();
    let user = document.get("user").and_then(Value::as_str).map(str::to_owned);
    Ok(Ask { model, last_text, prompt_tokens, user, asked: document, ..Ask::default() })
}

/// Returns the list of vectors, as floats or in base64.
pub fn document(ask: &Ask, usage: &Usage) -> String {
    let found = ask.asked.get("input").and_then(inputs).unwrap_or_default();
    let dimensions = ask.asked.get("dimensions").and_then(Value::as_u64).unwrap_or(DIMENSIONS).clamp(1, 4096);
    let in_base64 = ask.asked.get("encoding_format").and_then(Value::as_str) == Some("base64");
    let data = found.iter().enumerate().map(|(index, input)| {
        let vector = vector(input, dimensions);
        let embedding = if in_base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            quoted(&STANDARD.encode(bytes))
        } else {
            array(vector.iter().map(|number| json!(number).to_string()))
        };
        format!(r#"{{"object":"embedding","index":{index},"embedding":{embedding}}}"#)
    });
    let usage = match usage {
        Usage::Tokens { input, .. } => format!(r#","usage":{{"prompt_tokens":{input},"total_tokens":{input}}}"#),
        Usage::Given(value) => format!(r#","usage":{value}"#),
        Usage::Omit => String::new(),
    };
    format!(r#"{{"object":"list","data":{},"model":{}{usage}}}"#, array(data), quoted(&ask.model))
}

fn vector(input: &Input<'_>, dimensions: u64) -> Vec<f32> {
    let raw: Vec<f32> = (0..dimensions)
        .map(|at| {
            let mixed = (input.mark ^ at.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((mixed >> 40) as f32 / 8_388_608.0) - 1.0
        })
        .collect();
    let length = raw.iter().map(|number| number * number).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    raw.iter().map(|number| number / length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(body: &Value) -> Value {
        let ask = read(body.to_string().as_bytes()).unwrap();
        let usage = Usage::Tokens { input: ask.prompt_tokens, output: 0, cached: 0, cache_write: 0, reasoning: 0 };
        serde_json::from_str(&document(&ask, &usage)).unwrap()
    }

    #[test]
    fn both_encodings_are_the_same_vector() {
        let floats = made(&json!({"model": "e", "input": "12345678", "dimensions": 4}));
        let base64 = made(&json!({"model": "e", "input": "12345678", "dimensions": 4, "encoding_format": "base64"}));
        let bytes = STANDARD.decode(base64["data"][0]["embedding"].as_str().unwrap()).unwrap();
        let decoded: Vec<f32> = bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        let plain: Vec<f32> =
            floats["data"][0]["embedding"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap() as f32).collect();
        assert_eq!((decoded.len(), &decoded), (4, &plain));
        assert!((plain.iter().map(|n| n * n).sum::<f32>() - 1.0).abs() < 1e-5);
        assert_eq!(floats["usage"], json!({"prompt_tokens": 2, "total_tokens": 2}));
    }

    #[test]
    fn several_inputs_have_a_vector_each() {
        let made = made(&json!({"model": "e", "input": [[1, 2], [3], [1, 2]]}));
        let data = &made["data"];
        assert_eq!((data[0]["embedding"] == data[2]["embedding"], data[0] == data[1]), (true, false));
        assert_eq!((&data[2]["index"], &made["usage"]["total_tokens"]), (&json!(2), &json!(5)));
    }

    #[test]
    fn empty_input_is_refused() {
        for input in [json!([]), json!(""), json!({}), json!(["a", ""])] {
            let body = json!({"model": "e", "input": input}).to_string();
            assert_eq!(read(body.as_bytes()).unwrap_err().param.as_deref(), Some("input"), "{input}");
        }
    }
}
