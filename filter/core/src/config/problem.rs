//! What is wrong with a policy, and where.

use crate::config::place::Place;
use crate::config::words::write_line;
use std::fmt;

pub(crate) use crate::config::words::url_secrets;
pub use crate::config::words::{looks_secret, quoted, url_has_secret};

/// The message of the problem that stands for mistakes of shape beyond the hundredth, which are not counted.
pub const MORE: &str = "there are more mistakes; mend these and check again";

/// One mistake in a policy: the place as a path (`tenants.acme.tier`) and what would be right there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The offending value; the root for the document as a whole.
    pub place: Place,
    /// What exactly is wrong there.
    pub part: Part,
    /// What is wrong with it and what would be right.
    pub message: String,
}

/// The part of a place that a problem is about, for those who show it in the source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The value.
    Value,
    /// The name that leads to the value: the last step of the place.
    Name,
    /// This name in the mapping at the place. The place in the message is the mapping's.
    Field(String),
}

impl Problem {
    /// A problem of the value at `place`.
    pub fn new(place: impl Into<Place>, message: impl Into<String>) -> Self {
        Self { place: place.into(), part: Part::Value, message: message.into() }
    }

    /// A problem of the name that is the last step of `place`.
    pub fn of_name(place: impl Into<Place>, message: impl Into<String>) -> Self {
        Self { part: Part::Name, ..Self::new(place, message) }
    }

    /// A problem of the name `field` in the mapping at `place`.
    pub fn of_field(place: impl Into<Place>, field: &str, message: impl Into<String>) -> Self {
        Self { part: Part::Field(field.to_owned()), ..Self::new(place, message) }
    }
}

/// `place: message`, always one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_root() {
            write!(f, "{}: ", self.place)?;
        }
        write_line(f, &self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line() {
        assert_eq!(Problem::new("models.a", "no").to_string(), "models.a: no");
        assert_eq!(Problem::new("", "no").to_string(), "no");
        assert_eq!(Problem::new(Place::of(&["models", "a\nb"]), "x\u{1b}[0m").to_string(), "models.a\\nb: x\\u{1b}[0m");
    }
}
