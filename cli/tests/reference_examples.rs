//! Each example of the policy reference, applied to the demo's policy, is a valid policy.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const PAGE: &str = "docs/src/reference/policy.md";
const POLICY: &str = "policies/hybrid.yaml";

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)).unwrap()
}

fn value(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"))
}

/// Puts the fields of `change` in place of those of `policy`. Mappings are merged.
fn merge(policy: &mut Value, change: Value) {
    match (policy, change) {
        (Value::Object(all), Value::Object(more)) => {
            for (name, value) in more {
                merge(all.entry(name).or_insert(Value::Null), value);
            }
        }
        (place, value) => *place = value,
    }
}

#[test]
fn every_example_gives_a_valid_policy() {
    let (page, policy) = (read(PAGE), value(&read(POLICY)));
    let directory = tempfile::tempdir().unwrap();
    let mut examples = 0;
    for block in page.split("\n```yaml\n").skip(1) {
        let (block, _) = block.split_once("\n```").unwrap();
        let mut example = value(block);
        // A model's price is shown by itself.
        if let Some(price) = example.as_object_mut().unwrap().remove("price") {
            example["models"] = json!({"hosted-mid": {"price": price}});
        }
        let mut policy = policy.clone();
        merge(&mut policy, example);
        std::fs::write(directory.path().join("policy.json"), policy.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        let output = command.args(["check", "policy.json"]).current_dir(&directory).output().unwrap();
        assert!(output.status.success(), "{PAGE}, {block}: {}", String::from_utf8_lossy(&output.stderr));
        examples += 1;
    }
    assert!(examples >= 16, "{PAGE} has only {examples} examples");
}
