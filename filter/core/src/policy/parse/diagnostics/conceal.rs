//! The last guard of secrets: no message repeats a word of the document that may be an API key.

use crate::config::place::Step;
use crate::config::problem::{Problem, looks_secret, url_has_secret, url_secrets};

use serde_json::Value;
use std::collections::BTreeSet;
use std::ops::Range;

/// How many words around a secret one may be part of it. A longer text is never repeated as a whole.
const WORDS: usize = 8;
/// How many characters of a word may be a key that the message adds to.
const WORD: usize = 256;

/// Hides every word in the messages that may be a key in the wrong place. Takes time for the document and for the
/// messages, not for their product: the words of a message are looked up.
pub(super) fn conceal(mut problems: Vec<Problem>, document: &Value) -> Vec<Problem> {
    let mut secrets = BTreeSet::new();
    collect(document, &mut secrets);
    for problem in &mut problems {
        if let Some(message) = without(&secrets, &problem.message) {
            problem.message = message;
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

/// Returns the message without the secrets, or `None` if it has none.
fn without(secrets: &BTreeSet<&str>, message: &str) -> Option<String> {
    let words = words(message);
    let mut hidden: Vec<Range<usize>> = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let text = message.get(word.clone()).unwrap_or_default();
        // A message may add to a word, but not so much that it no longer looks like a key.
        if !secrets.contains(text) && !is_extended(secrets, text) {
            continue;
        }
        let around = |before: usize, after: usize| {
            let (first, last) = (words.get(at.checked_sub(before)?)?, words.get(at + after)?);
            let whole = first.start..last.end;
            secrets.contains(message.get(whole.clone())?).then_some(whole)
        };
        // The longest text around it: it may contain a shorter one.
        let wholes = (0..WORDS).flat_map(|before| (0..WORDS).map(move |after| (before, after)));
        let whole = wholes.filter_map(|(before, after)| around(before, after)).max_by_key(Range::len);
        hidden.push(whole.unwrap_or(word.clone()));
    }
    if hidden.is_empty() {
        return None;
    }
    hidden.sort_unstable_by_key(|part| part.start);
    let (mut said, mut shown_from) = (String::with_capacity(message.len()), 0);
    for part in hidden {
        if part.start >= shown_from {
            said.push_str(message.get(shown_from..part.start)?);
            said.push_str("(not shown)");
        }
        shown_from = shown_from.max(part.end);
    }
    said.push_str(message.get(shown_from..)?);
    Some(said)
}

/// Whether a word looks like a key and begins with one of the document.
fn is_extended(secrets: &BTreeSet<&str>, word: &str) -> bool {
    let mut beginnings = word.char_indices().take(WORD).filter_map(|(at, _)| word.get(..at));
    looks_secret(word) && beginnings.any(|beginning| secrets.contains(beginning))
}

/// Whether a character separates words.
fn separates(c: char) -> bool {
    c.is_whitespace() || ",;:=/\"'`(){}[]<>?&@".contains(c)
}

/// The words of a text, in bytes.
fn words(text: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let parts = text.split_inclusive(separates).map(|part| {
        let word = start..start + part.trim_end_matches(separates).len();
        start += part.len();
        word
    });
    parts.filter(|word| !word.is_empty()).collect()
}

fn value_at<'a>(document: &'a Value, place: &[Step]) -> Option<&'a Value> {
    place.iter().try_fold(document, |node, step| match step {
        Step::Name(name) => node.get(name),
        Step::Index(index) => node.get(index),
    })
}

/// Collects the words that look like keys, and the texts that consist of several such words.
fn collect<'a>(node: &'a Value, secrets: &mut BTreeSet<&'a str>) {
    let mut add = |text: &'a str| {
        let parts = words(text).into_iter().filter_map(|word| text.get(word));
        secrets.extend(parts.chain([text, text.trim_matches(separates)]).filter(|word| looks_secret(word)));
        if url_has_secret(text) {
            // A single letter is no password, and would be found in any message.
            let parts = url_secrets(text).flat_map(|part| {
                words(part).into_iter().filter_map(|word| part.get(word)).chain([part]).collect::<Vec<_>>()
            });
            secrets.extend(parts.filter(|part| part.len() > 2));
        }
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
        assert_eq!(said("sk-live-12s"), "(not shown)");
    }

    #[test]
    fn no_part_of_a_url_that_may_be_secret_is_shown() {
        let document = json!({"a": "https://user:hunter2@api.x.com/v1?key=0a1b&v=2"});
        for message in ["write hunter2", "user:hunter2", "found 0a1b", "https://user:hunter2@api.x.com/v1?key=0a1b&v=2"]
        {
            let said = conceal(vec![Problem::new("", message)], &document);
            assert!(!said[0].message.contains("hunter2") && !said[0].message.contains("0a1b"), "{said:?}");
        }
    }

    #[test]
    fn what_is_where_a_key_belongs_is_hidden_whatever_it_looks_like() {
        let document = json!({"providers": {"credential": {"prefix": "hunter2"}}});
        let problem = Problem::new(Place::of(&["providers", "credential", "prefix"]), "write /hunter2");
        assert_eq!(conceal(vec![problem], &document)[0].message, "write /(not shown)");
    }
}
