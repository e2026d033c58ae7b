//! The JSON Schema in `policies/` is current, and the reference beside it documents every field.

// Helpers of tests are tests to clippy only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn policies(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_schema_that_is_checked_in_is_current() {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman")).arg("schema").output().unwrap();
    assert!(output.status.success());
    assert!(
        String::from_utf8(output.stdout).unwrap() == policies("policy.schema.json"),
        "policies/policy.schema.json is stale; refresh it: \
         cargo run -p pointsman -- schema > policies/policy.schema.json"
    );
}

#[test]
fn the_reference_documents_every_field_and_every_name() {
    let mut words = BTreeSet::new();
    collect(&serde_json::from_str(&policies("policy.schema.json")).unwrap(), &mut words);
    assert!(words.contains("unsupported_params") && words.contains("regulated"), "{words:?}");
    let readme = policies("README.md");
    let missing: Vec<_> = words.iter().filter(|word| !readme.contains(&format!("`{word}`"))).collect();
    assert!(missing.is_empty(), "policies/README.md does not document {missing:?}");
}

/// Names of fields, and the values of those that take one of several names.
fn collect(node: &Value, words: &mut BTreeSet<String>) {
    match node {
        Value::Object(map) => {
            if let Some(Value::Object(fields)) = map.get("properties") {
                words.extend(fields.keys().cloned());
            }
            if let Some(Value::Array(values)) = map.get("enum") {
                words.extend(values.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            if let Some(Value::String(value)) = map.get("const") {
                words.insert(value.clone());
            }
            map.values().for_each(|value| collect(value, words));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, words)),
        _ => {}
    }
}
