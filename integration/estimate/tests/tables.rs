//! The tables of the upper bound are those that the generator makes.

use pointsman_estimate::tables;
use std::path::Path;

#[test]
fn the_tables_are_current() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../filter/core/src/tokens/bound");
    for (name, table) in tables::all() {
        let path = folder.join(name);
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            std::fs::write(&path, &table).expect("is written");
        }
        assert!(
            std::fs::read(&path).ok() == Some(table),
            "{name}: refresh it: UPDATE_FIXTURES=1 cargo test -p pointsman-estimate --test tables"
        );
    }
}
