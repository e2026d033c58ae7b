//! The law of `tests/laws/policy.rs` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pointsman_fuzz::laws::law("policy")(bytes));
