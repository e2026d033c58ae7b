//! Compares the module's token estimate with the counts of real tokenizers, on texts of ten kinds.

use pointsman_core::tokens::{self, Correction};
use std::fmt::Write as _;
use tiktoken_rs::CoreBPE;

/// The kinds of text, each in a file in `corpora/`. The random ones were drawn for this purpose, the others written for
/// it.
pub const CORPORA: [(&str, &str); 10] = [
    ("English", include_str!("../corpora/english.txt")),
    ("Vietnamese", include_str!("../corpora/vietnamese.txt")),
    ("Chinese", include_str!("../corpora/chinese.txt")),
    ("code", include_str!("../corpora/code.txt")),
    ("JSON", include_str!("../corpora/json.txt")),
    ("random letters", include_str!("../corpora/letters.txt")),
    ("random letters and digits", include_str!("../corpora/alphanumeric.txt")),
    ("hex", include_str!("../corpora/hex.txt")),
    ("base64", include_str!("../corpora/base64.txt")),
    ("base64 in lines", include_str!("../corpora/base64_lines.txt")),
];

/// Characters in a piece, which is about a short prompt.
pub const PIECE: usize = 300;
/// Characters from the start of one piece to the start of the next.
const STEP: usize = 50;

/// The estimate as a percentage of the count, over all pieces of a text.
#[derive(Debug, Clone, Copy)]
pub struct Ratios {
    /// Of the piece with the lowest ratio.
    pub least: u64,
    /// Of the whole text.
    pub whole: u64,
    /// Of the piece with the highest ratio.
    pub most: u64,
}

/// Compares estimate and count on every piece of `text`. The estimate is corrected as for a model with this learned
/// correction.
pub fn compare(text: &str, tokenizer: &CoreBPE, correction: Correction) -> Ratios {
    let ratio = |text: &str| {
        // As in a request body: quotation marks and line breaks are escaped, and the text begins at any offset.
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let counted = tokenizer.encode_ordinary(text).len() as u64;
        let estimated = |before: usize| {
            let start = format!("{{{}\"", " ".repeat(before));
            let scaled = tokens::scaled_tokens(format!("{start}{escaped}\"}}").as_bytes());
            (scaled - tokens::scaled_tokens(start.as_bytes()) - tokens::scaled_tokens(b"\"}")).div_ceil(64)
        };
        correction.apply((0..16).step_by(3).map(estimated).min().expect("six places")) * 100 / counted
    };
    let characters: Vec<char> = text.chars().collect();
    let last = characters.len().saturating_sub(PIECE);
    let pieces = (0..=last).step_by(STEP).map(|at| ratio(&characters[at..at + PIECE].iter().collect::<String>()));
    let (least, most) = pieces.fold((u64::MAX, 0), |(least, most), ratio| (least.min(ratio), most.max(ratio)));
    Ratios { least, whole: ratio(text), most }
}

/// Returns the table of the README.
pub fn table() -> String {
    let tokenizers = [("cl100k_base", tiktoken_rs::cl100k_base()), ("o200k_base", tiktoken_rs::o200k_base())];
    let mut table = String::from("| text | tokenizer | tokens | least | whole | most |\n|---|---|---|---|---|---|\n");
    for (name, text) in CORPORA {
        for (tokenizer_name, tokenizer) in &tokenizers {
            let tokenizer = tokenizer.as_ref().expect("has its vocabulary");
            let (Ratios { least, whole, most }, tokens) =
                (compare(text, tokenizer, Correction::default()), tokenizer.encode_ordinary(text).len());
            let _ = writeln!(table, "| {name} | {tokenizer_name} | {tokens} | {least} % | {whole} % | {most} % |");
        }
    }
    table
}
