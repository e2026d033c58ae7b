//! Where an API key may be by mistake: under which names, and where in a text that cannot be parsed.

use std::ops::Range;

/// Returns whether a value with this name may be a key: the policy's names for keys, misspelt too, and names that
/// people try.
pub fn may_be_under(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if name == "key_prefix" {
        return false;
    }
    ["key", "credential", "secret", "passw"].iter().any(|part| name.contains(part))
        || name.ends_with("token")
        || edits(&name, "keys") <= 2
        || edits(&name, "credential") <= 3
}

/// Returns the Levenshtein distance of two words, in bytes.
fn edits(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let (mut diagonal, mut left) = (i, i + 1);
        for (b, above) in other.bytes().zip(row.iter_mut().skip(1)) {
            let best = (diagonal + usize::from(a != b)).min(*above + 1).min(left + 1);
            diagonal = std::mem::replace(above, best);
            left = best;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Returns the parts of a YAML text that cannot be parsed, each from a line with a name like `keys` to the next line
/// with a name that is not indented further.
pub fn of_broken(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut open: Option<(usize, usize)> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        let is_name = bare.split_once(':').is_some_and(|(name, _)| {
            let name = name.trim_end().trim_matches(['"', '\'']);
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./@".contains(&b))
        });
        if let Some((start, outer)) = open
            && is_name
            && indent <= outer
        {
            spans.push(start..at);
            open = None;
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if open.is_none() && line.split(|c| !is_word(c)).any(may_be_under) {
            open = Some((at, indent));
        }
        at += line.len();
    }
    spans.extend(open.map(|(start, _)| start..text.len()));
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_keys_and_what_resembles_them() {
        for name in ["keys", "kyes", "key", "Keys", "api_key", "credential", "credentails", "client_secret", "token"] {
            assert!(may_be_under(name), "{name}");
        }
        for name in ["tier", "data", "users", "tenant", "tokens_per_day", "first_token_timeout", "key_prefix", "models"]
        {
            assert!(!may_be_under(name), "{name}");
        }
    }
}
