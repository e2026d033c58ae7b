//! Typical mistakes in a policy, and what `pointsman check` says about each: the files in `mistakes/`.
//!
//! A case is a title (`# …`), an edit of `mistakes/base.yaml` as in a diff, and the exact messages (`> …`) without the
//! file's name and line:
//!
//! ```text
//! # A field is misspelt
//! -    context: 32768
//! +    contxt: 32768
//! > models.small: unknown field "contxt"; did you mean "context"?
//! ```
//!
//! Lines that start with a space are context. They and the removed ones occur in a row and once in the base. `...`
//! separates two edits. Lines that start with `|` are a whole policy in place of an edit. To add a case, write it
//! without its messages and run `UPDATE_FIXTURES=1 cargo test -p pointsman --test mistakes`; then review the diff.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One case: its lines without the messages, and the messages.
struct Case {
    lines: Vec<String>,
    says: Vec<String>,
}

impl Case {
    fn title(&self) -> &str {
        self.lines.iter().find_map(|line| line.strip_prefix("# ")).unwrap_or("untitled")
    }

    /// The policy with the mistake.
    fn policy(&self, base: &str) -> String {
        let whole: Vec<&str> = self.lines.iter().filter_map(|line| line.strip_prefix('|')).collect();
        if !whole.is_empty() {
            return whole.iter().fold(String::new(), |text, line| text + line.strip_prefix(' ').unwrap_or(line) + "\n");
        }
        let edit = self.lines.iter().filter(|line| line.starts_with([' ', '+', '-', '.'])).collect::<Vec<_>>();
        let mut text = base.to_owned();
        for hunk in edit.split(|line| *line == "...") {
            let side = |sign: char| -> String {
                let lines = hunk.iter().filter(|line| line.starts_with([' ', sign]));
                lines.map(|line| format!("{}\n", &line[1..])).collect()
            };
            let (before, after) = (side('-'), side('+'));
            assert!(!before.is_empty(), "{}: nothing to find in the base", self.title());
            // The lines are whole ones.
            let found = format!("\n{text}").matches(&format!("\n{before}")).count();
            assert_eq!(found, 1, "{}: the base has these lines {found} times:\n{before}", self.title());
            text = format!("\n{text}").replacen(&format!("\n{before}"), &format!("\n{after}"), 1)[1..].to_owned();
        }
        text
    }
}

/// Reads the cases of a file. Its first lines, up to the first title, are a comment.
fn cases(text: &str) -> (String, Vec<Case>) {
    let mut comment = String::new();
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if line.starts_with("# ") {
            cases.push(Case { lines: Vec::new(), says: Vec::new() });
        }
        match (cases.last_mut(), line.strip_prefix("> ")) {
            (None, _) => writeln!(comment, "{line}").unwrap(),
            (Some(case), Some(message)) => case.says.push(message.to_owned()),
            (Some(case), None) => case.lines.push(line.to_owned()),
        }
    }
    for case in &mut cases {
        while case.lines.last().is_some_and(String::is_empty) {
            case.lines.pop();
        }
    }
    (comment, cases)
}

/// What `check` says about a policy, without the name of the file and the lines.
fn said(policy: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.yaml"), policy).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .current_dir(dir.path())
        .args(["check", "--format", "json", "p.yaml"])
        .output()
        .unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors = report["problems"].as_array().unwrap().iter().filter(|problem| problem["severity"] == "error");
    errors.map(|problem| problem["message"].as_str().unwrap().to_owned()).collect()
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes")
}

#[test]
fn every_typical_mistake_is_named_with_its_cause_and_its_remedy() {
    let base = std::fs::read_to_string(directory().join("base.yaml")).unwrap();
    assert_eq!(said(&base), [""; 0]);
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory()).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let (mut wrong, mut count) = (Vec::new(), 0);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (comment, cases) = cases(&text);
        let mut actual = comment;
        for (i, case) in cases.iter().enumerate() {
            count += 1;
            let says = said(&case.policy(&base));
            for line in &says {
                assert!(!line.contains("live-0123"), "{}: a message repeats a key: {line}", case.title());
                for internal in ["Option<", "variant", "struct ", "u64", "invalid type", "serde", "configured policy"] {
                    assert!(!line.contains(internal), "{}: a parser's word: {line}", case.title());
                }
            }
            let said: String = says.iter().map(|line| format!("> {line}\n")).collect();
            let space = if i == 0 { "" } else { "\n" };
            write!(actual, "{space}{}\n{said}", case.lines.join("\n")).unwrap();
            if says != case.says {
                wrong.push(format!("{}\n--- expected\n{}\n--- actual\n{said}", case.title(), case.says.join("\n")));
            }
        }
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            std::fs::write(&file, actual).unwrap();
        }
    }
    assert!(count >= 150, "{count} cases");
    assert!(wrong.is_empty(), "{} of {count}\n{}", wrong.len(), wrong.join("\n"));
}
