//! One mistake of shape, as serde reports it: its place and its kind.
//!
//! serde's messages are never shown unchanged. They quote values, and a value may be an API key in the wrong place.

use crate::config::Config;
use crate::config::place::{Place, Step};
use crate::config::problem::{Problem, quoted};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

type Error = serde_path_to_error::Error<serde_json::Error>;

/// One mistake: its place, and its kind according to serde.
#[derive(Debug, PartialEq)]
pub(super) struct Mistake {
    /// Names and indices from the root to the wrong value.
    pub(super) place: Vec<Step>,
    pub(super) kind: Kind,
}

#[derive(Debug, PartialEq)]
pub(super) enum Kind {
    /// The last step of the place is a field that does not exist. Holds those that do.
    UnknownField(Vec<String>),
    /// The last step of the place is a field that should exist.
    MissingField,
    DuplicateField,
    /// A value that is not one of the allowed names. Holds both.
    UnknownVariant(String, Vec<String>),
    /// The found type and the expected one.
    WrongType(&'static str, String),
    /// A message that quotes no value.
    Other(String),
}

impl Mistake {
    pub(super) fn of(error: &Error) -> Self {
        let mut place = steps(error.path());
        let message = error.inner().to_string();
        // A tree has no lines. A text does, but the place is more helpful than a position in one long line of JSON.
        let text = if error.inner().is_data() { without_line(&message) } else { &message };
        let kind = if let Some((field, expected)) = split(text, "unknown field `") {
            // serde also puts the field into the path if it can.
            if place.last() != Some(&Step::Name(field.to_owned())) {
                place.push(Step::Name(field.to_owned()));
            }
            let mut fields = in_backticks(expected);
            // A former name is accepted, but not proposed.
            if matches!(place.as_slice(), [Step::Name(section), _, _] if section == "models") {
                fields.retain(|field| field != "tier");
            }
            Kind::UnknownField(fields)
        } else if let Some(field) = text.strip_prefix("missing field `") {
            place.push(Step::Name(field.trim_end_matches('`').to_owned()));
            Kind::MissingField
        } else if let Some(field) = text.strip_prefix("duplicate field `") {
            if place.last() != Some(&Step::Name(field.trim_end_matches('`').to_owned())) {
                place.push(Step::Name(field.trim_end_matches('`').to_owned()));
            }
            Kind::DuplicateField
        } else if let Some((variant, expected)) = split(text, "unknown variant `") {
            Kind::UnknownVariant(variant.to_owned(), in_backticks(expected))
        } else if let Some((found, expected)) = wrong_type(text) {
            Kind::WrongType(found, expected)
        } else {
            Kind::Other(text.to_owned())
        };
        Self { place, kind }
    }

    /// Reads a tree, or returns its first mistake.
    pub(super) fn in_tree(tree: &Value) -> Result<(), Self> {
        serde_path_to_error::deserialize::<_, Config>(tree).map(drop).map_err(|error| Self::of(&error))
    }

    /// Returns the next mistake. An error means that the repaired place is still wrong.
    pub(super) fn after_repair(place: &[Step], tree: &Value) -> Result<Option<Mistake>, Mistake> {
        match Self::in_tree(tree) {
            Ok(()) => Ok(None),
            Err(next) if next.place.starts_with(place) => Err(next),
            Err(next) => Ok(Some(next)),
        }
    }

    pub(super) fn place(&self) -> Place {
        Place::from(self.place.as_slice())
    }

