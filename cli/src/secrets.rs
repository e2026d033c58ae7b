//! Where an API key may be by mistake: under which names, and where in a text that cannot be parsed.

use std::ops::Range;

/// What a name says of its value.
pub enum Under {
    /// It may be a key.
    Secret,
    /// The rule for the names in it.
    Known(fn(&str) -> Under),
    /// It must be a mapping, with this rule for its names. Anything else may be a key.
    Entries(fn(&str) -> Under),
}

/// The rule for the sections of a policy.
pub fn under_root(name: &str) -> Under {
    match name {
        "tenants" | "providers" => Under::Entries(under_entries),
        _ => under_any(name),
    }
}

/// The rule for the names of tenants and providers.
fn under_entries(name: &str) -> Under {
    if may_be_under(name) { Under::Secret } else { Under::Entries(under_entry) }
}

/// The rule for the fields of a tenant or a provider: these have keys, so a field that is not known may be one of them,
/// misspelt or misplaced.
fn under_entry(name: &str) -> Under {
    const KNOWN: [&str; 9] =
        ["tier", "data", "cache_revision", "limits", "dialect", "local", "region", "base_path", "models"];
    let resembles = KNOWN.iter().any(|known| edits(name, known) <= 2) || name.contains("_per_");
    if resembles { under_any(name) } else { Under::Secret }
}

fn under_any(name: &str) -> Under {
    if may_be_under(name) { Under::Secret } else { Under::Known(under_any) }
}

/// Returns whether a value with this name may be a key: the policy's names for keys, misspelt too, and names that
/// people try.
pub fn may_be_under(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    if name == "key_prefix" {
        return false;
    }
    ["key", "credential", "secret", "passw"].iter().any(|part| name.contains(part))
        || ["hash", "env", "file", "sds", "auth", "authorization", "bearer"].contains(&name.as_str())
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
/// with a name that is not indented further. A bracket that is open there hides everything to its end.
pub fn of_broken(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut open: Option<Open> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let bare = line.trim_start();
        let indent = line.len() - bare.len();
        if let Some(Open { start, .. }) = open.take_if(|open| open.ends_before(bare, indent)) {
            spans.push(start..at);
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if open.is_none() && line.split(|c| !is_word(c)).any(may_be_under) {
            open = Some(Open { start: at, indent, brackets: 0 });
        }
        if let Some(open) = &mut open {
            let count = |these: [char; 2]| line.matches(these).count();
            open.brackets = (open.brackets + count(['[', '{'])).saturating_sub(count([']', '}']));
        }
        at += line.len();
    }
    spans.extend(open.map(|open| open.start..text.len()));
    spans
}

/// A part whose end is not known yet.
struct Open {
    start: usize,
    indent: usize,
    /// How many brackets are open.
    brackets: usize,
}

impl Open {
    fn ends_before(&self, line: &str, indent: usize) -> bool {
        let is_name = line.split_once(':').is_some_and(|(name, _)| {
            let name = name.trim_end().trim_matches(['"', '\'']);
            name.starts_with(|c: char| c.is_ascii_alphanumeric())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./@".contains(&b))
        });
        is_name && indent <= self.indent && self.brackets == 0
    }
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
