//! One thing that is missing.

use std::fmt;

/// What is missing, where, what follows, and what to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    place: String,
    what: String,
    why: String,
    add: String,
}

impl Finding {
    /// Creates a finding. `add` is a line of YAML, or says which lines.
    pub fn new(place: &str, what: &str, why: &str, add: &str) -> Self {
        Self { place: place.to_owned(), what: what.to_owned(), why: why.to_owned(), add: add.to_owned() }
    }
}

/// Three lines: what, why, what to add.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { place, what, why, add } = self;
        write!(f, "{place}: {what}\n  {why}\n  add: {add}")
    }
}
