//! A text and the places where it is cut into chunks.

use std::ops::Range;

/// A text cut into chunks between characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunked {
    text: String,
    ends: Vec<usize>,
}

impl Chunked {
    /// Cuts the text into words, each with the space before it, which is roughly what a tokenizer does.
    pub fn words(text: String) -> Self {
        let mut ends = Vec::with_capacity(text.len() / 5 + 1);
        let mut last = b' ';
        for (at, &byte) in text.as_bytes().iter().enumerate() {
            if byte == b' ' && last != b' ' {
                ends.push(at);
            }
            last = byte;
        }
        if !text.is_empty() {
            ends.push(text.len());
        }
        Self { text, ends }
    }

    /// Cuts the text into `count` chunks of nearly the same length. Some are empty if the text has too few characters.
    pub fn count(text: String, count: usize) -> Self {
        let length = text.len();
        let ends =
            (1..=count).map(|n| boundary(&text, (length as u128 * n as u128 / count as u128) as usize)).collect();
        Self { text, ends }
    }

    /// Cuts the text into chunks of `bytes` bytes, or as close to that as characters allow.
    pub fn bytes(text: String, bytes: usize) -> Self {
        let mut ends = Vec::new();
        let mut start = 0;
        while start < text.len() {
            let mut end = boundary(&text, start + bytes.max(1));
            if end == start {
                end = (start + 1..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
            }
            ends.push(end);
            start = end;
        }
        Self { text, ends }
    }

    /// Makes up a text of `count` chunks, each of `bytes` bytes if given.
    pub fn made(count: usize, bytes: Option<usize>) -> Self {
        const WORDS: [&str; 8] = ["sim", " steel", " rail", " points", " signal", " freight", " track", " yard"];
        let mut text = String::new();
        let mut ends = Vec::with_capacity(count);
        for word in WORDS.iter().cycle().take(count) {
            match bytes {
                None => text.push_str(word),
                Some(bytes) => text.extend(word.chars().cycle().take(bytes)),
            }
            ends.push(text.len());
        }
        Self { text, ends }
    }

    /// Returns the number of chunks.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns the whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns one chunk; empty past the end.
    pub fn chunk(&self, index: usize) -> &str {
        let range: Option<Range<usize>> = self.ends.get(index).map(|&end| {
            let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
            start..end
        });
        range.and_then(|range| self.text.get(range)).unwrap_or_default()
    }

    /// Drops all chunks after the first `count`. Returns whether there were any.
    pub fn truncate(&mut self, count: usize) -> bool {
        if count >= self.ends.len() {
            return false;
        }
        self.ends.truncate(count);
        self.text.truncate(self.ends.last().copied().unwrap_or(0));
        true
    }
}

/// Returns the last character boundary at or before `at`.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(of: &Chunked) -> Vec<&str> {
        (0..of.len()).map(|index| of.chunk(index)).collect()
    }

    #[test]
    fn chunks_make_up_the_text() {
        let text = "Grüße  an die Weichen 🚂🚃 !";
        for cut in [
            Chunked::words(text.to_owned()),
            Chunked::count(text.to_owned(), 7),
            Chunked::count(text.to_owned(), 100),
            Chunked::bytes(text.to_owned(), 1),
            Chunked::bytes(text.to_owned(), 5),
        ] {
            assert_eq!(chunks(&cut).concat(), text);
        }
    }

    #[test]
    fn counts_are_kept() {
        assert_eq!(chunks(&Chunked::words("a bc d".to_owned())), ["a", " bc", " d"]);
        assert_eq!(Chunked::count("ab".to_owned(), 5).len(), 5);
        assert_eq!(Chunked::made(20, None).len(), 20);
        assert_eq!(Chunked::made(3, Some(16)).chunk(2).len(), 16);
        assert_eq!(Chunked::words(String::new()).len(), 0);
    }

    #[test]
    fn a_shortened_text_ends_at_a_chunk() {
        let mut cut = Chunked::words("a bc d".to_owned());
        assert!(cut.truncate(2));
        assert_eq!(cut.text(), "a bc");
        assert!(!cut.truncate(2));
    }
}
