//! A directory laid out as Kubernetes' kubelet mounts a ConfigMap or a Secret, and changed as it changes one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A mounted volume: each file is a symbolic link through the link `..data` to a hidden directory.
///
/// A change writes another hidden directory and renames a new link over `..data`. No file that a program opens is
/// itself renamed. The link of a file that is new may come later than the file. (Kubernetes,
/// pkg/volume/util/atomic_writer.go.)
pub struct Mounted {
    path: PathBuf,
    version: u32,
    current: BTreeMap<String, String>,
}

impl Mounted {
    /// Mounts a volume with these files at `path`.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn at(path: PathBuf, files: BTreeMap<String, String>) -> Self {
        fs::create_dir_all(&path).expect("makes a directory");
        let mut mounted = Self { path, version: 0, current: BTreeMap::new() };
        mounted.replace(files);
        mounted
    }

    /// Returns the files and their texts.
    pub fn files(&self) -> BTreeMap<String, String> {
        self.current.clone()
    }

    /// Replaces all files by these.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn replace(&mut self, files: BTreeMap<String, String>) {
        let before = self.hidden();
        self.version += 1;
        let now = self.hidden();
        fs::create_dir(self.path.join(&now)).expect("makes a directory");
        for (name, text) in &files {
            fs::write(self.path.join(&now).join(name), text).expect("writes a file");
        }
        let (link, new_link) = (self.path.join("..data"), self.path.join("..data_tmp"));
        symlink(&now, &new_link).expect("makes a link");
        fs::rename(new_link, link).expect("renames a link");
        let is_new = |name: &&String| !self.current.contains_key(*name);
        if self.version > 1 && files.keys().any(|name| is_new(&name)) {
            // Long enough for a program that watches `..data` to look for the new file in vain.
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        for name in files.keys().filter(is_new) {
            symlink(Path::new("..data").join(name), self.path.join(name)).expect("makes a link");
        }
        for name in self.current.keys().filter(|name| !files.contains_key(*name)) {
            fs::remove_file(self.path.join(name)).expect("removes a link");
        }
        if self.version > 1 {
            fs::remove_dir_all(self.path.join(before)).expect("removes a directory");
        }
        self.current = files;
    }

    fn hidden(&self) -> String {
        format!("..2026_11_30_12_00_00.{:09}", self.version)
    }
}

/// Returns the files of a directory, by name, without those in its directories: what `kubectl create configmap
/// --from-file=DIRECTORY` takes.
///
/// # Panics
/// If one cannot be read, or is not text.
pub fn files_of(directory: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(directory).expect("reads a directory");
    let paths = entries.map(|entry| entry.expect("reads a directory").path()).filter(|path| path.is_file());
    paths
        .map(|path| {
            let name = path.file_name().expect("has a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("reads a file"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_by_its_name_and_only_the_link_to_the_data_changes() {
        let directory = tempfile::tempdir().expect("makes a directory");
        let path = directory.path().join("volume");
        let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut mounted = Mounted::at(path.clone(), of(&[("a", "1"), ("b", "1")]));
        let link = fs::read_link(path.join("a")).expect("is a link");
        assert_eq!(link, Path::new("..data/a"));
        mounted.replace(of(&[("a", "2"), ("c", "2")]));
        assert_eq!(fs::read_to_string(path.join("a")).expect("reads"), "2");
        assert_eq!(fs::read_link(path.join("a")).expect("is a link"), link);
        assert!(path.join("c").exists() && !path.join("b").exists());
        assert_eq!(files_of(&path).keys().collect::<Vec<_>>(), ["a", "c"]);
    }
}
