//! Parsers of outside bytes under mutation: none panics, and each law of `laws/` holds.
//!
//! The mutations are deterministic, so a failure can be reproduced. `MUTATIONS=1000000` runs longer. `make fuzz` finds
//! what random mutation of the corpus does not reach.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod laws;

use std::path::Path;

/// SplitMix64 (public domain, Vigna): enough for picking bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        const BYTES: &[u8] = b"\"\\{}[],:0-9.eE \n\r\t\0\x01\x02\x7f\x80\xc3\xed\xff datanull";
        let mut text = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(text.len());
            match self.below(5) {
                0 if !text.is_empty() => text[at] = BYTES[self.below(BYTES.len())],
                1 => text.insert(at, BYTES[self.below(BYTES.len())]),
                2 if !text.is_empty() => drop(text.remove(at)),
                3 => text.truncate(at),
                _ => {
                    let from = self.below(text.len());
                    let piece = text[from..(from + 12).min(text.len())].to_vec();
                    text.splice(at..at, piece);
                }
            }
        }
        text
    }
}

/// Returns the texts of a law's corpus, each with its name.
fn corpus(law: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../integration/fuzz/corpus").join(law);
    let files = std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut all: Vec<_> =
        files.map(|file| file.unwrap().path()).map(|path| (name(&path), std::fs::read(&path).unwrap())).collect();
    all.sort();
    assert!(!all.is_empty(), "{} is empty", directory.display());
    all
}

/// Runs a law on its corpus, and on this number of mutations of it.
fn try_law(name: &str, mutations: usize) {
    let law = laws::law(name);
    let corpus = corpus(name);
    let try_one = |what: &str, text: &[u8]| {
        if let Err(panic) = std::panic::catch_unwind(|| law(text)) {
            eprintln!("{name}, {what}: {:?}", String::from_utf8_lossy(text));
            std::panic::resume_unwind(panic);
        }
    };
    corpus.iter().for_each(|(file, text)| try_one(file, text));
    let mutations = std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(mutations);
    let mut random = Random(1);
    for round in 0..mutations {
        let (file, text) = &corpus[round % corpus.len()];
        let mut text = random.mutate(text);
        if random.below(8) == 0 {
            text = random.mutate(&text);
        }
        try_one(file, &text);
    }
}

#[test]
fn requests() {
    try_law("request", 30_000);
}

#[test]
fn streams_and_bodies_of_providers() {
    try_law("stream", 30_000);
}

#[test]
fn policies_and_their_calendars() {
    try_law("policy", 20_000);
}

#[test]
fn answers_of_redis() {
    try_law("redis", 20_000);
}

#[test]
fn entries_of_the_cache() {
    try_law("entry", 20_000);
}

#[test]
fn records_of_shared_data_and_of_the_stages() {
    try_law("records", 20_000);
}

/// If a format has changed and the corpus no longer parses, the mutations test nothing.
#[test]
fn the_corpus_is_of_the_formats_that_are_read() {
    laws::assert_read("entry", &corpus("entry"));
    laws::assert_read("records", &corpus("records"));
    laws::assert_read("redis", &corpus("redis"));
}
