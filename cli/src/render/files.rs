//! The rendered files. Each is replaced atomically, so Envoy never reads a partial file.

use super::credential::is_sds_file;
use super::yaml::{is_literal, to_yaml};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Files by path below the output directory.
#[derive(Debug)]
pub struct Files {
    command: String,
    texts: BTreeMap<String, String>,
}

/// Returns the text of a file that holds `clusters`.
pub fn cds(command: &str, clusters: &BTreeMap<String, Value>) -> String {
    discovery(command, clusters.values().cloned().collect())
}

fn discovery(command: &str, resources: Vec<Value>) -> String {
    let resources = Value::Array(resources);
    let version: String = Sha256::digest(resources.to_string()).iter().take(6).map(|b| format!("{b:02x}")).collect();
    document(command, &json!({"version_info": version, "resources": resources}))
}

fn document(command: &str, document: &Value) -> String {
    format!("{}{}", head(command), to_yaml(document))
}

fn head(command: &str) -> String {
    // A character that ends the line for some reader would end the comment.
    let command: String = command.chars().map(|c| if is_literal(c) { c } else { ' ' }).collect();
    format!("{HEAD}\n#   {command}\n")
}

/// The first line of each file.
const HEAD: &str = "# Generated file. To change it, edit the policy or the provider files and run:";

/// Returns whether a text is that of a file that [`Files`] wrote.
pub fn is_generated(text: &str) -> bool {
    text.strip_prefix(HEAD).is_some_and(|rest| rest.starts_with("\n#   pointsman "))
}

impl Files {
    /// Creates an empty set. `command`: the command that renders the files, for their header.
    pub fn new(command: &str) -> Self {
        Self { command: command.to_owned(), texts: BTreeMap::new() }
    }

    /// Adds a file of resources that Envoy watches. Its version is a hash of its content.
    pub fn discovery(&mut self, path: &str, resources: Vec<Value>) {
        self.texts.insert(path.to_owned(), discovery(&self.command, resources));
    }

    /// Adds a file.
    pub fn document(&mut self, path: &str, tree: &Value) {
        self.texts.insert(path.to_owned(), document(&self.command, tree));
    }

    /// Adds a file with a comment of one or more lines about its object.
    pub fn commented(&mut self, path: &str, comment: &str, tree: &Value) {
        let comment: String = comment.lines().map(|line| format!("# {line}\n")).collect();
        self.texts.insert(path.to_owned(), format!("{}{comment}{}", head(&self.command), to_yaml(tree)));
    }

    /// Adds a file as it is.
    pub fn text(&mut self, path: &str, text: String) {
        self.texts.insert(path.to_owned(), text);
    }

    /// Returns the text of a file.
    pub fn get(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// Iterates over paths and texts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Writes the files that have changed, in an order that is safe for a running Envoy: a file comes after those that
    /// it refers to.
    ///
    /// # Errors
    /// The first file that could not be written.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let rank = |path: &str| match path {
            secret if is_sds_file(secret) => 0,
            "cds.yaml" => 1,
            "rds.yaml" => 2,
            "ecds.yaml" => 3,
            _ => 4,
        };
        let mut files: Vec<_> = self.iter().collect();
        files.sort_by_key(|(path, _)| rank(path));
        for (path, text) in files {
            let path = directory.join(path);
            if std::fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
                continue;
            }
            replace(&path, text)?;
        }
        Ok(())
    }
}

/// Replaces a file atomically, by a rename: Envoy watches for renames.
///
/// # Errors
/// The file name and the reason.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).map_err(named)?;
    }
    write_beside(path, text).map_err(named)
}

/// Writes a temporary file beside the old one and renames it. Leaves nothing behind on failure.
fn write_beside(path: &Path, text: &str) -> io::Result<()> {
    // Like any new file: the umask decides who may read it, since Envoy may run as another user.
    let mode = std::fs::Permissions::from_mode(0o666);
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().permissions(mode).tempfile_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.persist(path).map(drop).map_err(|e| e.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_stays_in_its_comment() {
        let head = |command: &str| document(command, &json!({"a": 1}));
        let expected = format!("{HEAD}\n#   pointsman render --policy é.yaml x: 1\na: 1\n");
        for end in ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}', '\u{feff}', ' '] {
            assert_eq!(head(&format!("pointsman render --policy é.yaml{end}x: 1")), expected);
        }
    }
}
