//! The last guard of secrets: no message repeats a word of the document that may be an API key.

use crate::config::problem::{Problem, looks_secret};
use serde_json::Value;
use std::collections::BTreeSet;

/// Hides every word in the messages that may be a key in the wrong place.
pub(super) fn conceal(mut problems: Vec<Problem>, document: &Value) -> Vec<Problem> {
    let mut secrets = BTreeSet::new();
    collect(document, &mut secrets);
    for problem in &mut problems {
        // A longer one first: it may contain a shorter one.
        for secret in secrets.iter().rev().filter(|(_, secret)| problem.message.contains(*secret)).collect::<Vec<_>>() {
            problem.message = problem.message.replace(secret.1, "(not shown)");
        }
    }
    problems
}

/// Collects the words that look like keys, with their length.
fn collect<'a>(node: &'a Value, secrets: &mut BTreeSet<(usize, &'a str)>) {
    let mut add = |text: &'a str| {
        let parts = text.split(|c: char| c.is_whitespace() || ",;:=/\"'`(){}[]<>".contains(c));
        secrets.extend(parts.chain([text]).filter(|word| looks_secret(word)).map(|word| (word.len(), word)));
    };
    match node {
        Value::String(text) => add(text),
        Value::Array(list) => list.iter().for_each(|value| collect(value, secrets)),
        Value::Object(map) => {
            map.keys().for_each(|name| add(name));
            map.values().for_each(|value| collect(value, secrets));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_key_is_hidden_wherever_it_is_in_the_document() {
        let document = json!({"a": ["fast, sk-live-1"], "sk-live-12": {"b": "Bearer sk-live-123"}, "c": "gpt-4.1"});
        let said = |message: &str| {
            conceal(vec![Problem::new("", message)], &document).first().map(|problem| problem.message.clone()).unwrap()
        };
        assert_eq!(said("write [fast, sk-live-1]"), "write [fast, (not shown)]");
        assert_eq!(said("sk-live-12 and gpt-4.1"), "(not shown) and gpt-4.1");
        assert_eq!(said("Bearer sk-live-123"), "(not shown)");
        assert_eq!(said("x sk-live-123"), "x (not shown)");
    }
}
