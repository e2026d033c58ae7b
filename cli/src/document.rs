//! Parses YAML or JSON text into a tree, and refuses duplicate names.

use crate::syntax_message;
use pointsman_core::config::problem::quoted;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::DuplicateKeyPolicy;
use std::fmt;

/// Why a text cannot be parsed, and where.
#[derive(Debug, PartialEq)]
pub struct InvalidDocument {
    /// Line and column, from 1, if the parser knows them.
    pub at: Option<(u64, u64)>,
    /// The problem. Never repeats a value of the text.
    pub message: String,
}

impl fmt::Display for InvalidDocument {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.at {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Returns how YAML is read.
pub fn yaml_options(duplicate_keys: DuplicateKeyPolicy) -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! {
        // A policy may have any number of tenants. The limits on aliases bound an alias bomb.
        max_nodes: 50_000_000,
        max_events: 100_000_000,
    };
    serde_saphyr::options! {
        budget: budget,
        duplicate_keys: duplicate_keys,
        strict_booleans: true,
        // A snippet would repeat lines of the policy.
        with_snippet: false,
    }
}

/// Parses YAML 1.2.
///
/// # Errors
/// The first mistake.
pub fn from_yaml(text: &str) -> Result<Value, InvalidDocument> {
    serde_saphyr::from_str_with_options::<Tree>(text, yaml_options(DuplicateKeyPolicy::Error))
        .map(|Tree(value)| value)
        .map_err(|error| {
            let at = error.location().map(|l| (l.line(), l.column())).filter(|(line, _)| *line > 0);
            let message = match error.without_snippet() {
                serde_saphyr::Error::DuplicateMappingKey { key, .. } => given_twice(key.as_deref().unwrap_or_default()),
                serde_saphyr::Error::MultipleDocuments { .. } => "a policy must be a single document".to_owned(),
                error => syntax_message::of_yaml(&without_place(&error.to_string()), text, at),
            };
            InvalidDocument { at, message }
        })
}

/// Parses JSON.
///
/// # Errors
/// The first mistake.
pub fn from_json(text: &str) -> Result<Value, InvalidDocument> {
    serde_json::from_str::<Tree>(text).map(|Tree(value)| value).map_err(|error| InvalidDocument {
        at: Some((error.line() as u64, error.column() as u64)).filter(|(line, _)| *line > 0),
        message: syntax_message::of_json(&without_place(&error.to_string()), text, (error.line(), error.column())),
    })
}

fn given_twice(name: &str) -> String {
    format!("duplicate name {}", quoted(name))
}

/// Removes the position from a parser's message. Parsers word it differently; here it precedes the message.
fn without_place(message: &str) -> String {
    let end = [" at line ", " at "].iter().find_map(|mark| {
        message
            .rfind(mark)
            .filter(|at| message.get(at + mark.len()..).is_some_and(|t| t.starts_with(|c: char| c.is_ascii_digit())))
    });
    end.and_then(|end| message.get(..end)).unwrap_or(message).to_owned()
}

/// A tree whose objects have unique names. `serde_json::Value` silently keeps the last of two.
struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor).map(Tree)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON-compatible value")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Tree::deserialize(deserializer).map(|Tree(value)| value)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }
    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Tree(value)) = sequence.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            if map.contains_key(&name) {
                return Err(A::Error::custom(given_twice(&name)));
            }
            let Tree(value) = access.next_value()?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn yaml_error(text: &str) -> String {
        from_yaml(text).unwrap_err().to_string()
    }

    #[test]
    fn yaml_and_json_give_the_same_tree() {
        let expected = json!({"a": {"b": [1, -2, 0.5, true, null, "x"]}, "7": "no", "e": {}});
        assert_eq!(from_yaml("a: {b: [1, -2, 0.5, true, null, x]}\n7: no\ne: {}\n").unwrap(), expected);
        assert_eq!(from_json(&expected.to_string()).unwrap(), expected);
        assert_eq!(from_json(r#""\ud83d\ude00""#).unwrap(), json!("😀"));
    }

    #[test]
    fn what_yaml_takes_for_numbers_and_text() {
        let tree = from_yaml(
            "a: 2027-01-31T00:00:00Z\nb: sha256:00ff\nc: '5'\nd: 1e3\ne: |\n  x\nf: 18446744073709551615\ng: 32_768\n",
        );
        assert_eq!(
            tree.unwrap(),
            json!({"a": "2027-01-31T00:00:00Z", "b": "sha256:00ff", "c": "5", "d": 1000.0, "e": "x\n", "f": u64::MAX,
                "g": 32768})
        );
    }

    #[test]
    fn anchors_and_merge_keys_work() {
        assert_eq!(
            from_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n").unwrap(),
            json!({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}})
        );
    }

    #[test]
    fn a_name_given_twice_is_refused() {
        assert_eq!(yaml_error("a:\n  b: 1\n  c: 2\n  b: 3\n"), "line 4, column 3: duplicate name \"b\"");
        let json = from_json("{\"a\": {\"b\": 1,\n \"b\": 1}}").unwrap_err();
        assert_eq!(json.to_string(), "line 2, column 4: duplicate name \"b\"");
    }

    #[test]
    fn a_mistake_of_syntax_is_told_in_the_words_of_the_author() {
        for (text, message) in [
            (
                "a: b: c\n",
                "line 1, column 5: a name and its value are not allowed here; check the indentation, put text \
              with \": \" in quotation marks, and a space after each \":\"",
            ),
            ("a: [1, 2\nb: 3\n", "line 2, column 2: \":\" is not allowed here; is a bracket above not closed?"),
            ("a:\n  b: 1\n c: 2\n", "line 3, column 2: expected a name; check the indentation"),
            ("a:\n\tb: 1\n", "line 2, column 2: indentation must be spaces, not tabs"),
            ("a: *b\n", "line 1, column 4: no anchor has this name; put text that begins with * in quotation marks"),
            ("a: &a [*a]\n", "line 1, column 8: an alias must not refer to a value that contains it"),
            ("a: @b\n", "line 1, column 4: text that begins with this character must be in quotation marks"),
            ("? [a]\n: b\n", "line 1, column 3: a name must be text"),
            ("a: .inf\n", "line 1, column 4: a number must be finite"),
        ] {
            assert_eq!(yaml_error(text), message);
        }
        let deep = format!("{}1{}", "{\"a\": ".repeat(100), "}".repeat(100));
        assert_eq!(yaml_error(&deep), "line 1, column 385: nested too deeply");
    }

    #[test]
    fn a_mistake_of_syntax_has_a_place() {
        for wrong in [
            "a: [1, 2\nb: 3\n",
            "a: b: c\n",
            "a: 'x\n",
            "a:\n\tb: 1\n",
            "a: *nothing\n",
            "a: .inf\n",
            "---\na: 1\n---\nb: 2\n",
        ] {
            let error = from_yaml(wrong).unwrap_err();
            println!("{wrong:?} {error}");
            assert!(error.at.is_some(), "{wrong:?}: {error}");
            assert!(!error.message.contains(" at ") && !error.message.contains("column"), "{wrong:?}: {error}");
        }
        let error = from_json("{\"a\": 1,\n}").unwrap_err();
        assert_eq!(error.to_string(), "line 2, column 1: trailing comma");
    }

    /// Inserts a syntax character at every position of a policy that holds a key in plain text.
    #[test]
    fn no_message_repeats_what_may_be_a_key() {
        let good = "t:\n  keys: [sk-live-0123456789]\n  &a sk-live-0123456789: {\"sk-live-0123456789\": *a}\n  \
            b: !c sk-live-0123456789\n";
        let mut refused = 0;
        for at in (0..good.len()).filter(|at| good.is_char_boundary(*at)) {
            for inserted in ["\"", "'", "{", "]", ": ", "\t", "*", "&", "!", "|", "%", "\n- ", "\u{0}", "`"] {
                let (before, after) = good.split_at(at);
                if let Err(error) = from_yaml(&format!("{before}{inserted}{after}")) {
                    refused += 1;
                    assert!(!error.message.contains("live"), "{at} {inserted:?}: {error}");
                }
            }
        }
        assert!(refused > 500, "{refused}");
    }
}
