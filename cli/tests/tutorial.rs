//! Each step of the tutorial, applied to the policy of the previous step, is valid, and `check` prints what the page
//! shows.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

const PAGE: &str = "docs/src/tutorial.md";

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn every_step_of_the_tutorial_is_a_valid_policy() {
    let directory = std::env::temp_dir().join(format!("pointsman-tutorial-{}", std::process::id()));
    std::fs::create_dir_all(directory.join("my")).unwrap();
    let mut sections = sections(&read("policies/minimal.yaml"));
    let (mut steps, mut checks) = (0, 0);
    for (language, block) in blocks(&read(PAGE)) {
        match language.as_str() {
            // "put them in place of the old ones"
            "yaml" => {
                steps += 1;
                for (name, text) in self::sections(&block) {
                    sections.retain(|(other, _)| *other != name);
                    sections.push((name, text));
                }
            }
            "console" => {
                let Some((_, shown)) = block.split_once("$ pointsman check my/policy.yaml\n") else { continue };
                checks += 1;
                let policy: String = sections.iter().map(|(_, text)| text.as_str()).collect();
                std::fs::write(directory.join("my/policy.yaml"), &policy).unwrap();
                let mut check = Command::new(env!("CARGO_BIN_EXE_pointsman"));
                let output = check.args(["check", "my/policy.yaml"]).current_dir(&directory).output().unwrap();
                let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
                let shown = shown.split_inclusive('\n').next().unwrap_or_default();
                assert_eq!(said, shown, "{PAGE}, after {steps} steps:\n{policy}");
            }
            other => panic!("{PAGE}: a block of the language {other:?}"),
        }
    }
    assert_eq!((steps, checks), (7, 8), "{PAGE}: each step is checked, and the policy that it begins with");
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Returns the fenced blocks of a page: language and text.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => open = Some((language.to_owned(), String::new())),
            (None, Some((_, text))) => text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{PAGE}: a block without an end");
    blocks
}

/// Returns the top-level sections of a policy: name and text.
fn sections(policy: &str) -> Vec<(String, String)> {
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in policy.lines() {
        match line.split_once(':') {
            Some((name, _)) if line.starts_with(|c: char| c.is_ascii_lowercase()) => {
                sections.push((name.to_owned(), String::new()));
            }
            _ => {}
        }
        if let Some((_, text)) = sections.last_mut() {
            text.push_str(&format!("{line}\n"));
        }
    }
    sections
}
