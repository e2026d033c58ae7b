//! Laws that hold for every text or record from outside, whatever its content. Each law accepts any bytes and panics if
//! it is broken. `tests/mutations.rs` runs them on mutations of the corpus, and `integration/fuzz` on inputs from
//! libFuzzer.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod entry;
mod host;
mod policy;
mod records;
mod redis;
mod request;
mod stream;

/// A law and the name of its corpus.
pub type Law = (&'static str, fn(&[u8]));

/// All laws.
pub const ALL: [Law; 6] = [
    ("entry", entry::entry),
    ("policy", policy::policy),
    ("records", records::records),
    ("redis", redis::redis),
    ("request", request::request),
    ("stream", stream::stream),
];

/// Returns the law with this name.
pub fn law(name: &str) -> fn(&[u8]) {
    ALL.iter().find(|(known, _)| *known == name).expect("is a law").1
}

/// Asserts that corpus texts named after a format can be read as that format.
pub fn assert_read(law: &str, corpus: &[(String, Vec<u8>)]) {
    let is_read: fn(&str, &[u8]) -> Option<bool> = match law {
        "entry" => entry::is_read,
        "records" => records::is_read,
        "redis" => redis::is_read,
        _ => panic!("{law} is text"),
    };
    let all: Vec<_> = corpus.iter().filter_map(|(name, text)| Some((name, is_read(name, text)?))).collect();
    assert!(!all.is_empty() && all.iter().all(|(_, is_read)| *is_read), "{all:?}");
}
