//! The table in the README is current, and the bound is close to the count of ordinary text.

use pointsman_estimate::{ORDINARY, percent, table, tokenizers};

#[test]
#[ignore = "needs the vocabularies of `make vocabularies`"]
fn the_table_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(path).expect("there is a README");
    let table = table(&tokenizers::all());
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        let start = readme.find("| text |").expect("has a table");
        let end = start + readme[start..].find("\n\n").map_or(readme.len() - start, |end| end + 1);
        std::fs::write(path, format!("{}{table}{}", &readme[..start], &readme[end..])).expect("is written");
        return;
    }
    assert!(
        readme.contains(&table),
        "refresh it: UPDATE_FIXTURES=1 cargo test -p pointsman-estimate -- --ignored table\n{table}"
    );
}

#[test]
fn ordinary_text_is_not_overestimated_by_much() {
    let tokenizers = tokenizers::included();
    for (name, text) in ORDINARY {
        let most = match name {
            "English" | "code" | "chat with emoji" => 125,
            _ => 160,
        };
        let percent = percent(text, &tokenizers);
        assert!((100..=most).contains(&percent), "{name}: {percent} %");
    }
}
