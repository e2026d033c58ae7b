//! Mistakes of shape in a policy: unknown, missing and mistyped fields, each reported once, for policy authors.
//!
//! serde stops at the first mistake. To report all of them, the place of each is repaired and the rest is read again. A
//! repair puts a placeholder where the value was, so that nothing is missing and no list is renumbered.
//!
//! serde's messages are never shown unchanged. They quote values, and a value may be an API key in the wrong place.

use crate::config::place::{Place, Step};
use crate::config::problem::{Problem, quoted};
use crate::config::{Config, Limits, RequestBounds, Time};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use serde_path_to_error::{Path, Segment};

type Error = serde_path_to_error::Error<serde_json::Error>;

/// After this many mistakes, nothing more is repaired.
const ENOUGH: usize = 100;

/// Reads the document, or reports every mistake of shape in it.
pub(super) fn read(document: &Value) -> Result<Config, Vec<Problem>> {
    let first = match serde_path_to_error::deserialize(document) {
        Ok(config) => return Ok(config),
        Err(error) => error,
    };
    let mut tree = document.clone();
    let mut mistakes: Vec<Mistake> = Vec::new();
    let mut next = Some(Mistake::of(&first));
    while let Some(mistake) = next.take() {
        let repaired = if mistakes.len() < ENOUGH { mistake.repair(&mut tree) } else { None };
        if !mistakes.iter().any(|earlier| earlier.is_misspelling_of(&mistake)) {
            mistakes.push(mistake);
        }
        next = repaired.flatten();
    }
    Err(mistakes.iter().map(|mistake| mistake.problem(Some(document))).collect())
}

/// Converts a serde error to a problem.
pub(super) fn problem(error: &Error) -> Problem {
    Mistake::of(error).problem(None)
}

/// One mistake: its place, and its kind according to serde.
#[derive(Debug, PartialEq)]
struct Mistake {
    /// Names and indices from the root to the wrong value.
    place: Vec<Step>,
    kind: Kind,
}

#[derive(Debug, PartialEq)]
enum Kind {
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
    fn of(error: &Error) -> Self {
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
            // A former name is accepted, but nobody should start to use it.
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

    /// Makes the place acceptable. Returns the next mistake, if there is one, or `None` if no repair works.
    fn repair(&self, tree: &mut Value) -> Option<Option<Mistake>> {
        let stand_ins = match &self.kind {
            Kind::UnknownField(_) => Vec::new(),
            Kind::UnknownVariant(_, names) => names.first().map(|name| json!(name)).into_iter().collect(),
            _ => vec![json!(null), json!(""), json!(0), json!(false), json!([]), json!({})],
        };
        for stand_in in stand_ins {
            put(tree, &self.place, Some(stand_in))?;
            match self.after_repair(tree) {
                Ok(next) => return Some(next),
                // A name from a list is expected, and this error lists the names.
                Err(Mistake { kind: Kind::UnknownVariant(_, names), .. }) => {
                    put(tree, &self.place, names.first().map(|name| json!(name)))?;
                    if let Ok(next) = self.after_repair(tree) {
                        return Some(next);
                    }
                }
                Err(_) => {}
            }
        }
        put(tree, &self.place, None)?;
        self.after_repair(tree).ok()
    }

    /// Returns the next mistake. An error means that the repaired place is still wrong.
    fn after_repair(&self, tree: &Value) -> Result<Option<Mistake>, Mistake> {
        match serde_path_to_error::deserialize::<_, Config>(tree) {
            Ok(_) => Ok(None),
            Err(error) => {
                let next = Mistake::of(&error);
                if next.place.starts_with(&self.place) { Err(next) } else { Ok(Some(next)) }
            }
        }
    }

    /// Returns whether this unknown field is `missing` with one or two letters wrong. Then they are one mistake.
    fn is_misspelling_of(&self, missing: &Mistake) -> bool {
        match (self.place.split_last(), missing.place.split_last()) {
            (Some((Step::Name(given), parents)), Some((Step::Name(meant), others)))
                if matches!(self.kind, Kind::UnknownField(_)) && missing.kind == Kind::MissingField =>
            {
                parents == others && edits(given, meant) <= 2
            }
            _ => false,
        }
    }

    fn place(&self) -> Place {
        Place::from(self.place.as_slice())
    }

    /// Describes the mistake. `document`: the document it is in, if the message may show its values to suggest a fix.
    fn problem(&self, document: Option<&Value>) -> Problem {
        if let Some(problem) = self.moved(document) {
            return problem;
        }
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

impl Mistake {
    /// Tells where a field belongs that older policies have elsewhere.
    fn moved(&self, document: Option<&Value>) -> Option<Problem> {
        let Kind::UnknownField(_) = &self.kind else { return None };
        let names: Vec<_> = self.place.iter().map(Step::as_name).collect();
        let value = document.and_then(|document| {
            self.place.iter().try_fold(document, |node, step| node.as_object()?.get(step.as_name()?))
        });
        let message = match names.as_slice() {
            [Some("limits")] if value.is_some_and(is_all_limits) => {
                format!("limits belong under a tier or a tenant: `tiers: {{NAME: {{limits: {}}}}}`", shown(value))
            }
            [Some("limits")] => {
                format!("request bounds belong under `request`: `request: {}`", shown(value))
            }
            [Some("tiers" | "tenants"), Some(_), Some(field)] if is_field::<Limits>(field) => {
                format!("limits belong under `limits`: `limits: {{{field}: {}}}`", shown(value))
            }
            _ => return None,
        };
        Some(Problem::of_name(self.place(), message))
    }
}

/// Returns whether a section has this field.
fn is_field<Section: DeserializeOwned>(name: &str) -> bool {
    let only = Value::Object([(name.to_owned(), Value::Null)].into_iter().collect());
    serde_json::from_value::<Section>(only)
        .map_or_else(|error| !error.to_string().starts_with("unknown field"), |_| true)
}

fn is_all_limits(value: &Value) -> bool {
    value.as_object().is_some_and(|map| !map.is_empty() && map.keys().all(|name| is_field::<Limits>(name)))
}

/// Formats a value of a policy, without any part that may be a key.
fn shown(value: Option<&Value>) -> String {
    let is_known = |name: &String| is_field::<Limits>(name) || is_field::<RequestBounds>(name);
    match value {
        Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        Some(Value::String(text)) if serde_json::from_value::<Time>(json!(text)).is_ok() => text.clone(),
        Some(Value::Array(list)) => {
            format!("[{}]", list.iter().map(|value| shown(Some(value))).collect::<Vec<_>>().join(", "))
        }
        Some(Value::Object(map)) if map.keys().all(is_known) => {
            let fields = map.iter().map(|(name, value)| format!("{name}: {}", shown(Some(value))));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Some(Value::Object(_)) => "{…}".to_owned(),
        _ => "…".to_owned(),
    }
}

/// Returns the Levenshtein distance of two words, in bytes.
fn edits(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (b, above) in other.bytes().zip(row.iter_mut().skip(1)) {
            let best = (diagonal + usize::from(a != b)).min(*above + 1).min(left + 1);
            diagonal = std::mem::replace(above, best);
            left = best;
        }
    }
    row.last().copied().unwrap_or(0)
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
fn put(tree: &mut Value, place: &[Step], value: Option<Value>) -> Option<()> {
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

fn in_backticks(text: &str) -> Vec<String> {
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
        "string or map" | "variant identifier" => "a name".to_owned(),
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

#[cfg(test)]
mod tests;
