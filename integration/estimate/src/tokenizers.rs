//! The real tokenizers: two whose vocabularies come with the crate `tiktoken-rs`, and two from `make vocabularies`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustc_hash::FxHashMap;
use std::path::{Path, PathBuf};
use tiktoken_rs::{CoreBPE, Rank};
use unicode_normalization::UnicodeNormalization as _;

/// A tokenizer.
pub struct Tokenizer {
    /// Its name, as the tables show it.
    pub name: &'static str,
    bpe: CoreBPE,
    /// Whether text is brought into the form NFC first.
    normalizes: bool,
}

impl Tokenizer {
    /// Counts the tokens of a text.
    pub fn count(&self, text: &str) -> u64 {
        if self.normalizes {
            let text: String = text.nfc().collect();
            return self.bpe.encode_ordinary(&text).len() as u64;
        }
        self.bpe.encode_ordinary(text).len() as u64
    }

    /// Returns the bytes of the first `most` tokens, in the order of their ranks.
    pub fn tokens(&self, most: usize) -> Vec<Vec<u8>> {
        (0..most as Rank).map_while(|rank| self.bpe.decode_bytes(&[rank]).ok()).collect()
    }
}

/// OpenAI's tokenizers.
pub fn included() -> [Tokenizer; 2] {
    let [cl100k, o200k] =
        [tiktoken_rs::cl100k_base(), tiktoken_rs::o200k_base()].map(|bpe| bpe.expect("includes its vocabulary"));
    [
        Tokenizer { name: "cl100k_base", bpe: cl100k, normalizes: false },
        Tokenizer { name: "o200k_base", bpe: o200k, normalizes: false },
    ]
}

/// The pattern of Llama 3. Qwen's differs in its numbers, of one digit each.
const PATTERN: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// Those of Llama 3 and Qwen.
///
/// # Panics
/// If their vocabularies were not downloaded.
pub fn downloaded() -> [Tokenizer; 2] {
    let qwen = PATTERN.replace("{1,3}", "");
    [
        Tokenizer { name: "Llama 3", bpe: load("llama3", PATTERN), normalizes: false },
        Tokenizer { name: "Qwen", bpe: load("qwen", &qwen), normalizes: true },
    ]
}

/// All four.
///
/// # Panics
/// If vocabularies were not downloaded.
pub fn all() -> Vec<Tokenizer> {
    included().into_iter().chain(downloaded()).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tools/vocabularies")
}

fn load(name: &str, pattern: &str) -> CoreBPE {
    let path = folder().join(format!("{name}.tiktoken"));
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}. `make vocabularies` downloads it.", path.display()));
    let ranks: FxHashMap<Vec<u8>, Rank> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(token, rank)| (STANDARD.decode(token).expect("is base64"), rank.parse().expect("is a rank")))
        .collect();
    let special = FxHashMap::from_iter([("<|endoftext|>".to_owned(), ranks.len() as Rank)]);
    CoreBPE::new(ranks, special, pattern).expect("is a vocabulary")
}
