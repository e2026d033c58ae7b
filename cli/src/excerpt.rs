//! The line of a text that a message is about, with a mark below the wrong part, unless it may hold a key.

use crate::source::{Source, Span};
use pointsman_core::config::problem::{looks_secret, url_has_secret};
use std::fmt::Write;

/// How many characters of a line are shown, and how many of them precede the mark at most.
const WIDTH: usize = 100;
const BEFORE: usize = 60;

/// How many bytes around the shown part are searched for the ends of its words. A longer word is not shown.
const WORD: usize = 4096;

/// Returns two lines, without a line break at the end: the line of `span` and a mark below. `None` if the line overlaps
/// a `hidden` part (in order, without overlaps), or has a word that looks like a key. Takes no longer for a long line.
pub fn excerpt(source: &Source, span: &Span, hidden: &[Span]) -> Option<String> {
    let (text, index) = (source.text(), source.index());
    let number = index.line(span.start);
    let line = index.line_span(number, text)?;
    // A comment may repeat what must not be shown, and does not help.
    if index.comment(line.start..span.start).is_some() {
        return None;
    }
    let line_end = index.comment(span.end.min(line.end)..line.end).unwrap_or(line.end);
    let line = line.start..line.start + text.get(line.start..line_end)?.trim_end().len();
    if line.is_empty() {
        return None;
    }

    let before = index.characters(line.start..span.start, text);
    let is_short = index.characters(line.clone(), text) <= WIDTH;
    let skipped = if is_short { 0 } else { before.saturating_sub(BEFORE) };
    let ahead = text.get(line.start..span.start)?.char_indices().rev();
    let start = if skipped == 0 { line.start } else { line.start + ahead.take(before - skipped).last()?.0 };
    let after = text.get(start.min(line.end)..line.end)?;
    let shown = start..after.char_indices().nth(WIDTH).map_or(line.end, |(at, _)| start + at);
    // The first that ends after the line's beginning. They are in order.
    let next = hidden.get(hidden.partition_point(|part| part.end <= shown.start));
    if next.is_some_and(|part| part.start <= shown.end) || has_secret(text, &line, &shown) {
        return None;
    }

    let marked = text.get(span.start..span.end.min(shown.end)).map_or(0, |part| part.chars().count());
    let cut = |is_cut: bool| if is_cut { "..." } else { "" };
    let (ahead, tail) = (cut(shown.start > line.start), cut(shown.end < line.end));
    let number = number.to_string();
    let mut excerpt = String::new();
    // A tab or a wide character would move the mark.
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let _ = write!(excerpt, "{number} | {ahead}");
    excerpt.extend(text.get(shown)?.chars().map(plain));
    let _ = writeln!(excerpt, "{tail}");
    let indent = ahead.len() + before - skipped;
    let _ = write!(excerpt, "{:1$} | {2:3$}{4}", "", number.len(), "", indent, "^".repeat(marked.max(1)));
    Some(excerpt)
}

/// Returns whether a word that is shown in whole or in part looks like a key.
fn has_secret(text: &str, line: &Span, shown: &Span) -> bool {
    let is_word = |c: char| !c.is_whitespace() && !"\"'`,;(){}[]<>".contains(c);
    let (Some(before), Some(after)) = (text.get(line.start..shown.start), text.get(shown.end..line.end)) else {
        return true;
    };
    let ahead = before.chars().rev().take_while(|c| is_word(*c)).take(WORD).map(char::len_utf8).sum::<usize>();
    let behind = after.chars().take_while(|c| is_word(*c)).take(WORD).map(char::len_utf8).sum::<usize>();
    let Some(words) = text.get(shown.start - ahead..shown.end + behind) else { return true };
    let is_part = |c: char| c.is_alphanumeric() || "-_.+/=~".contains(c);
    ahead >= WORD || behind >= WORD || url_has_secret(words) || words.split(|c: char| !is_part(c)).any(looks_secret)
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
            ("redis: {url: \"redis://:hunter2@localhost:6379/0\", tier: gld}\n", "gld"),
            ("environment: {DB: \"postgres://u:hun ter2@h/db\"}\n", "environment"),
            ("base_path: /v1?key=hunter2\n", "base_path"),
            ("base_path: user:hunter2@api.x.com\n", "base_path"),
            ("model: pplx-hunter2\n", "model"),
            ("model: 01234567-89ab-cdef-0123-456789abcdef\n", "model"),
        ] {
            assert_eq!(of(text, part), None, "{text}");
        }
        assert!(of("t:\n  keys: [hunter2]\n  tier: gld # hunter2\n", "gld").is_some());
    }
}
