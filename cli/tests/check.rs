//! Each policy mistake in `fixtures/` yields exactly the output in its `.txt`, and each policy in `policies/` is valid.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn files(dir: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let has = |path: &Path| path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x));
    let mut files: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|path| has(path)).collect();
    files.sort();
    files
}

/// Runs `pointsman check` in the file's directory. Returns the exit status, standard output and standard error.
fn check(path: &Path) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .current_dir(path.parent().unwrap())
        .arg("check")
        .arg(path.file_name().unwrap())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A fixture's `.txt` holds `exit STATUS`, then the reviewed standard error. After a change of the messages,
/// `UPDATE_FIXTURES=1 cargo test -p pointsman --test check` rewrites the files: review the diff.
#[test]
fn every_mistake_is_named_exactly() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let fixtures = files(&dir, &["yaml", "json"]);
    assert_eq!(fixtures.len(), files(&dir, &["txt"]).len(), "each fixture has one .txt");
    let mut wrong = Vec::new();
    for fixture in fixtures {
        let expected = PathBuf::from(format!("{}.txt", fixture.display()));
        let (status, stdout, stderr) = check(&fixture);
        let actual = format!("exit {status}\n{stderr}");
        let name = fixture.file_name().unwrap().to_str().unwrap();
        assert!(stdout.is_empty(), "{name}: {stdout}");
        assert!(!stderr.contains("sk-live"), "{name}: a message repeats a key: {stderr}");
        let excerpt = |line: &str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with("| ");
        let is_right = |line: &str| excerpt(line) || line.starts_with(&format!("{name}:"));
        assert!(stderr.lines().all(is_right), "{name}: {stderr}");
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            std::fs::write(&expected, &actual).unwrap();
        }
        let expected = std::fs::read_to_string(&expected).unwrap_or_default();
        if actual != expected {
            wrong.push(format!("{name}\n--- expected\n{expected}--- actual\n{actual}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_policy_in_policies_is_valid() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let policies = files(&dir, &["yaml"]);
    assert!(policies.len() >= 2);
    for policy in policies {
        let name = policy.file_name().unwrap().to_str().unwrap();
        let (status, stdout, stderr) = check(&policy);
        assert_eq!((status, stderr.as_str()), (0, ""), "{name}");
        assert!(stdout.starts_with(&format!("{name}: ok: ")), "{stdout}");
        let text = std::fs::read_to_string(&policy).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("# yaml-language-server: $schema=policy.schema.json"), "{name}");
        assert!(lines.next().is_some_and(|line| line.starts_with("# ")), "{name} says what it is for");
    }
}

#[test]
fn a_valid_policy_is_counted_and_a_missing_file_is_not_a_mistake_in_it() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let (_, stdout, _) = check(&dir.join("minimal.yaml"));
    assert_eq!(stdout, "minimal.yaml: ok: 1 provider, 1 model, 0 tasks, 1 tier, 1 tenant\n");
    let (status, stdout, stderr) = check(&dir.join("nowhere.yaml"));
    assert_eq!((status, stdout.as_str()), (2, ""));
    assert_eq!(
        stderr,
        "nowhere.yaml: error: no such file; check the path, or begin with a copy of policies/minimal.yaml\n"
    );
}

#[test]
fn a_suspicious_setting_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let minimal = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/hybrid.yaml");
    let policy = std::fs::read_to_string(minimal).unwrap();
    let file = dir.path().join("policy.yaml");
    std::fs::write(&file, policy.replace("prefix: \"Bearer \"", "prefix: Bearer")).unwrap();
    let (status, stdout, stderr) = check(&file);
    assert_eq!(
        stderr,
        "policy.yaml:17:49: warning: providers.openai.credential.prefix: \"Bearer\" is not followed by exactly one \
         space before the key; use \"Bearer \"\n"
    );
    assert!(stdout.starts_with("policy.yaml: ok, with 1 warning: "), "{stdout}");
    assert_eq!(status, 0);
}
