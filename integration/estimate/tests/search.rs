//! No text is found of which a tokenizer counts more than the bound.

use pointsman_core::tokens::bound;
use pointsman_estimate::search::Search;
use pointsman_estimate::tokenizers::{self, Tokenizer};
use pointsman_estimate::{ORDINARY, hostile};

/// A bounded search. The example `search` runs for as long as it is told.
fn search(tokenizers: &[Tokenizer]) {
    for tokenizer in tokenizers {
        let mut search = Search::new(tokenizer, 16);
        for length in [1, 12, 300] {
            let worst = search.run(length, 12, 24);
            assert!(worst.counted <= worst.bound, "{}: {worst:?}", tokenizer.name);
        }
    }
}

/// Every character in a text of its own, between others, and with marks that normalization could put together with it.
fn characters(tokenizers: &[Tokenizer]) {
    for character in (1..0x3_2000).step_by(3).filter_map(char::from_u32) {
        let text = format!("{character}a{character}{character} {character}\u{301}{character}\u{93c}");
        let bound = bound::tokens(text.as_bytes());
        for tokenizer in tokenizers {
            let counted = tokenizer.count(&text);
            assert!(counted <= bound, "{}: {counted} of {text:?}, bound {bound}", tokenizer.name);
        }
    }
}

/// Parts of texts, which begin and end within words and white space.
fn parts(tokenizers: &[Tokenizer]) {
    let hostile = hostile();
    for text in ORDINARY.iter().map(|(_, text)| *text).chain(hostile.iter().map(|(_, text)| text.as_str())) {
        let characters: Vec<char> = text.chars().collect();
        for (start, length) in (0..characters.len()).step_by(97).zip([1, 7, 40, 300, 301].into_iter().cycle()) {
            let text: String = characters.iter().skip(start).take(length).collect();
            let bound = bound::tokens(text.as_bytes());
            for tokenizer in tokenizers {
                let counted = tokenizer.count(&text);
                assert!(counted <= bound, "{}: {counted} of {text:?}, bound {bound}", tokenizer.name);
            }
        }
    }
}

#[test]
fn no_text_is_found_above_the_bound() {
    let tokenizers = tokenizers::included();
    search(&tokenizers);
    parts(&tokenizers);
}

#[test]
#[ignore = "needs the vocabularies of `make vocabularies`"]
fn no_text_is_found_above_the_bound_for_llama_and_qwen() {
    let tokenizers = tokenizers::downloaded();
    search(&tokenizers);
    parts(&tokenizers);
    characters(&tokenizers);
}

#[test]
fn no_character_is_above_the_bound() {
    characters(&tokenizers::included());
}
