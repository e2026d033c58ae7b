//! Nanoseconds per byte of the estimate: `cargo run --release -p pointsman-estimate --example speed`.

use pointsman_core::tokens;
use pointsman_estimate::CORPORA;
use std::hint::black_box;
use std::time::Instant;

fn main() {
    for (name, text) in CORPORA {
        let bytes: Vec<u8> = text.bytes().cycle().take(100_000).collect();
        let mut best = f64::MAX;
        for _ in 0..50 {
            let start = Instant::now();
            for _ in 0..20 {
                black_box(tokens::tokens(black_box(&bytes)));
            }
            best = best.min(start.elapsed().as_nanos() as f64 / 20.0 / bytes.len() as f64);
        }
        println!("{name}: {best:.3} ns per byte at 100 KB");
    }
}
