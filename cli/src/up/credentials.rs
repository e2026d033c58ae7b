//! Checks that the keys that a policy names exist, and that they look like keys.

use pointsman_core::policy::Policy;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// Returns one line per key that Envoy will not find. Envoy answers requests to a provider without its key with 401.
pub fn missing(policy: &Policy) -> Vec<String> {
    let mut lines = Vec::new();
    for provider in policy.providers() {
        let Some(credential) = &provider.credential else { continue };
        if let Some(variable) = &credential.env
            && std::env::var_os(variable).is_none_or(|value| without_line_break(value.as_bytes()).is_empty())
        {
            lines.push(format!("provider \"{}\": the environment variable {variable} is not set", provider.name));
        }
        for path in [&credential.file, &credential.sds].into_iter().flatten() {
            if let Err(error) = std::fs::File::open(path) {
                lines.push(format!("provider \"{}\": {path}: {error}", provider.name));
            }
        }
    }
    lines
}

/// Returns the environment variables that end in a line break, without it: Envoy before 1.40 would send it with the
/// key, and answer every request with 503. A Secret that was made of a file from an editor has one.
pub fn trimmed_environment() -> Vec<(OsString, OsString)> {
    let trimmed = |(name, value): (OsString, OsString)| {
        let bytes = value.as_bytes();
        let key = without_line_break(bytes);
        (key.len() < bytes.len()).then(|| (name, OsString::from_vec(key.to_vec())))
    };
    std::env::vars_os().filter_map(trimmed).collect()
}

fn without_line_break(value: &[u8]) -> &[u8] {
    let end = value.iter().rposition(|byte| !b"\r\n".contains(byte)).map_or(0, |last| last + 1);
    value.get(..end).unwrap_or_default()
}

/// Returns one line per key that Envoy would send in a form that providers do not accept. No line repeats a key. Keys
/// in SDS files are not looked at.
pub fn suspicious(policy: &Policy) -> Vec<String> {
    let mut lines = Vec::new();
    for provider in policy.providers() {
        let Some(credential) = &provider.credential else { continue };
        let (source, value) = match (&credential.env, &credential.file) {
            (Some(variable), _) => (variable, std::env::var(variable).ok()),
            (None, Some(path)) => (path, read(path)),
            (None, None) => continue,
        };
        if let Some(reason) = value.as_deref().and_then(|value| fault(&credential.prefix, value)) {
            lines.push(format!("provider \"{}\": the key in {source} {reason}", provider.name));
        }
    }
    lines
}

/// Reads a file with a key. `None` if it is not a file, or not text.
fn read(path: &str) -> Option<String> {
    const LONGEST: u64 = 64 << 10;
    if !std::fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Returns what is suspicious about a key that follows `prefix` in its header.
fn fault(prefix: &str, value: &str) -> Option<&'static str> {
    // The line break that an editor or `echo` adds is another matter: `UntrimmedKeys` refuses it for older Envoys.
    let key = value.trim_end_matches(['\r', '\n']);
    let scheme = prefix.trim();
    let repeats = |scheme: &str| {
        let start = key.trim_start().get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    if !scheme.is_empty() && repeats(scheme) {
        return Some("already starts with the prefix");
    }
    if key.starts_with(['"', '\'']) || key.ends_with(['"', '\'']) {
        return Some("has quotation marks around it");
    }
    // Without a prefix, the value may be a scheme and a key.
    let parts = if scheme.is_empty() { 2 } else { 1 };
    if key.trim() != key || key.split_whitespace().count() > parts || key.chars().any(char::is_control) {
        return Some("contains white space");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{fault, without_line_break};

    #[test]
    fn a_key_as_providers_issue_it_is_not_suspicious() {
        for (prefix, key) in [("Bearer ", "sk-1"), ("Bearer ", "sk-1\n"), ("", "Bearer sk-1"), ("", "sk-1\r\n")] {
            assert_eq!(fault(prefix, key), None, "{prefix}{key}");
        }
    }

    #[test]
    fn only_the_line_break_at_the_end_of_a_variable_goes() {
        for (value, key) in [("sk-1\n", "sk-1"), ("sk-1\r\n\n", "sk-1"), ("\n", ""), ("a\nb ", "a\nb "), ("", "")] {
            assert_eq!(without_line_break(value.as_bytes()), key.as_bytes(), "{value:?}");
        }
    }

    #[test]
    fn a_key_in_the_wrong_form_is_suspicious() {
        for (prefix, key, reason) in [
            ("Bearer ", "Bearer sk-1", "already starts with the prefix"),
            ("Bearer", "bearer sk-1", "already starts with the prefix"),
            ("Bearer ", "\"sk-1\"", "has quotation marks around it"),
            ("", "'sk-1'\n", "has quotation marks around it"),
            ("Bearer ", " sk-1", "contains white space"),
            ("Bearer ", "sk-1\nsk-2\n", "contains white space"),
            ("Bearer ", "OPENAI_API_KEY=x sk-1", "contains white space"),
            ("", "a b c", "contains white space"),
        ] {
            assert_eq!(fault(prefix, key), Some(reason), "{prefix}{key}");
        }
    }
}
