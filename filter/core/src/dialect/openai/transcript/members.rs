//! The members of an object that arrives in pieces, in the order in which they began.
//!
//! Values are JSON as the provider wrote it. So numbers keep their digits, and pieces of a string are joined without
//! decoding them: a character may be split between two pieces, as the two halves of a surrogate pair.

use crate::dialect::openai::transcript::parts_limit;
use crate::wire::json::{Kind, quote_into};

/// Members by name. Each method adds the bytes that they grow by to `bytes`.
#[derive(Debug, Default)]
pub(super) struct Members(Vec<(Box<str>, Value)>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Null,
    /// The inside of a string.
    Text(String),
    /// The elements of a list.
    List(String),
    /// Any other value.
    Other(String),
}

/// What a piece did to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is the first with a value.
    Began,
    /// It was added to the text or the list before it.
    Grew,
    /// It says nothing new.
    Same,
    /// It replaced another value.
    Replaced,
}

impl Members {
    /// Sets a member. What is empty replaces nothing.
    pub(super) fn set(&mut self, name: &str, kind: Kind, json: &str, bytes: &mut usize) -> Change {
        let value = Value::new(kind, json);
        let old = match self.find(name) {
            None => return self.begin(name, value, bytes),
            Some(old) => old,
        };
        match &*old {
            same if *same == value => return Change::Same,
            Value::Null => {}
            _ if value.is_empty() => return Change::Same,
            _ => {}
        }
        let change = if old.is_empty() { Change::Began } else { Change::Replaced };
        *bytes = (*bytes + value.text().len()).saturating_sub(old.text().len());
        *old = value;
        change
    }

    /// Appends to a member if both are texts, or both are lists. Otherwise sets it.
    pub(super) fn append(&mut self, name: &str, kind: Kind, json: &str, bytes: &mut usize) -> Change {
        let more = Value::new(kind, json);
        let (old, more) = match (self.find(name), &more) {
            (Some(Value::Text(old)), Value::Text(more)) => (old, more),
            (Some(Value::List(old)), Value::List(more)) => {
                if !old.is_empty() && !more.is_empty() {
                    old.push(',');
                    *bytes += 1;
                }
                (old, more)
            }
            _ => return self.set(name, kind, json, bytes),
        };
        let change = match (old.is_empty(), more.is_empty()) {
            (_, true) => Change::Same,
            (true, false) => Change::Began,
            (false, false) => Change::Grew,
        };
        old.push_str(more);
        *bytes += more.len();
        change
    }

    /// Removes a member and returns the inside of it, if that is a text with something in it.
    pub(super) fn take_text(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| **other == *name)?;
        match self.0.remove(at).1 {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// Returns whether there is a member with something in it, apart from these.
    pub(super) fn has_others(&self, but: &[&str]) -> bool {
        self.0.iter().any(|(name, value)| !but.contains(&&**name) && !value.is_empty())
    }

    /// Returns the inside of a member that is a text; empty for any other.
    pub(super) fn text(&self, name: &str) -> &str {
        match self.0.iter().find(|(other, _)| **other == *name) {
            Some((_, Value::Text(text))) => text,
            _ => "",
        }
    }

    /// Returns whether there is such a member.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| **other == *name)
    }

    /// Returns whether there is such a member with something in it.
    pub(super) fn has_value(&self, name: &str) -> bool {
        self.0.iter().any(|(other, value)| **other == *name && !value.is_empty())
    }

    /// Returns whether it has no member.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes one member, if there is one of this name.
    pub(super) fn write(&self, name: &str, out: &mut String) {
        self.write_those(|other| other == name, out);
    }

    /// Writes all members but these.
    pub(super) fn write_others(&self, but: &[&str], out: &mut String) {
        self.write_those(|name| !but.contains(&name), out);
    }

    fn write_those(&self, which: impl Fn(&str) -> bool, out: &mut String) {
        for (name, value) in self.0.iter().filter(|(name, _)| which(name)) {
            begin_member(name, out);
            let (open, close) = match value {
                Value::Text(_) => ("\"", "\""),
                Value::List(_) => ("[", "]"),
                Value::Null | Value::Other(_) => ("", ""),
            };
            [open, value.text(), close].into_iter().for_each(|part| out.push_str(part));
        }
    }

