//! Lines, columns and comment marks of a text, each found without a walk through a line, which may be megabytes long.

use std::ops::Range;

/// How many bytes lie between two counts of characters.
const STRIDE: usize = 1024;

/// What is known of a text.
#[derive(Debug, Default)]
pub struct TextIndex {
    /// Where each line begins.
    lines: Vec<usize>,
    /// The number of characters before each multiple of [`STRIDE`].
    characters: Vec<usize>,
    /// Where each `#` is.
    comments: Vec<usize>,
}

impl TextIndex {
    /// Reads a text once.
    pub fn new(text: &str) -> Self {
        let mut count = 0;
        let characters = text.as_bytes().chunks(STRIDE).map(|chunk| {
            let before = count;
            count += starts(chunk);
            before
        });
        Self {
            characters: characters.collect(),
            lines: std::iter::once(0).chain(text.match_indices('\n').map(|(newline, _)| newline + 1)).collect(),
            comments: text.match_indices('#').map(|(at, _)| at).collect(),
        }
    }

    /// Returns the line of a byte, from 1.
    pub fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at).max(1)
    }

    /// Returns the bytes of a line, which counts from 1, without the line break.
    pub fn line_span(&self, line: usize, text: &str) -> Option<Range<usize>> {
        let start = *self.lines.get(line.checked_sub(1)?)?;
        Some(start..self.lines.get(line).map_or(text.len(), |next| next - 1))
    }

    /// Returns the number of characters in a part of the text.
    pub fn characters(&self, part: Range<usize>, text: &str) -> usize {
        let before = |at: usize| {
            let nearest = at / STRIDE;
            let known = self.characters.get(nearest).copied();
            let (count, from) = known.map_or((0, 0), |count| (count, nearest * STRIDE));
            match (known, self.characters.last()) {
                // The end of the text, after the last whole stride.
                (None, Some(last)) => {
                    let from = (self.characters.len() - 1) * STRIDE;
                    last + starts(text.as_bytes().get(from..at).unwrap_or_default())
                }
                _ => count + starts(text.as_bytes().get(from..at).unwrap_or_default()),
            }
        };
        before(part.end).saturating_sub(before(part.start))
    }

    /// Returns the first `#` in a part of the text.
    pub fn comment(&self, part: Range<usize>) -> Option<usize> {
        let first = self.comments.get(self.comments.partition_point(|at| *at < part.start))?;
        Some(*first).filter(|at| *at < part.end)
    }
}

/// Counts the bytes that begin a character.
fn starts(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 != 0x80).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_counted_across_strides() {
        for length in [0, 1, STRIDE / 2, STRIDE, STRIDE * 3 + 1] {
            let text = "\u{e9}#\n".repeat(length);
            let index = TextIndex::new(&text);
            for (at, _) in text.char_indices().step_by(97).chain([(text.len(), ' ')]) {
                assert_eq!(index.characters(0..at, &text), text[..at].chars().count(), "{length} {at}");
                assert_eq!(index.line(at), text[..at].matches('\n').count() + 1, "{length} {at}");
                assert_eq!(index.comment(at..text.len()), text[at..].find('#').map(|found| at + found));
            }
        }
    }

    #[test]
    fn a_line_ends_before_its_break() {
        let text = "ab\n\nc";
        let index = TextIndex::new(text);
        let lines: Vec<_> = (1..=4).map(|line| index.line_span(line, text)).collect();
        assert_eq!(lines, [Some(0..2), Some(3..3), Some(4..5), None]);
    }
}
