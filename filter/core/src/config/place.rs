//! Where something is in a policy: the names and indices that lead to it.

use crate::config::words::{starts_like_a_secret, url_has_secret, write_line};
use std::fmt;

/// One step down into a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// To the value of a field, or of a name such as `gpt-4.1`.
    Name(String),
    /// To an element of a list, counted from 0.
    Index(usize),
}

impl Step {
    /// Returns the name, unless the step is an index.
    pub fn as_name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Index(_) => None,
        }
    }
}

/// A place in a policy, from its root. Empty for the policy as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(Vec<Step>);

impl Place {
    /// The place that these names lead to. Each is one step, whatever it contains.
    pub fn of(names: &[&str]) -> Self {
        names.iter().map(|name| Step::Name((*name).to_owned())).collect()
    }

    /// The place of a name in this mapping.
    #[must_use]
    pub fn name(&self, name: &str) -> Self {
        self.with(Step::Name(name.to_owned()))
    }

    /// The place of an element of this list.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    /// The steps from the root.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Returns whether this is the policy as a whole.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether an API key may be here by mistake: under `keys` or `credential`.
    pub fn holds_secrets(&self) -> bool {
        self.0.iter().any(|step| matches!(step.as_name(), Some("keys" | "credential")))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = Vec::with_capacity(self.0.len() + 1);
        steps.extend_from_slice(&self.0);
        steps.push(step);
        Self(steps)
    }
}

impl FromIterator<Step> for Place {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        Self(steps.into_iter().collect())
    }
}

impl From<&[Step]> for Place {
    fn from(steps: &[Step]) -> Self {
        Self(steps.to_vec())
    }
}

impl From<&Place> for Place {
    fn from(place: &Place) -> Self {
        place.clone()
    }
}

/// Fields of the policy's schema, separated by dots: `request.max_nesting`. Names that a policy gives are steps of
/// their own ([`Place::name`]), because they may contain dots.
impl From<&'static str> for Place {
    fn from(fields: &'static str) -> Self {
        fields.split('.').filter(|field| !field.is_empty()).map(|field| Step::Name(field.to_owned())).collect()
    }
}

/// `tenants.acme.keys[0]`, always one line, without a name that may be an API key.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut is_beside_keys = false;
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Name(name) => {
                    f.write_str(if i > 0 { "." } else { "" })?;
                    // Below `keys` and `credential`, what is no name of a field may be a key with its colon missing.
                    let is_field = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                    if url_has_secret(name) || is_beside_keys && !is_field {
                        f.write_str("(not shown)")?;
                        continue;
                    }
                    is_beside_keys |= name == "keys" || name == "credential";
                    for (j, part) in name.split('.').enumerate() {
                        f.write_str(if j > 0 { "." } else { "" })?;
                        // A tenant may be named by its key, by mistake.
                        write_line(f, if starts_like_a_secret(part) { "(not shown)" } else { part })?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_step_whatever_it_contains() {
        let place = Place::of(&["models", "gpt-4.1"]).name("unsupported_params").index(2);
        assert_eq!(place.to_string(), "models.gpt-4.1.unsupported_params[2]");
        assert_eq!(place.steps().len(), 4);
        assert_eq!(place.steps().get(1).and_then(Step::as_name), Some("gpt-4.1"));
        assert_eq!(Place::from("request.max_nesting"), Place::of(&["request", "max_nesting"]));
        assert!(Place::from("").is_root());
    }

    #[test]
    fn a_place_does_not_repeat_a_key_that_stands_for_a_name() {
        let place = Place::of(&["tenants", "sk-live-1", "keys"]).index(0);
        assert_eq!(place.to_string(), "tenants.(not shown).keys[0]");
        assert_eq!(Place::of(&["users", "a.sk-live-1"]).to_string(), "users.a.(not shown)");
        assert_eq!(Place::of(&["tenants", "https://u:hunter2@x.com"]).to_string(), "tenants.(not shown)");
        assert!(place.holds_secrets());
        assert!(!Place::of(&["tenants", "acme"]).holds_secrets());
    }

    #[test]
    fn a_place_is_one_line() {
        assert_eq!(Place::of(&["models", "a\nb"]).to_string(), "models.a\\nb");
    }
}
