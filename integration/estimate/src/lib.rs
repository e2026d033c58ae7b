//! Compares the module's upper bound of a prompt's tokens with the counts of real tokenizers.

pub mod search;
pub mod tables;
pub mod tokenizers;

use pointsman_core::tokens::bound;
use search::Random;
use std::fmt::Write as _;
use tokenizers::Tokenizer;

/// Ordinary texts, each in a file in `corpora/`, written for this purpose.
pub const ORDINARY: [(&str, &str); 15] = [
    ("English", include_str!("../corpora/english.txt")),
    ("chat with emoji", include_str!("../corpora/emoji.txt")),
    ("code", include_str!("../corpora/code.txt")),
    ("JSON", include_str!("../corpora/json.txt")),
    ("Vietnamese", include_str!("../corpora/vietnamese.txt")),
    ("Chinese", include_str!("../corpora/chinese.txt")),
    ("Japanese", include_str!("../corpora/japanese.txt")),
    ("Korean", include_str!("../corpora/korean.txt")),
    ("Thai", include_str!("../corpora/thai.txt")),
    ("Hindi", include_str!("../corpora/hindi.txt")),
    ("Arabic", include_str!("../corpora/arabic.txt")),
    ("Russian", include_str!("../corpora/russian.txt")),
    ("Spanish", include_str!("../corpora/spanish.txt")),
    ("French", include_str!("../corpora/french.txt")),
    ("German", include_str!("../corpora/german.txt")),
];

/// Random texts, drawn for this purpose.
const RANDOM: [(&str, &str); 5] = [
    ("letters without spaces", include_str!("../corpora/letters.txt")),
    ("letters and digits", include_str!("../corpora/alphanumeric.txt")),
    ("hex", include_str!("../corpora/hex.txt")),
    ("base64", include_str!("../corpora/base64.txt")),
    ("base64 in lines", include_str!("../corpora/base64_lines.txt")),
];

/// Returns texts that a tenant would send to have the provider count more than is reserved.
pub fn hostile() -> Vec<(&'static str, String)> {
    let mut random = Random(16);
    let mut words = |length: usize, pick: &dyn Fn(usize) -> u32| {
        let mut word = || (0..length).filter_map(|_| char::from_u32(pick(random.below(1 << 20)))).collect::<String>();
        (0..200).map(|_| word() + " ").collect::<String>()
    };
    let letter = |n: usize| (if n & 1 == 0 { 'a' } else { 'A' }) as u32 + (n >> 1) as u32 % 26;
    let among = |first: u32, count: u32| move |n: usize| first + n as u32 % count;
    vec![
        ("words of random case", words(12, &letter)),
        ("Hangul Jamo", words(9, &among(0x1100, 0x100))),
        ("Mongolian", words(9, &among(0x1820, 0x58))),
        ("Cherokee", words(9, &among(0x13a0, 0x56))),
        ("combining marks", words(9, &among(0x300, 0x70))),
        ("musical symbols", words(9, &among(0x1d15e, 7))),
    ]
}

/// Returns the bound as a percentage of the highest count.
pub fn percent(text: &str, tokenizers: &[Tokenizer]) -> u64 {
    let counted = tokenizers.iter().map(|tokenizer| tokenizer.count(text)).max().unwrap_or_default();
    bound::tokens(text.as_bytes()) * 100 / counted.max(1)
}

/// Returns the table of the README: counts, the bound, and by how much it is above the highest count.
pub fn table(tokenizers: &[Tokenizer]) -> String {
    let names: Vec<_> = tokenizers.iter().map(|tokenizer| tokenizer.name).collect();
    let mut table = format!("| text | {} | bound | over |\n|{}\n", names.join(" | "), "---|".repeat(names.len() + 3));
    let hostile = hostile();
    let rows = ORDINARY.into_iter().chain(RANDOM).chain(hostile.iter().map(|(name, text)| (*name, text.as_str())));
    for (name, text) in rows {
        let counts: Vec<_> = tokenizers.iter().map(|tokenizer| tokenizer.count(text).to_string()).collect();
        let (bound, over) = (bound::tokens(text.as_bytes()), percent(text, tokenizers).saturating_sub(100));
        let _ = writeln!(table, "| {name} | {} | {bound} | {over} % |", counts.join(" | "));
    }
    table
}
