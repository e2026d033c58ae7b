//! Searches for texts above the upper bound: `cargo run --release -p pointsman-estimate --example search -- SECONDS`.

use pointsman_estimate::search::Search;
use pointsman_estimate::tokenizers;
use std::time::{Duration, Instant};

fn main() {
    let seconds = std::env::args().nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(60);
    let seed = std::env::args().nth(2).and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (start, limit) = (Instant::now(), Duration::from_secs(seconds));
    let all = tokenizers::all();
    let mut searches: Vec<_> =
        all.iter().map(|tokenizer| (tokenizer.name, Search::new(tokenizer, seed), 0u64, [0.0; 2])).collect();
    while start.elapsed() < limit {
        for (name, search, texts, ratios) in &mut searches {
            for (length, ratio) in [12, 300].into_iter().zip(&mut *ratios) {
                let worst = search.run(length, 10, 100);
                *texts += 1010;
                let found = worst.counted as f64 / worst.bound as f64;
                if found > *ratio {
                    *ratio = found;
                    let start: String = worst.text.chars().take(60).collect();
                    println!("{name}, {length} characters: {} of {}: {start:?}", worst.counted, worst.bound);
                }
            }
        }
    }
    for (name, _, texts, [short, long]) in searches {
        println!("{name}: {texts} texts, at most {short:.4} (12 characters or more) and {long:.4} (300 or more)");
    }
}
