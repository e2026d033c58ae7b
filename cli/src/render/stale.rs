//! Removes what an earlier rendering has left in the directory and this one does not have: Kubernetes would be given a
//! Service that no host has any longer, Envoy a key that no provider has.

use super::credential::is_sds_file;
use super::files::{self, Files};
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
    let Ok(object) = document::from_yaml(text) else { return removed };
    let of = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    match (of("/kind"), of("/metadata/namespace"), of("/metadata/name")) {
        (Some(kind), Some(namespace), Some(name)) => {
            format!("{removed}; if it was applied: kubectl -n {namespace} delete {} {name}", kind.to_lowercase())
        }
        _ => removed,
    }
}
