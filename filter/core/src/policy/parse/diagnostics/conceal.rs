//! The last guard of secrets: no message repeats a word of the document that may be an API key.

use crate::config::place::Step;
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
        // What is where a key belongs may be one, whatever it looks like. A time is not.
        let is_time = problem.place.steps().last().and_then(Step::as_name) == Some("expires");
        if problem.place.holds_secrets()
            && !is_time
            && let Some(text) = value_at(document, problem.place.steps()).and_then(Value::as_str)
        {
            for word in [text, text.trim_matches('/')].into_iter().filter(|word| !word.is_empty()) {
                problem.message = problem.message.replace(word, "(not shown)");
            }
        }
    }
    problems
}

fn value_at<'a>(document: &'a Value, place: &[Step]) -> Option<&'a Value> {
    place.iter().try_fold(document, |node, step| match step {
        Step::Name(name) => node.get(name),
        Step::Index(index) => node.get(index),
    })
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
    use crate::config::place::Place;
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

    #[test]
    fn what_is_where_a_key_belongs_is_hidden_whatever_it_looks_like() {
        let document = json!({"providers": {"credential": {"prefix": "hunter2"}}});
        let problem = Problem::new(Place::of(&["providers", "credential", "prefix"]), "write /hunter2");
        assert_eq!(conceal(vec![problem], &document)[0].message, "write /(not shown)");
    }
}
