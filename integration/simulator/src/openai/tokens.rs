//! Reads the inputs that may be text or tokens, one or several.

use serde_json::Value;

/// One input.
#[derive(Debug, PartialEq, Eq)]
pub struct Input<'a> {
    /// Its text; empty if it came as tokens.
    pub text: &'a str,
    /// Its number of tokens: a fourth of the bytes of a text.
    pub tokens: u64,
    /// A number that tells it from others.
    pub mark: u64,
}

impl<'a> Input<'a> {
    fn text(text: &'a str) -> Self {
        let mark = text.bytes().fold(5381, |mark: u64, byte| mark.wrapping_mul(33) ^ u64::from(byte));
        Self { text, tokens: (text.len() as u64).div_ceil(4), mark }
    }

    fn tokens(tokens: &[Value]) -> Option<Self> {
        let numbers: Option<Vec<u64>> = tokens.iter().map(Value::as_u64).collect();
        let numbers = numbers?;
        let mark = numbers.iter().fold(5381, |mark: u64, token| mark.wrapping_mul(33) ^ token);
        Some(Self { text: "", tokens: numbers.len() as u64, mark })
    }
}

/// Returns the inputs of a string, an array of strings, an array of tokens, or an array of such arrays. `None` for
/// anything else.
pub fn inputs(value: &Value) -> Option<Vec<Input<'_>>> {
    match value {
        Value::String(text) => Some(vec![Input::text(text)]),
        Value::Array(items) if items.iter().any(Value::is_number) => Some(vec![Input::tokens(items)?]),
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::String(text) => Some(Input::text(text)),
                Value::Array(tokens) => Input::tokens(tokens),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn counts(value: &Value) -> Option<Vec<u64>> {
        inputs(value).map(|inputs| inputs.iter().map(|input| input.tokens).collect())
    }

    #[test]
    fn four_forms_are_read_and_no_other() {
        assert_eq!(counts(&json!("12345")), Some(vec![2]));
        assert_eq!(counts(&json!(["1234", "5"])), Some(vec![1, 1]));
        assert_eq!(counts(&json!([1, 2, 3])), Some(vec![3]));
        assert_eq!(counts(&json!([[1, 2], [3]])), Some(vec![2, 1]));
        assert_eq!(counts(&json!([1, "a"])), None);
        assert_eq!(counts(&json!([{}])), None);
        assert_eq!(counts(&json!(3)), None);
    }

    #[test]
    fn the_same_input_has_the_same_mark() {
        let mark = |value: Value| inputs(&value).unwrap()[0].mark;
        assert_eq!(mark(json!("a")), mark(json!(["a"])));
        assert_ne!(mark(json!("a")), mark(json!("b")));
    }
}