    fn find(&mut self, name: &str) -> Option<&mut Value> {
        self.0.iter_mut().find(|(other, _)| **other == *name).map(|(_, value)| value)
    }

    fn begin(&mut self, name: &str, value: Value, bytes: &mut usize) -> Change {
        *bytes = bytes.saturating_add(parts_limit::size(self.0.len(), name.len() + value.text().len()));
        self.0.push((name.into(), value));
        Change::Began
    }
}

impl Value {
    fn new(kind: Kind, json: &str) -> Self {
        let inside = || json.get(1..json.len().saturating_sub(1)).unwrap_or_default();
        match kind {
            Kind::Null => Self::Null,
            Kind::String => Self::Text(inside().to_owned()),
            Kind::Array => Self::List(inside().trim_ascii().to_owned()),
            Kind::Object if inside().trim_ascii().is_empty() => Self::Other("{}".to_owned()),
            Kind::Object | Kind::Number | Kind::Bool => Self::Other(json.to_owned()),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Null => "null",
            Self::Text(text) | Self::List(text) | Self::Other(text) => text,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Text(text) | Self::List(text) => text.is_empty(),
            Self::Other(text) => text == "{}",
        }
    }
}

/// Writes the name of the next member of an object.
pub(super) fn begin_member(name: &str, out: &mut String) {
    separate(out);
    if name.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')) {
        let mut quoted = Vec::new();
        quote_into(&mut quoted, name);
        out.push_str(&String::from_utf8_lossy(&quoted));
        out.push(':');
    } else {
        ["\"", name, "\":"].into_iter().for_each(|part| out.push_str(part));
    }
}

/// Writes the comma before an element or a member, unless it is the first one.
pub(super) fn separate(out: &mut String) {
    if !out.ends_with(['{', '[']) {
        out.push(',');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Change::{Began, Grew, Replaced, Same};

    fn written(members: &Members) -> String {
        let mut out = String::from("{");
        members.write_others(&[], &mut out);
        out + "}"
    }

    #[test]
    fn texts_and_lists_grow_and_what_is_empty_says_nothing() {
        let (mut members, mut bytes) = (Members::default(), 0);
        let mut append = |kind, json| members.append("a", kind, json, &mut bytes);
        assert_eq!(append(Kind::Null, "null"), Began);
        assert_eq!(append(Kind::String, r#""""#), Began);
        assert_eq!(append(Kind::Null, "null"), Same);
        assert_eq!(append(Kind::String, r#""\ud83d""#), Began);
        assert_eq!(append(Kind::String, r#""\ude00[""#), Grew);
        assert_eq!(append(Kind::String, r#""""#), Same);
        assert_eq!(members.append("b", Kind::Array, "[ ]", &mut bytes), Began);
        assert_eq!(members.append("b", Kind::Array, "[ 1.50 , {} ]", &mut bytes), Began);
        assert_eq!(members.append("b", Kind::Array, "[2]", &mut bytes), Grew);
        assert_eq!(written(&members), r#"{"a":"\ud83d\ude00[","b":[1.50 , {},2]}"#);
        assert_eq!(bytes, r#"a\ud83d\ude00[b1.50 , {},2"#.len());
        assert_eq!(members.append("a", Kind::Number, "1", &mut bytes), Replaced);
        assert_eq!(members.append("a", Kind::Number, "1", &mut bytes), Same);
        assert_eq!(written(&members), r#"{"a":1,"b":[1.50 , {},2]}"#);
        assert_eq!(bytes, "a1b1.50 , {},2".len());
    }

    #[test]
    fn a_member_that_is_set_has_its_last_value() {
        let (mut members, mut bytes) = (Members::default(), 0);
        let mut set = |kind, json| members.set("a", kind, json, &mut bytes);
        assert_eq!(set(Kind::Object, "{ }"), Began);
        assert_eq!(set(Kind::Object, r#"{"x": 1e2}"#), Began);
        assert_eq!(set(Kind::Object, r#"{"x": 1e2}"#), Same);
        assert_eq!(set(Kind::Object, "{}"), Same);
        assert_eq!(set(Kind::String, r#""x""#), Replaced);
        assert_eq!((written(&members), bytes), (r#"{"a":"x"}"#.to_owned(), 2));
        assert_eq!((members.text("a"), members.text("b"), members.has("b")), ("x", "", false));
    }
}
