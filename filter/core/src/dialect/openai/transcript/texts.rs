//! The string members of a recorded object, assigned or appended piece by piece.

use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// String members by name. Each method adds the bytes that they grow by to `bytes`.
#[derive(Debug, Default)]
pub(super) struct Texts(BTreeMap<String, String>);

impl Texts {
    /// Assigns a member.
    pub(super) fn set(&mut self, name: &str, text: Cow<str>, bytes: &mut usize) {
        let len = text.len();
        *bytes += match self.0.insert(name.to_owned(), text.into_owned()) {
            None => name.len() + len,
            Some(before) => len.saturating_sub(before.len()),
        };
    }

    /// Appends to a member.
    pub(super) fn append(&mut self, name: &str, text: &str, bytes: &mut usize) {
        match self.0.get_mut(name) {
            Some(before) => before.push_str(text),
            None => {
                self.0.insert(name.to_owned(), text.to_owned());
                *bytes += name.len();
            }
        }
        *bytes += text.len();
    }

    /// Returns a member; empty if absent.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Returns the members as JSON.
    pub(super) fn into_json(self) -> Map<String, Value> {
        self.0.into_iter().map(|(name, text)| (name, Value::String(text))).collect()
    }
}
