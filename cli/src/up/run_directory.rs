//! The directory of Envoy's files, for as long as `up` runs.

use super::reload::RunningConfig;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory that only this user can read. It is removed when it is dropped.
///
/// It is not in `$XDG_RUNTIME_DIR`, which goes when its user logs out: `up` may outlive that.
pub struct RunDirectory {
    directory: TempDir,
    /// systemd-tmpfiles, which removes old files, spares what is in a locked directory (tmpfiles.d(5)).
    locked: File,
}

impl RunDirectory {
    /// Creates it in systemd's `RuntimeDirectory=`, else in the directory for temporary files.
    ///
    /// # Errors
    /// The parent's path and the reason.
    pub fn create() -> io::Result<Self> {
        let parent = runtime_directory().unwrap_or_else(std::env::temp_dir);
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", parent.display()));
        let only_us = std::fs::Permissions::from_mode(0o700);
        let directory =
            tempfile::Builder::new().prefix("pointsman-").permissions(only_us).tempdir_in(&parent).map_err(named)?;
        let locked = File::open(directory.path())?;
        // Not every file system has locks. Without one, the directory is only at risk where files are removed by age.
        let _ = flock(&locked, FlockOperation::NonBlockingLockExclusive);
        Ok(Self { directory, locked })
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns what to say when it is not there.
    pub fn removed(&self) -> String {
        format!("{} was removed, and Envoy sees no new files; restart `pointsman up`", self.path().display())
    }

    /// Returns whether it is still there. Envoy does not notice files in another directory with the same path.
    pub fn is_there(&self) -> bool {
        let identity = |data: std::fs::Metadata| (data.dev(), data.ino());
        match (self.locked.metadata(), std::fs::metadata(self.path())) {
            (Ok(ours), Ok(there)) => identity(ours) == identity(there),
            // Only a missing directory is a removed one.
            (_, Err(error)) => error.kind() != io::ErrorKind::NotFound,
            (Err(_), _) => true,
        }
    }
}

/// What has been removed of the directory, while `up` runs.
#[derive(Default)]
pub struct Removal {
    /// Whether the directory itself is gone.
    pub is_of_directory: bool,
    /// What was said last.
    said: Vec<String>,
}

impl Removal {
    /// Puts back the files that are missing, if the directory is still there. Returns what to say, once.
    pub fn look(&mut self, directory: &RunDirectory, live: &RunningConfig) -> Vec<String> {
        self.is_of_directory = !directory.is_there();
        let lines = match self.is_of_directory {
            true => vec![format!("warning: {}. Requests are still served", directory.removed())],
            false => live.put_back_missing(),
        };
        let is_news = lines != self.said;
        self.said = lines;
        if is_news { self.said.clone() } else { Vec::new() }
    }
}

/// Returns the first of the directories that systemd has made for this service.
fn runtime_directory() -> Option<PathBuf> {
    let all = std::env::var_os("RUNTIME_DIRECTORY")?;
    let first = all.as_encoded_bytes().split(|byte| *byte == b':').next()?;
    let path = PathBuf::from(String::from_utf8(first.to_vec()).ok()?);
    path.is_absolute().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_locked_and_known_by_more_than_its_name() {
        let run = RunDirectory::create().unwrap();
        let path = run.path().to_owned();
        assert!(run.is_there());
        // As systemd-tmpfiles does before it removes something.
        let other = File::open(&path).unwrap();
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        std::fs::rename(&path, path.with_extension("away")).unwrap();
        assert!(!run.is_there());
        std::fs::create_dir(&path).unwrap();
        assert!(!run.is_there());
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(path.with_extension("away"), &path).unwrap();
        assert!(run.is_there());
    }
}
