//! The module's estimate of tokens beside what real tokenizers count, on texts of five kinds.

use pointsman_core::quota::estimate;
use std::fmt::Write as _;
use tiktoken_rs::CoreBPE;

/// The kinds of text, each a file in `corpora/`, written for this purpose.
pub const CORPORA: [(&str, &str); 5] = [
    ("English", include_str!("../corpora/english.txt")),
    ("Vietnamese", include_str!("../corpora/vietnamese.txt")),
    ("Chinese", include_str!("../corpora/chinese.txt")),
    ("code", include_str!("../corpora/code.txt")),
    ("JSON", include_str!("../corpora/json.txt")),
];

/// Characters of a piece: a short prompt.
pub const PIECE: usize = 300;
/// Characters from the start of one piece to that of the next.
const STEP: usize = 50;

/// Estimate by count, in percent, over all pieces of a text.
#[derive(Debug, Clone, Copy)]
pub struct Ratios {
    /// Of the piece that is estimated lowest.
    pub least: u64,
    /// Of the whole text.
    pub whole: u64,
    /// Of the piece that is estimated highest.
    pub most: u64,
}

/// Compares on every piece of `text`.
pub fn compare(text: &str, tokenizer: &CoreBPE) -> Ratios {
    let ratio = |text: &str| {
        // As it stands in a request: quotation marks and line breaks are escaped there.
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let counted = tokenizer.encode_ordinary(text).len() as u64;
        estimate::tokens(escaped.as_bytes()) * 100 / counted
    };
    let characters: Vec<char> = text.chars().collect();
    let last = characters.len().saturating_sub(PIECE);
    let pieces = (0..=last).step_by(STEP).map(|at| ratio(&characters[at..at + PIECE].iter().collect::<String>()));
    let (least, most) = pieces.fold((u64::MAX, 0), |(least, most), ratio| (least.min(ratio), most.max(ratio)));
    Ratios { least, whole: ratio(text), most }
}

/// The table of the README.
pub fn table() -> String {
    let tokenizers = [("cl100k_base", tiktoken_rs::cl100k_base()), ("o200k_base", tiktoken_rs::o200k_base())];
    let mut table = String::from("| text | tokenizer | tokens | least | whole | most |\n|---|---|---|---|---|---|\n");
    for (name, text) in CORPORA {
        for (tokenizer_name, tokenizer) in &tokenizers {
            let tokenizer = tokenizer.as_ref().expect("has its vocabulary");
            let (Ratios { least, whole, most }, tokens) =
                (compare(text, tokenizer), tokenizer.encode_ordinary(text).len());
            let _ = writeln!(table, "| {name} | {tokenizer_name} | {tokens} | {least} % | {whole} % | {most} % |");
        }
    }
    table
}
