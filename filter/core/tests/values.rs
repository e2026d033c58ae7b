//! A policy is plain data: it can be copied and shared, and nothing in it changes while requests are served.

#![allow(clippy::unwrap_used)]

use pointsman_core::policy::Policy;
use std::fs;
use std::path::{Path, PathBuf};

/// Does not compile unless a policy is plain data.
const _: fn() = || {
    fn is_value<T: Clone + Send + Sync>() {}
    is_value::<Policy>();
};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

#[test]
fn nothing_in_a_policy_can_change_behind_a_shared_reference() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let folders = ["config", "policy"].map(|folder| sources(&source.join(folder))).concat();
    let files = [folders, vec![source.join("config.rs"), source.join("policy.rs")]].concat();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        // Explains mistakes to people, and keeps the names of all fields at hand; no policy holds any of it.
        if file.components().any(|part| part.as_os_str() == "diagnostics") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for word in ["Mutex", "RwLock", "RefCell", "Cell<", "OnceLock", "OnceCell", "LazyLock", "Atomic"] {
            assert!(!text.contains(word), "{}: {word}", file.display());
        }
    }
}
