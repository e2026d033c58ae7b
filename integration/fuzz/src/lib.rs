//! The laws that the core's own tests check on mutations of a corpus, for libFuzzer to check on the same corpus.

#[path = "../../../filter/core/tests/laws/mod.rs"]
pub mod laws;
