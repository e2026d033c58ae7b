//! The law of `tests/laws/entry.rs` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pointsman_fuzz::laws::law("entry")(bytes));
