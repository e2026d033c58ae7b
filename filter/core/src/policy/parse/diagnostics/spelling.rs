//! Which name was meant: the nearest of the known ones.

/// Returns the names that `word` probably stands for: one, or two that are equally near. Empty if none is near.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let given = plain(word);
    let mut best = (usize::MAX, Vec::new());
    for name in known {
        let Some(distance) = distance(&given, &plain(name)) else { continue };
        if distance < best.0 {
            best = (distance, vec![name]);
        } else if distance == best.0 {
            best.1.push(name);
        }
    }
    // Many equally near names are no proposal.
    if best.1.len() > 2 { Vec::new() } else { best.1 }
}

/// Returns `did you mean "a"?` for the nearest of the known names.
pub(super) fn proposal<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let near = nearest(word, known);
    let all: Vec<_> = near.iter().map(|name| format!("\"{name}\"")).collect();
    (!all.is_empty()).then(|| format!("did you mean {}?", all.join(" or ")))
}

/// Lower case with underscores: `maxTokens`, `max-tokens` and `Max_Tokens` are the same name.
fn plain(word: &str) -> String {
    let mut plain = String::with_capacity(word.len());
    let mut follows_lower = false;
    for c in word.trim().chars() {
        if c.is_uppercase() && follows_lower {
            plain.push('_');
        }
        follows_lower = c.is_lowercase();
        plain.extend(if matches!(c, '-' | ' ') { '_' } else { c }.to_lowercase());
    }
    plain
}

/// Returns how far two plain names are apart, if they are near.
fn distance(one: &str, other: &str) -> Option<usize> {
    let most = match one.chars().count().min(other.chars().count()) {
        0 | 65.. => return None,
        1..=2 => 0,
        3..=5 => 1,
        6..=8 => 2,
        _ => 3,
    };
    let same_words = || {
        let sorted = |name: &str| {
            let mut words: Vec<_> = name.split('_').map(|word| word.trim_end_matches('s').to_owned()).collect();
            words.sort_unstable();
            words
        };
        (sorted(one) == sorted(other)).then_some(1)
    };
    Some(edits(one, other)).filter(|edits| *edits <= most).or_else(same_words)
}

/// Returns the number of letters to insert, remove, replace or swap with the next one (optimal string alignment).
fn edits(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    let mut last = None;
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        let mut last_b = None;
        for (j, b) in other.iter().enumerate() {
            let at = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&above, j) + usize::from(a != b)).min(at(&above, j + 1) + 1).min(at(&row, j) + 1);
            if last == Some(b) && last_b == Some(a) && j > 0 {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
            last_b = Some(b);
        }
        last = Some(a);
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (one, other, expected) in [
            ("", "", 0),
            ("tier", "tier", 0),
            ("tire", "tier", 1),
            ("task", "tasks", 1),
            ("ab", "", 2),
            ("ca", "abc", 3),
        ] {
            assert_eq!((edits(one, other), edits(other, one)), (expected, expected), "{one} {other}");
        }
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn the_name_that_was_meant_is_found_and_no_other() {
        let known =
            ["context", "max_output_tokens", "price", "provider", "tier", "tokens_per_day", "tokens_per_minute"];
        for (word, meant) in [
            ("contxt", "context"),
            ("Context", "context"),
            ("maxOutputTokens", "max_output_tokens"),
            ("max-output-token", "max_output_tokens"),
            ("output_tokens_max", "max_output_tokens"),
            ("prise", "price"),
            ("prices", "price"),
            ("tire", "tier"),
            ("token_per_minute", "tokens_per_minute"),
        ] {
            assert_eq!(nearest(word, known), [meant], "{word}");
        }
        for word in ["", "x", "plan", "model", "timeout"] {
            assert_eq!(nearest(word, known), [""; 0], "{word}");
        }
        assert_eq!(nearest("m1", ["m2", "m3"]), [""; 0]);
        assert_eq!(nearest("gold3", ["gold1", "gold2"]), ["gold1", "gold2"]);
        assert_eq!(nearest("gold3", ["gold1", "gold2", "gold4"]), [""; 0]);
    }
}
