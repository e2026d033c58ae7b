//! The service tier of a request: what a provider sells the same model's tokens at, besides its base price.
//!
//! Source: OpenAI's API reference, `service_tier` of "Create chat completion". Other providers have tiers of their own.

use std::fmt;

/// The name of a service tier other than the base one, in lower case. Inline, because every answer has one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceTier {
    bytes: [u8; MAX_LEN],
    len: u8,
}

/// Longest name, in bytes.
pub const MAX_LEN: usize = 23;

/// Names of the base tier, and of leaving the choice to the provider: OpenAI's, Anthropic's and Groq's.
pub const BASE: [&str; 5] = ["auto", "default", "standard", "standard_only", "on_demand"];

/// What an answer says about the tier that served it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedTier {
    /// The base tier.
    Base,
    /// This one.
    Other(ServiceTier),
}

impl ServiceTier {
    /// Stands for any name that a policy cannot contain.
    pub const STRANGE: Self = Self { bytes: *b"unrecognized\0\0\0\0\0\0\0\0\0\0\0", len: 12 };

    /// Returns the tier of this name, whatever its case; [`Self::STRANGE`] if it has other characters than letters,
    /// digits, `_` and `-`, or too many.
    pub fn named(name: &str) -> Self {
        Self::valid(name).unwrap_or(Self::STRANGE)
    }

    /// Returns the tier of this name, if it is a valid one.
    pub fn valid(name: &str) -> Option<Self> {
        let is_valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if name.is_empty() || !name.bytes().all(is_valid) {
            return None;
        }
        let mut bytes = [0; MAX_LEN];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        bytes.make_ascii_lowercase();
        Some(Self { bytes, len: name.len() as u8 })
    }

    /// Returns the tier that a request asks for; `None` for the base one and for the provider's choice.
    pub fn requested(name: &str) -> Option<Self> {
        (!is_base(name)).then(|| Self::named(name))
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        self.bytes.get(..usize::from(self.len)).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default()
    }
}

impl ServedTier {
    /// Returns the tier that served, in the words of the provider; `None` if they do not say: `auto` is the request's.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            name if name.is_empty() || name.eq_ignore_ascii_case("auto") => None,
            name if is_base(name) => Some(Self::Base),
            name => Some(Self::Other(ServiceTier::named(name))),
        }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Base => "default",
            Self::Other(tier) => tier.name(),
        }
    }
}

/// Whether this is a name of the base tier.
pub fn is_base(name: &str) -> bool {
    BASE.iter().any(|base| base.eq_ignore_ascii_case(name))
}

impl fmt::Debug for ServiceTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_its_name_in_lower_case() {
        assert_eq!(ServiceTier::named("Priority"), ServiceTier::named("priority"));
        assert_eq!(ServiceTier::named("flex").name(), "flex");
        assert_eq!(ServiceTier::named(&"a".repeat(MAX_LEN)).name(), "a".repeat(MAX_LEN));
        for strange in ["", " priority", "prio\u{17f}", "a\"b", &"a".repeat(MAX_LEN + 1)] {
            assert_eq!(ServiceTier::named(strange), ServiceTier::STRANGE, "{strange}");
        }
        assert_eq!(ServiceTier::STRANGE.name(), "unrecognized");
    }

    #[test]
    fn the_base_tier_has_many_names_and_auto_says_nothing_of_what_served() {
        for base in BASE {
            assert_eq!(ServiceTier::requested(base), None);
            let served = (base != "auto").then_some(ServedTier::Base);
            assert_eq!(ServedTier::named(&base.to_uppercase()), served);
        }
        assert_eq!(ServiceTier::requested("flex"), Some(ServiceTier::named("flex")));
        assert_eq!(ServiceTier::requested(""), Some(ServiceTier::STRANGE));
        assert_eq!(ServedTier::named("scale"), Some(ServedTier::Other(ServiceTier::named("scale"))));
        assert_eq!(ServedTier::named(""), None);
    }
}
