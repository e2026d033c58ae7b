//! Nanoseconds per byte of the bound: `cargo run --release -p pointsman-estimate --example speed`.

use pointsman_core::tokens::bound;
use pointsman_estimate::{ORDINARY, hostile};
use std::hint::black_box;
use std::time::Instant;

fn main() {
    let hostile = hostile();
    for (name, text) in ORDINARY.into_iter().chain(hostile.iter().map(|(name, text)| (*name, text.as_str()))) {
        let bytes = text.repeat(100_000 / text.len() + 1).into_bytes();
        let mut best = f64::MAX;
        for _ in 0..20 {
            let start = Instant::now();
            black_box(bound::tokens(black_box(&bytes)));
            best = best.min(start.elapsed().as_nanos() as f64 / bytes.len() as f64);
        }
        println!("{name}: {best:.1} ns per byte at 100 KB");
    }
}
