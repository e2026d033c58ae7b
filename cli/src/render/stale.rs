//! Removes what an earlier rendering has left in the directory and this one does not have: Kubernetes would be given a
//! Service that no host has any longer, Envoy a key that no provider has.

use super::credential::is_sds_file;
use super::files::{self, Files};
use super::yaml::is_literal;
use crate::document;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};

/// The names under which `render` writes files, for any target, besides those of secrets. Only these are removed, and
/// only if the file says that `render` wrote it: a copy under another name belongs to the operator.
const NAMES: [&str; 21] = [
    "bootstrap.yaml",
    "cds.yaml",
    "clienttrafficpolicy.yaml",
    "configmap-bootstrap.yaml",
    "configmap-gateway.yaml",
    "configmap-sds.yaml",
    "destinationrule.yaml",
    "ecds.yaml",
    "envoyfilter-clusters.yaml",
    "envoyfilter.yaml",
    "envoypatchpolicy.yaml",
    "envoyproxy.yaml",
    "gateway.yaml",
    "httproute.yaml",
    "httproutefilter.yaml",
    "patch/deployment.yaml",
    "patch/gateway.yaml",
    "rds.yaml",
    "service.yaml",
    "validate.yaml",
    "virtualservice.yaml",
];

/// Removes from `directory` the files of an earlier rendering that `files` does not have. Returns a line for each.
///
/// # Errors
/// The file that could not be read or removed.
pub fn remove(files: &Files, directory: &Path) -> io::Result<Vec<String>> {
    let mut said = Vec::new();
    for name in candidates(directory)? {
        if files.get(&name).is_some() {
            continue;
        }
        let path = directory.join(&name);
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) if files::is_generated(&text) => text,
            Ok(_) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(named(error)),
        };
        std::fs::remove_file(&path).map_err(named)?;
        said.push(line(&path, &text));
        if path.parent() != Some(directory) {
            // Only if nothing else is in it.
            path.parent().map(std::fs::remove_dir);
        }
    }
    Ok(said)
}

fn candidates(directory: &Path) -> io::Result<Vec<String>> {
    let mut names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    for entry in std::fs::read_dir(directory)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if is_sds_file(&name) && PathBuf::from(&name).extension().is_some_and(|extension| extension == "yaml") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Says what was removed, and how to delete the object that was made from it.
fn line(path: &Path, text: &str) -> String {
    let removed = format!("removed {}, which an earlier rendering wrote", path.display());
    match Object::of(text) {
        Some(object) => format!("{removed}; if it was applied: {}", object.deletion()),
        None => removed,
    }
}

/// Returns a line for each file of an earlier rendering that `files` replaces by another object: the old one stays in
/// the cluster. To be called before the files are written.
pub fn replaced(files: &Files, directory: &Path) -> Vec<String> {
    let mut said = Vec::new();
    for (name, text) in files.iter() {
        let path = directory.join(name);
        let old = std::fs::read_to_string(&path).ok().filter(|old| files::is_generated(old));
        let Some(old) = old.and_then(|old| Object::of(&old)) else { continue };
        if Object::of(text).as_ref() != Some(&old) {
            let replaced = format!("replaced {}, in which an earlier rendering had another object", path.display());
            said.push(format!("{replaced}; if that was applied: {}", old.deletion()));
        }
    }
    said
}

/// Refuses outputs that are neither regular files nor absent, before anything is written.
///
/// # Errors
/// The first such path.
pub fn check(files: &Files, directory: &Path) -> io::Result<()> {
    for (name, _) in files.iter() {
        let path = directory.join(name);
        // A symbolic link is replaced, whatever it leads to.
        match std::fs::symlink_metadata(&path) {
            Ok(found) if !found.is_file() && !found.is_symlink() => {
                let message = format!("{} is not a regular file; remove it or set another --out", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What names an object in a cluster.
#[derive(PartialEq, Eq)]
struct Object {
    kind: String,
    namespace: String,
    name: String,
}

impl Object {
    fn of(text: &str) -> Option<Self> {
        let object = document::from_yaml(text).ok()?;
        let of = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        Some(Self { kind: of("/kind")?, namespace: of("/metadata/namespace")?, name: of("/metadata/name")? })
    }

    fn deletion(&self) -> String {
        let (namespace, kind, name) = (&self.namespace, self.kind.to_lowercase(), &self.name);
        format!("kubectl -n {} delete {} {}", word(namespace), word(&kind), word(name))
    }
}

/// Returns a word as a shell reads it. The file may have been changed since it was written.
fn word(text: &str) -> String {
    let is_plain = !text.is_empty()
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    let shown: String = text.chars().map(|c| if is_literal(c) { c } else { ' ' }).collect();
    if is_plain { text.to_owned() } else { format!("'{}'", shown.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_for_the_shell() {
        let deletion = |name: &str| {
            let text = format!("kind: Service\nmetadata:\n  namespace: ai\n  name: {}\n", Value::from(name));
            Object::of(&text).unwrap().deletion()
        };
        assert_eq!(deletion("llm-1.x"), "kubectl -n ai delete service llm-1.x");
        assert_eq!(deletion("x; rm -rf ~"), "kubectl -n ai delete service 'x; rm -rf ~'");
        assert_eq!(deletion("it's\n$(x)"), r"kubectl -n ai delete service 'it'\''s $(x)'");
        assert_eq!(deletion("--all"), "kubectl -n ai delete service '--all'");
        assert!(Object::of("kind: Service\n").is_none());
    }
}
