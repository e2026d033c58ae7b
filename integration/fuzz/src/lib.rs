//! The laws that the core's own tests try on mutations, for libFuzzer to try on what it makes of the same corpus.

#[path = "../../../filter/core/tests/laws/mod.rs"]
pub mod laws;
