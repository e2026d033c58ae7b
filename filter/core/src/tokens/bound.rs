//! An upper bound of a prompt's tokens, for every text and for all tokenizers of two families.
//!
//! The families are byte-level BPE: `cl100k_base` with Llama 3 and Qwen, which begin with its merges in the same order,
//! and `o200k_base`. A tokenizer cuts text into pieces with a pattern, and then merges the bytes of each piece, always
//! by the merge that comes first in its vocabulary. This module makes the same pieces and only the first merges. Each
//! merge that it leaves out would lower the count by one, so what it counts is never below what the tokenizer counts.
//!
//! Where it cannot know a piece, it counts one token per byte. That is so for pieces of more than 512 bytes, for
//! characters whose class depends on the version of Unicode, and for characters that Unicode normalization (NFC)
//! changes, because Qwen applies it first.

mod class;
mod json;
mod split;
mod vocabulary;

pub use json::{Weights, decoded, scan};

use class::Classes;
use split::{Chunk, Family};
use std::sync::OnceLock;
use vocabulary::{Vocabulary, Words};

/// Classes, vocabularies: built from the generated tables when they are first needed.
struct Tables {
    classes: Classes<'static>,
    words: Words,
    /// By family.
    vocabularies: [Vocabulary; 2],
}

/// How much of a prompt is cut into pieces, so that the longest takes some 50 ms: in bytes of words that are tokens.
/// What follows counts one token per byte.
const WORK: usize = 1 << 22;

/// How many times as long a byte of other pieces takes.
const MERGED: usize = 8;

/// How many tokens both vocabularies have, counted once.
const WORDS: usize = 48_000;

impl Tables {
    fn get() -> &'static Self {
        static TABLES: OnceLock<Tables> = OnceLock::new();
        TABLES.get_or_init(|| {
            let classes = Classes::new(include_bytes!("bound/classes.bin"));
            let mut words = Words::new(WORDS);
            let cl100k = Vocabulary::new(include_bytes!("bound/cl100k.bin"), 0, &mut words);
            let o200k = Vocabulary::new(include_bytes!("bound/o200k.bin"), 1, &mut words);
            Self { classes, words, vocabularies: [cl100k, o200k] }
        })
    }

    /// Counts the tokens of a piece that both families make.
    fn both(&self, piece: &[u8]) -> [u64; 2] {
        let families = if piece.len() > 1 { self.words.families(piece) } else { 0 };
        let [cl100k, o200k] = &self.vocabularies;
        [
            if families & 1 != 0 { 1 } else { cl100k.count(piece) },
            if families & 2 != 0 { 1 } else { o200k.count(piece) },
        ]
    }

    /// Counts the tokens of a piece that one family makes.
    fn one(&self, family: Family, piece: &[u8]) -> u64 {
        let [cl100k, o200k] = &self.vocabularies;
        let (vocabulary, bit) = match family {
            Family::Cl100k => (cl100k, 1),
            Family::O200k => (o200k, 2),
        };
        if piece.len() > 1 && self.words.families(piece) & bit != 0 { 1 } else { vocabulary.count(piece) }
    }
}

/// Counts texts for both families.
pub struct Bound {
    tables: &'static Tables,
    chunk: Chunk,
    /// What is left of the work.
    left: usize,
    tokens: [u64; 2],
}

impl Default for Bound {
    fn default() -> Self {
        Self { tables: Tables::get(), chunk: Chunk::default(), left: WORK, tokens: [0; 2] }
    }
}

impl Bound {
    /// Adds a text on its own, in UTF-8. An invalid byte counts as the three of a replacement character.
    pub fn add(&mut self, text: &[u8]) {
        let tables = self.tables;
        let mut rest = text;
        while !rest.is_empty() {
            if self.left == 0 {
                self.add_tokens(rough_tokens(rest));
                return;
            }
            let end = split::word(rest);
            if end > 0 {
                self.left = self.left.saturating_sub(end);
                let (word, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
                self.sum(tables.both(word));
                rest = after;
                continue;
            }
            let end = self.chunk.take(&tables.classes, rest);
            self.left = self.left.saturating_sub(end * MERGED);
            let (bytes, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
            let tokens = match self.chunk.unknown() {
                Some(tokens) => [tokens; 2],
                None => [Family::Cl100k, Family::O200k]
                    .map(|family| self.chunk.count(family, bytes, after.is_empty(), |piece| tables.one(family, piece))),
            };
            self.sum(tokens);
            rest = after;
        }
    }

    fn sum(&mut self, more: [u64; 2]) {
        self.tokens.iter_mut().zip(more).for_each(|(sum, more)| *sum = sum.saturating_add(more));
    }

    /// Adds tokens that no text shows.
    pub fn add_tokens(&mut self, tokens: u64) {
        self.sum([tokens; 2]);
    }

    /// Returns the count of the family that needs more.
    pub fn tokens(&self) -> u64 {
        self.tokens.into_iter().max().unwrap_or_default()
    }
}

/// Returns an upper bound of the tokens of any part of a text, quickly: one per byte, of which normalization can make
/// three outside ASCII.
pub fn rough_tokens(text: &[u8]) -> u64 {
    // In runs that a byte can count, so that the compiler uses vectors.
    let high = |run: &[u8]| u64::from(run.iter().map(|byte| byte >> 7).sum::<u8>());
    text.len() as u64 + 2 * text.chunks(255).map(high).sum::<u64>()
}

/// Returns an upper bound of the tokens of one text.
pub fn tokens(text: &[u8]) -> u64 {
    let mut bound = Bound::default();
    bound.add(text);
    bound.tokens()
}
