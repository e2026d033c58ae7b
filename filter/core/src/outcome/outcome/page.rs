//! The page about error codes has each code once.

use super::*;
use std::collections::BTreeMap;

const PAGE: &str = include_str!("../../../../../docs/src/reference/errors.md");

/// A finish reason that some providers give as a code, and the family `status_NNN`.
const OTHERS: [&str; 2] = ["content_filter", "status_503"];

/// Returns the codes of the page's tables, with how often each has a row.
fn rows() -> BTreeMap<&'static str, usize> {
    let mut rows = BTreeMap::new();
    for line in PAGE.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').collect();
        // Where callers see the code, the status is before it.
        let cell = if cells.len() == 4 { cells[1] } else { cells[0] };
        for code in cell.split('`').skip(1).step_by(2).filter(|code| *code != "code") {
            *rows.entry(code).or_default() += 1;
        }
    }
    rows
}

#[test]
fn every_code_has_a_row() {
    let rows = rows();
    let missing: Vec<_> = Outcome::NAMED.iter().map(|o| o.code()).filter(|code| !rows.contains_key(code)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn no_row_is_of_a_code_that_does_not_exist_and_none_is_there_twice() {
    for (code, times) in rows() {
        let is_known = Outcome::of_code(Outcome::NAMED, code).is_some();
        assert!(is_known || OTHERS.contains(&code), "{code}");
        assert!(times == 1 || OTHERS.contains(&code), "{code} has {times} rows");
    }
}
