//! Words of a policy as messages show them: on one line, and never one that may be an API key.

use std::fmt;

/// Writes `text` without line breaks and other control characters.
pub(crate) fn write_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| if is_printable(c) { write!(f, "{c}") } else { write!(f, "{}", c.escape_default()) })
}

/// Returns whether a character is printable on the line that it is in. U+2028 and U+2029 end a line, though Unicode
/// does not count them as control characters, and U+FEFF may be read as the mark of another encoding.
pub(crate) fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// A word of the policy in quotation marks, unless it may be a secret in the wrong place: then it is not repeated.
pub fn quoted(word: &str) -> String {
    if word.chars().count() > 64 || looks_secret(word) { "(not shown)".to_owned() } else { format!("\"{word}\"") }
}

/// Whether a word looks like an API key or a token: a well-known prefix, a UUID, many letters and digits without a
/// break, or a URL that may carry one. Model ids, cluster names and dates do not.
pub fn looks_secret(word: &str) -> bool {
    starts_like_a_secret(word)
        || has_uuid(word)
        || url_has_secret(word)
        || word.split(|c: char| !c.is_ascii_alphanumeric()).any(|run| {
            run.len() >= 20 && run.bytes().any(|b| b.is_ascii_digit()) && run.bytes().any(|b| b.is_ascii_alphabetic())
        })
}

/// Whether a word starts as well-known API keys and tokens do.
pub(crate) fn starts_like_a_secret(word: &str) -> bool {
    const PREFIXES: [&str; 15] = [
        "sk-", "sk_", "pk-", "pk_", "rk_", "gsk_", "hf_", "xai-", "pplx-", "nvapi-", "r8_", "ghp_", "aiza", "akia",
        "eyj",
    ];
    let lower = word.trim().to_ascii_lowercase();
    let lower = lower.strip_prefix("bearer ").map_or(&*lower, str::trim_start);
    PREFIXES.iter().any(|prefix| lower.starts_with(prefix))
}

/// Whether a text has a UUID, which some providers use as a key.
fn has_uuid(text: &str) -> bool {
    const DIGITS: [usize; 5] = [8, 4, 4, 4, 12];
    text.split(|c: char| !(c.is_ascii_hexdigit() || c == '-')).any(|word| word.split('-').map(str::len).eq(DIGITS))
}

/// Whether a text has a URL, or a part of one, with what may be a secret: `user:password@` or a query.
pub fn url_has_secret(text: &str) -> bool {
    // A password may hold any character, so what precedes the last `@` after `://` is not taken apart.
    let is_authority = text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    let is_text = |c: char| !(c.is_whitespace() || "\"'`,;(){}[]<>".contains(c));
    is_authority
        || text.split(|c| !is_text(c)).any(|word| {
            word.rsplit_once('@').is_some_and(|(user, host)| user.contains(':') && !host.is_empty())
                || word.split_once('?').is_some_and(|(_, query)| !query.is_empty())
        })
}

/// The parts of a URL that may be secrets: the user's name and password as one, the password, the query, and the values
/// in it.
pub(crate) fn url_secrets(text: &str) -> impl Iterator<Item = &str> {
    let user = text.rsplit_once('@').map(|(before, _)| before.split_once("://").map_or(before, |(_, user)| user));
    let password = user.and_then(|user| user.split_once(':')).map(|(_, password)| password);
    let query = text.split_once('?').map(|(_, query)| query);
    let values = query.into_iter().flat_map(|query| query.split('&')).filter_map(|pair| pair.split_once('='));
    let user = user.filter(|_| password.is_some());
    let all = [user, password, query].into_iter().flatten().chain(values.map(|(_, value)| value));
    all.filter(|part| !part.is_empty())
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

    #[test]
    fn a_url_with_a_password_or_a_query_is_a_secret() {
        for secret in [
            "https://user:hunter2@api.x.com/v1",
            "redis://:p@ss/w?rd@localhost:6379/0",
            "https://hunter2@api.x.com",
            "user:hunter2@api.x.com",
            "DB=postgres://u:hunter2@h/db",
            "/v1?api-key=0a1b",
            "https://x/v1?hunter2",
            "pplx-0a1b",
            "nvapi-0a1b",
            "r8_0a1b",
            "01234567-89ab-cdef-0123-456789abcdef",
        ] {
            assert!(looks_secret(secret), "{secret}");
        }
        for plain in
            ["https://api.x.com/v1", "/openai/v1", "alice@example.com", "gpt-4.1@2025", "why?", "2027-01-31-ab"]
        {
            assert!(!looks_secret(plain), "{plain}");
        }
        let parts: Vec<_> = url_secrets("redis://u:p:w@h/0?a=b&c=d").collect();
        assert_eq!(parts, ["u:p:w", "p:w", "a=b&c=d", "b", "d"]);
    }
}