    /// Describes the mistake in a few words, for the log of a gateway. The messages of `explain.rs` are for people who
    /// write policies, and are not part of the module.
    pub(super) fn problem(&self) -> Problem {
        let (last, parents) = match self.place.split_last() {
            Some((Step::Name(name), parents)) => (name.as_str(), parents),
            _ => ("", &[][..]),
        };
        let name = |text: &str| if self.place().holds_secrets() { "(not shown)".to_owned() } else { quoted(text) };
        match &self.kind {
            Kind::UnknownField(fields) => Problem::of_field(
                parents,
                last,
                match fields.as_slice() {
                    [] => format!("unknown field {}; no fields are allowed here", name(last)),
                    fields => format!("unknown field {}; known fields: {}", name(last), fields.join(", ")),
                },
            ),
            Kind::MissingField => Problem::of_field(parents, last, format!("missing field \"{last}\"")),
            Kind::DuplicateField => Problem::of_field(parents, last, format!("duplicate field \"{last}\"")),
            Kind::UnknownVariant(variant, names) => {
                let names = names.join(", ");
                Problem::new(self.place(), format!("{} is not one of {names}", name(variant)))
            }
            Kind::WrongType(found, _) if self.place.is_empty() => {
                Problem::new("", format!("expected the sections of a policy, found {found}"))
            }
            Kind::WrongType(found @ ("a number" | "a boolean"), expected) if expected == "a string" => {
                Problem::new(self.place(), format!("expected a string, found {found}; put it in quotes"))
            }
            Kind::WrongType(found, expected) => {
                Problem::new(self.place(), format!("expected {expected}, found {found}"))
            }
            Kind::Other(message) => Problem::new(self.place(), message.as_str()),
        }
    }
}

fn steps(path: &Path) -> Vec<Step> {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Name(key.clone())),
            Segment::Enum { variant } => Some(Step::Name(variant.clone())),
            Segment::Unknown => None,
        })
        .collect()
}

/// Puts a value at the place, or removes the value there. Returns `None` if there is no such place.
pub(super) fn put(tree: &mut Value, place: &[Step], value: Option<Value>) -> Option<()> {
    let (last, parents) = place.split_last()?;
    let node = parents.iter().try_fold(tree, |node, step| match step {
        Step::Name(name) => node.as_object_mut()?.get_mut(name),
        Step::Index(index) => node.as_array_mut()?.get_mut(*index),
    })?;
    match (last, value) {
        (Step::Name(name), Some(value)) => drop(node.as_object_mut()?.insert(name.clone(), value)),
        (Step::Name(name), None) => drop(node.as_object_mut()?.remove(name)),
        (Step::Index(index), Some(value)) => *node.as_array_mut()?.get_mut(*index)? = value,
        // Removing an element would renumber those after it.
        (Step::Index(_), None) => return None,
    }
    Some(())
}

fn without_line(message: &str) -> &str {
    message.rfind(" at line ").and_then(|at| message.get(..at)).unwrap_or(message)
}

/// Splits serde's message after `start` into the quoted name and the rest, which lists the expected names.
fn split<'a>(text: &'a str, start: &str) -> Option<(&'a str, &'a str)> {
    let rest = text.strip_prefix(start)?;
    // Search from the right: the quoted name may contain anything, but the expected names may not.
    rest.rsplit_once("`, expected ").or_else(|| rest.rsplit_once("`, there are no "))
}

pub(super) fn in_backticks(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn wrong_type(text: &str) -> Option<(&'static str, String)> {
    let rest = ["invalid type: ", "invalid value: ", "invalid length "].iter().find_map(|p| text.strip_prefix(p))?;
    let (found, expected) = rest.rsplit_once(", expected ")?;
    let found = match found.split([' ', '`']).next().unwrap_or_default() {
        _ if found == "unit variant" => "the name alone",
        "null" | "unit" => "nothing",
        "boolean" => "a boolean",
        "integer" if found.starts_with("integer `-") => "a negative number",
        "floating" => "a decimal number",
        "integer" | "number" => "a number out of range",
        "string" | "character" => "a string",
        "map" => "a mapping",
        _ => "a list",
    };
    let expected = match expected {
        "u64" | "u32" | "usize" => "a whole number".to_owned(),
        "f64" => "a number".to_owned(),
        "a string" | "string" => "a string".to_owned(),
        "a boolean" => "a boolean".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a map" => "a mapping of names to fields".to_owned(),
        "string or map" | "variant identifier" | "enum" | "value" => "a name".to_owned(),
        "newtype variant" => "a value".to_owned(),
        "unit" | "unit variant" => "the name alone".to_owned(),
        struct_ if struct_.starts_with("struct ") => "a mapping of fields".to_owned(),
        other => other.to_owned(),
    };
    let found = match (found, &*expected) {
        ("a number out of range" | "a decimal number", other) if other != "a whole number" => "a number",
        (found, _) => found,
    };
    Some((found, expected))
}
