//! What is wrong with a policy, and where.

use std::fmt;

/// One mistake in a policy: the place as a path (`tenants.acme.tier`) and what would be right there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Path of the offending value; empty for the document as a whole.
    pub place: String,
    /// What is wrong with it and what would be right.
    pub message: String,
}

impl Problem {
    /// A problem at `place`.
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }
}

/// `place: message`, always one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            // A tenant may be named by its key, by mistake.
            for (i, step) in self.place.split('.').enumerate() {
                f.write_str(if i > 0 { "." } else { "" })?;
                write_line(f, if starts_like_a_secret(step) { "(not shown)" } else { step })?;
            }
            f.write_str(": ")?;
        }
        write_line(f, &self.message)
    }
}

fn write_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") })
}

/// A word of the policy in quotation marks, unless it may be a secret in the wrong place: then it is not repeated.
pub fn quoted(word: &str) -> String {
    if word.chars().count() > 64 || looks_secret(word) { "(not shown)".to_owned() } else { format!("\"{word}\"") }
}

/// Whether a word looks like an API key or a token: a well-known prefix, or many letters and digits without a break.
/// Model ids, cluster names and dates do not.
fn looks_secret(word: &str) -> bool {
    starts_like_a_secret(word)
        || word.split(|c: char| !c.is_ascii_alphanumeric()).any(|run| {
            run.len() >= 20 && run.bytes().any(|b| b.is_ascii_digit()) && run.bytes().any(|b| b.is_ascii_alphabetic())
        })
}

fn starts_like_a_secret(word: &str) -> bool {
    const PREFIXES: [&str; 12] =
        ["sk-", "sk_", "pk-", "pk_", "rk_", "gsk_", "hf_", "xai-", "ghp_", "aiza", "akia", "eyj"];
    let lower = word.trim().to_ascii_lowercase();
    let lower = lower.strip_prefix("bearer ").map_or(&*lower, str::trim_start);
    PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line() {
        assert_eq!(Problem::new("models.a", "no").to_string(), "models.a: no");
        assert_eq!(Problem::new("", "no").to_string(), "no");
        assert_eq!(Problem::new("models.a\nb", "x\u{1b}[0m").to_string(), "models.a\\nb: x\\u{1b}[0m");
    }

    #[test]
    fn a_place_does_not_repeat_a_key_that_stands_for_a_name() {
        let problem = Problem::new("tenants.sk-live-1.keys[0]", "no");
        assert_eq!(problem.to_string(), "tenants.(not shown).keys[0]: no");
        assert_eq!(Problem::new("models.gpt-4.1.price", "no").to_string(), "models.gpt-4.1.price: no");
    }

    #[test]
    fn names_are_repeated_and_secrets_are_not() {
        for name in
            ["gold", "x-jwt-tenant", "qwen2.5-7b-instruct", "2027-01-31T00:00:00Z", "Meta-Llama-3.1-70B", "über"]
        {
            assert_eq!(quoted(name), format!("\"{name}\""));
        }
        let long = "x".repeat(65);
        for secret in [
            "sk-demo",
            "SK-demo",
            "Bearer sk-demo",
            "bearer  0a1b2c3d4e5f6a7b8c9d",
            "AIzaSyA1",
            "eyJhbGciOi.x.y",
            &long,
        ] {
            assert_eq!(quoted(secret), "(not shown)", "{secret}");
        }
    }
}
