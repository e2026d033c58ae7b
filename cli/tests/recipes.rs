//! Each recipe, applied to the policy that the page begins with, is a valid policy.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::Value;
use std::path::Path;
use std::process::Command;

const PAGE: &str = "docs/src/operate/recipes.md";

/// Returns the page.
fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PAGE)).unwrap()
}

/// Returns the policy that the page's first recipe writes, with a key's hash in place of the command that prints one.
fn first_policy(page: &str) -> Value {
    let (_, rest) = page.split_once("my/policy.yaml <<END\n").unwrap();
    let (yaml, _) = rest.split_once("\nEND\n").unwrap();
    let hash = format!("sha256:{}", "1".repeat(64));
    value(&yaml.replace("$(pointsman hash-key < my/team.key)", &hash))
}

fn value(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"))
}

/// Puts the fields of `change` in place of those of `policy`. Mappings are merged, as the page says.
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
fn every_recipe_gives_a_valid_policy() {
    let page = page();
    let mut policy = first_policy(&page);
    let directory = tempfile::tempdir().unwrap();
    let mut recipes = 0;
    let mut check = |policy: &Value, after: &str| {
        std::fs::write(directory.path().join("policy.json"), policy.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
        let output = command.args(["check", "policy.json"]).current_dir(&directory).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{PAGE}, after {after}: {said}");
        // The page shows what this one prints.
        assert!(recipes > 0 || said.is_empty(), "{PAGE}: a warning about {after}: {said}");
        recipes += 1;
    };
    check(&policy, "the first recipe");
    // A block in a list is indented.
    for indent in ["", "   "] {
        for block in page.split(&format!("\n{indent}```yaml\n")).skip(1) {
            let (block, _) = block.split_once(&format!("\n{indent}```")).unwrap();
            let yaml: String =
                block.lines().map(|line| format!("{}\n", line.strip_prefix(indent).unwrap_or(line))).collect();
            merge(&mut policy, value(&yaml));
            check(&policy, block);
        }
    }
    assert_eq!(recipes, 8, "{PAGE}: a recipe was added; is it in this test?");
}
