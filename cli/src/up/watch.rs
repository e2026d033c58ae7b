//! Polls the policy and the provider files for changes.

use crate::render::providers;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Size and modification time of a file; `None` if there is no file.
type Stamp = Option<(u64, Option<SystemTime>)>;

/// Watches one policy and one provider directory.
pub struct Watch {
    policy: PathBuf,
    providers: PathBuf,
    stamps: Vec<(PathBuf, Stamp)>,
    /// Whether the stamps have changed since the content was last read.
    unsettled: bool,
    content: [u8; 32],
}

impl Watch {
    /// Starts from the current content.
    pub fn new(policy: &Path, providers: &Path) -> Self {
        let mut watch = Self {
            policy: policy.to_owned(),
            providers: providers.to_owned(),
            stamps: Vec::new(),
            unsettled: false,
            content: [0; 32],
        };
        watch.stamps = watch.stamp();
        watch.content = watch.hash();
        watch
    }

    /// Returns whether the content differs from that of the previous call. Waits for a file that is being written: two
    /// calls in a row must find the same sizes and times.
    pub fn changed(&mut self) -> bool {
        let stamps = self.stamp();
        if stamps != self.stamps {
            self.stamps = stamps;
            self.unsettled = true;
            return false;
        }
        if !std::mem::take(&mut self.unsettled) {
            return false;
        }
        let content = self.hash();
        content != std::mem::replace(&mut self.content, content)
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = vec![self.policy.clone()];
        files.extend(providers::files(&self.providers).unwrap_or_default());
        files
    }

    fn stamp(&self) -> Vec<(PathBuf, Stamp)> {
        let stamp = |path: &Path| std::fs::metadata(path).ok().map(|data| (data.len(), data.modified().ok()));
        self.files().into_iter().map(|path| (path.clone(), stamp(&path))).collect()
    }

    fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for path in self.files() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
        }
        hash.finalize().into()
    }
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
}
