//! Generates the tables of the module's upper bound: the first merges of two vocabularies, and classes of characters.

use crate::tokenizers;
use fancy_regex::Regex;
use std::collections::HashMap;
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, char, is_nfc_quick};

/// How many ranks of a vocabulary the table has: of tokens with ASCII characters other than spaces, and of others.
const CL100K: [usize; 2] = [24_000, 100_256];
const O200K: [usize; 2] = [24_000, 24_000];

/// Returns the names of the tables and their contents.
pub fn all() -> [(&'static str, Vec<u8>); 3] {
    let [cl100k, o200k] = tokenizers::included();
    [
        ("cl100k.bin", merges(&cl100k.tokens(CL100K[1]), CL100K)),
        ("o200k.bin", merges(&o200k.tokens(O200K[1]), O200K)),
        ("classes.bin", classes()),
    ]
}

/// As the core's `vocabulary.rs` reads it.
fn merges(tokens: &[Vec<u8>], [ascii, others]: [usize; 2]) -> Vec<u8> {
    let has_ascii = |token: &[u8]| token.iter().any(|byte| byte.is_ascii() && *byte != b' ');
    let mut numbers: HashMap<&[u8], u16> = HashMap::new();
    let (mut table, mut ascii_end) = (Vec::new(), None);
    for (rank, token) in tokens.iter().enumerate().take(others) {
        if token.len() == 1 {
            numbers.insert(token, u16::from(token[0]));
            continue;
        }
        if rank >= ascii {
            ascii_end.get_or_insert(256 + table.len() / 4);
            if has_ascii(token) {
                continue;
            }
        }
        let number = u16::try_from(256 + table.len() / 4).expect("fits sixteen bits");
        let halves = halves(token, &numbers);
        table.extend(halves.into_iter().flat_map(u16::to_le_bytes));
        numbers.insert(token, number);
    }
    let ascii_end = ascii_end.unwrap_or(256 + table.len() / 4);
    let mut all = u16::try_from(ascii_end).expect("fits sixteen bits").to_le_bytes().to_vec();
    all.append(&mut table);
    all
}

/// Merges the bytes of a token until two parts are left.
fn halves(token: &[u8], numbers: &HashMap<&[u8], u16>) -> [u16; 2] {
    let mut parts: Vec<&[u8]> = token.chunks(1).collect();
    let mut from = vec![0; token.len()];
    from.iter_mut().enumerate().for_each(|(at, from)| *from = at);
    while parts.len() > 2 {
        let merged = |at: usize| numbers.get(&token[from[at]..from[at] + parts[at].len() + parts[at + 1].len()]);
        let first = (0..parts.len() - 1).filter_map(|at| Some((*merged(at)?, at))).min();
        let (_, at) = first.unwrap_or_else(|| panic!("{:?} cannot be made", String::from_utf8_lossy(token)));
        parts[at] = &token[from[at]..from[at] + parts[at].len() + parts[at + 1].len()];
        parts.remove(at + 1);
        from.remove(at + 1);
    }
    [numbers[parts[0]], numbers[parts[1]]]
}

/// As the core's `class.rs` reads it.
fn classes() -> Vec<u8> {
    let class = |set: &str| Regex::new(&format!("^[{set}]$")).expect("is a class");
    // Those of 2016, so that every implementation in use knows them.
    let known = class(r"\p{Age=9.0}--\p{Cn}");
    let sets: Vec<(Regex, u8)> = [
        (r"\r\n", 9),
        (r"\s", 8),
        (r"\p{Lu}\p{Lt}", 2),
        (r"\p{Ll}", 3),
        (r"\p{Lm}\p{Lo}", 4),
        (r"\p{M}", 5),
        (r"\p{N}", 7),
    ]
    .map(|(set, code)| (class(set), code))
    .into();
    let code = |number: u32| -> u8 {
        let Some(character) = std::char::from_u32(number) else { return 0 };
        let text = character.to_string();
        let normalized: String = text.nfc().collect();
        if normalized.len() > text.len() {
            // The core counts as many tokens.
            assert!(normalized.len() <= text.len() * if text.len() < 4 { 2 } else { 3 });
            return 1;
        }
        // White space for some implementations only, and what matches `'s` without regard to case.
        let is_disputed = matches!(character, '\0' | '\u{1c}'..='\u{1f}' | '\u{17f}' | '\u{180e}');
        let is_known = known.is_match(&text).expect("matches");
        if is_disputed || !is_known || is_nfc_quick([character].into_iter()) != IsNormalized::Yes {
            return 0;
        }
        match sets.iter().find(|(set, _)| set.is_match(&text).expect("matches")) {
            Some((_, 5)) if char::canonical_combining_class(character) != 0 => 6,
            Some((_, code)) => *code,
            None => 10,
        }
    };
    let (mut numbers, mut pages) = (Vec::new(), Vec::<Vec<u8>>::new());
    for first in (0..0x2_0000).step_by(256) {
        let page: Vec<u8> = (first..first + 256).step_by(2).map(|at| code(at) | code(at + 1) << 4).collect();
        let number = pages.iter().position(|known| *known == page).unwrap_or_else(|| {
            pages.push(page);
            pages.len() - 1
        });
        numbers.push(u8::try_from(number).expect("fits a byte"));
    }
    numbers.extend(pages.concat());
    numbers
}
