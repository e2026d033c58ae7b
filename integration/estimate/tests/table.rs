//! The table in the README is current, and the stated margin holds.

use pointsman_core::tokens::{Correction, MARGIN_PERCENT};
use pointsman_estimate::{CORPORA, compare, table};

#[test]
fn the_table_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("there is a README");
    let table = table();
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        let start = readme.find("| text |").expect("has a table");
        let end = start + readme[start..].find("\n\n").map_or(readme.len() - start, |end| end + 1);
        std::fs::write(path, format!("{}{table}{}", &readme[..start], &readme[end..])).expect("is written");
        return;
    }
    assert!(readme.contains(&table), "refresh it: UPDATE_FIXTURES=1 cargo test -p pointsman-estimate\n{table}");
}

#[test]
fn no_piece_is_underestimated_by_more_than_the_margin() {
    for tokenizer in [tiktoken_rs::cl100k_base(), tiktoken_rs::o200k_base()] {
        let tokenizer = tokenizer.expect("has its vocabulary");
        for (name, text) in CORPORA {
            // A learned correction never falls below this.
            let lowest = compare(text, &tokenizer, Correction::FLOOR);
            assert!(lowest.least >= 100 - MARGIN_PERCENT, "{name}: {lowest:?}");
            let ratios = compare(text, &tokenizer, Correction::default());
            assert!(ratios.most <= 250, "{name}: an estimate that is far too high refuses what would fit: {ratios:?}");
        }
    }
}
