//! Words of a policy as messages show them: on one line, and never one that may be an API key.

use std::fmt;

/// Writes `text` without line breaks and other control characters.
pub(crate) fn write_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { write!(f, "{c}") })
}

/// A word of the policy in quotation marks, unless it may be a secret in the wrong place: then it is not repeated.
pub fn quoted(word: &str) -> String {
    if word.chars().count() > 64 || looks_secret(word) { "(not shown)".to_owned() } else { format!("\"{word}\"") }
}

/// Whether a word looks like an API key or a token: a well-known prefix, or many letters and digits without a break.
/// Model ids, cluster names and dates do not.
pub fn looks_secret(word: &str) -> bool {
    starts_like_a_secret(word)
        || word.split(|c: char| !c.is_ascii_alphanumeric()).any(|run| {
            run.len() >= 20 && run.bytes().any(|b| b.is_ascii_digit()) && run.bytes().any(|b| b.is_ascii_alphabetic())
        })
}

/// Whether a word starts as well-known API keys and tokens do.
pub(crate) fn starts_like_a_secret(word: &str) -> bool {
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
