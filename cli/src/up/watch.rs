//! Polls the policy and the provider files for changes.

use crate::regular_file;
use crate::render::providers;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Watches one policy and one provider directory.
///
/// The content itself is compared. A size and a time do not tell: Nix and container images give every file one time,
/// and `cp -p` and `rsync -t` set it.
pub struct Watch {
    policy: PathBuf,
    providers: PathBuf,
    /// The content at the last call.
    seen: Content,
    /// The content that was last reported.
    reported: Content,
}

/// The hash of the paths and the content of all files.
type Content = [u8; 32];

impl Watch {
    /// Starts from the current content.
    pub fn new(policy: &Path, providers: &Path) -> Self {
        let content = content(policy, providers);
        Self { policy: policy.to_owned(), providers: providers.to_owned(), seen: content, reported: content }
    }

    /// Returns whether the content differs from that of the previous call that returned true. Waits for a file that is
    /// being written: two calls in a row must find the same content.
    pub fn changed(&mut self) -> bool {
        let now = content(&self.policy, &self.providers);
        let is_settled = now == std::mem::replace(&mut self.seen, now);
        if !is_settled {
            return false;
        }
        now != std::mem::replace(&mut self.reported, now)
    }
}

fn content(policy: &Path, providers: &Path) -> Content {
    let mut files = vec![policy.to_owned()];
    files.extend(providers::files(providers).unwrap_or_default());
    let mut hash = Sha256::new();
    for path in files {
        let bytes = regular_file::read(&path).ok();
        hash.update(path.as_os_str().as_encoded_bytes());
        // No file, unlike an empty one, has no length.
        hash.update(bytes.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
        hash.update(bytes.unwrap_or_default());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_seen_once_when_it_has_settled() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path();
        let providers = directory.join("providers");
        std::fs::create_dir_all(&providers).unwrap();
        let policy = directory.join("policy.yaml");
        std::fs::write(&policy, "a").unwrap();
        let mut watch = Watch::new(&policy, &providers);
        let changes = |watch: &mut Watch| (0..4).filter(|_| watch.changed()).count();
        assert_eq!(changes(&mut watch), 0);
        std::fs::write(&policy, "ab").unwrap();
        assert!(!watch.changed(), "it may still be being written");
        assert_eq!(changes(&mut watch), 1);
        std::fs::write(providers.join("x.yaml"), "name: x").unwrap();
        assert_eq!(changes(&mut watch), 1);
        std::fs::write(providers.join("notes.txt"), "x").unwrap();
        assert_eq!(changes(&mut watch), 0);
        std::fs::rename(&policy, directory.join("old")).unwrap();
        std::fs::write(&policy, "ab").unwrap();
        assert_eq!(changes(&mut watch), 0, "the same content again");
        std::fs::remove_file(&policy).unwrap();
        assert_eq!(changes(&mut watch), 1);
    }

    #[test]
    fn a_change_that_keeps_size_and_time_is_seen() {
        let scratch = tempfile::tempdir().unwrap();
        let policy = scratch.path().join("policy.yaml");
        let write = |text: &str| {
            std::fs::write(&policy, text).unwrap();
            let file = std::fs::File::options().write(true).open(&policy).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        };
        write("key: a");
        let mut watch = Watch::new(&policy, scratch.path());
        let changes = |watch: &mut Watch| (0..4).filter(|_| watch.changed()).count();
        assert_eq!(changes(&mut watch), 0);
        write("key: b");
        assert_eq!(changes(&mut watch), 1);
        // An image mounted in place of another one: not even the inode need differ.
        write("key: a");
        assert_eq!(changes(&mut watch), 1);
    }

    #[test]
    fn a_fifo_in_place_of_a_file_is_a_change_and_is_not_read() {
        let scratch = tempfile::tempdir().unwrap();
        let policy = scratch.path().join("policy.yaml");
        std::fs::write(&policy, "").unwrap();
        let mut watch = Watch::new(&policy, scratch.path());
        std::fs::remove_file(&policy).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&policy).status().unwrap().success());
        assert_eq!((0..4).filter(|_| watch.changed()).count(), 1);
    }
}
