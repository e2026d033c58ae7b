//! The line of a text that a message is about, with a mark below the wrong part, unless it may hold a key.

use crate::source::{Source, Span};
use pointsman_core::config::problem::looks_secret;
use std::fmt::Write;

/// How many characters of a line are shown, and how many of them precede the mark at most.
const WIDTH: usize = 100;
const BEFORE: usize = 60;

/// Returns two lines, without a line break at the end: the line of `span` and a mark below. `None` if the line overlaps
/// a `hidden` part (in order, without overlaps), or has a word that looks like a key.
pub fn excerpt(source: &Source, span: &Span, hidden: &[Span]) -> Option<String> {
    let text = source.text();
    let line_start = text.get(..span.start)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text.get(span.start..)?.find('\n').map_or(text.len(), |newline| span.start + newline);
    // A comment may repeat what must not be shown, and does not help.
    let after = text.get(span.end.min(line_end)..line_end)?;
    let line_end = after.find('#').map_or(line_end, |comment| span.end.min(line_end) + comment);
    let line = text.get(line_start..line_end)?.trim_end();
    let head = text.get(line_start..span.start)?;
    if line.is_empty() || head.contains('#') {
        return None;
    }
    let before = head.chars().count();

    let skipped = if line.chars().count() <= WIDTH { 0 } else { before.saturating_sub(BEFORE) };
    let byte = |characters: usize| line.char_indices().nth(characters).map_or(line.len(), |(at, _)| at);
    let shown = byte(skipped)..byte(skipped + WIDTH);
    let at = line_start + shown.start..line_start + shown.end;
    // The first that ends after the line's beginning. They are in order.
    let next = hidden.get(hidden.partition_point(|part| part.end <= at.start));
    if next.is_some_and(|part| part.start <= at.end) || has_secret(line, &shown) {
        return None;
    }

    let marked = text.get(span.start..span.end.min(line_start + shown.end)).map_or(0, |part| part.chars().count());
    let cut = |is_cut: bool| if is_cut { "..." } else { "" };
    let (ahead, tail) = (cut(shown.start > 0), cut(shown.end < line.len()));
    let number = source.line_and_column(span.start).0.to_string();
    let mut excerpt = String::new();
    // A tab or a wide character would move the mark.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let _ = write!(excerpt, "{number} | {ahead}");
    excerpt.extend(line.get(shown)?.chars().map(plain));
    let _ = writeln!(excerpt, "{tail}");
    let indent = ahead.len() + before - skipped;
    let _ = write!(excerpt, "{:1$} | {2:3$}{4}", "", number.len(), "", indent, "^".repeat(marked.max(1)));
    Some(excerpt)
}

/// Returns whether a word that is shown in whole or in part looks like a key.
fn has_secret(line: &str, shown: &Span) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || "-_.+/=~".contains(c);
    let mut start = 0;
    line.split_inclusive(|c: char| !is_word(c)).any(|word| {
        let at = start..start + word.len();
        start = at.end;
        at.start < shown.end && shown.start < at.end && looks_secret(word.trim_end_matches(|c: char| !is_word(c)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, part: &str) -> Option<String> {
        let source = Source::of_yaml(text.to_owned());
        let start = text.find(part).unwrap();
        excerpt(&source, &(start..start + part.len()), &source.secrets())
    }

    #[test]
    fn the_wrong_part_is_marked() {
        assert_eq!(of("a:\n  b: gld # x\n", "gld").as_deref(), Some("2 |   b: gld\n  |      ^^^"));
        assert_eq!(of("é: gld\n", "gld").as_deref(), Some("1 | é: gld\n  |    ^^^"));
        assert_eq!(of("- \"a\tb\"\n", "b\"").as_deref(), Some("1 | - \"a b\"\n  |      ^^"));
        assert_eq!(of("a: 'one\n  two'\n", "'one\n  two'").as_deref(), Some("1 | a: 'one\n  |    ^^^^"));
    }

    #[test]
    fn a_long_line_is_shown_around_the_mark() {
        let text = format!("{{a: [{}], b: gld, c: [{}]}}", "x, ".repeat(100), "y, ".repeat(100));
        let shown = of(&text, "gld").unwrap();
        let (line, mark) = shown.split_once('\n').unwrap();
        assert_eq!(line.chars().count(), "1 | ".len() + 3 + WIDTH + 3);
        assert_eq!(line.find("gld").unwrap(), mark.find("^^^").unwrap());
        assert!(line.starts_with("1 | ...") && line.ends_with("..."), "{line}");
    }

    #[test]
    fn a_line_that_may_hold_a_key_is_not_shown() {
        for (text, part) in [
            ("t: {tier: gld, keys: [hunter2]}\n", "gld"),
            ("t: {keys: [hunter2], tier: gld}\n", "gld"),
            ("keys:\n- hunter2\n", "hunter2"),
            ("credential: {header: x, env: hunter2}\n", "x"),
            ("api_key: hunter2\n", "api_key"),
            ("t: {name: sk-live-1, tier: gld}\n", "gld"),
            ("t: {name: Bearer 0123456789abcdef0123, tier: gld}\n", "gld"),
            ("sk-live-1: {tier: gld}\n", "gld"),
            ("a: gld\nkeys: [x, gle", "gle"),
        ] {
            assert_eq!(of(text, part), None, "{text}");
        }
        assert!(of("t:\n  keys: [hunter2]\n  tier: gld # hunter2\n", "gld").is_some());
    }
}
