//! What of an earlier rendering stays, so that a running Envoy can be moved from one policy to the next: requests of
//! the old policy still need its clusters.

use super::credential::is_sds_file;
use super::files::Files;
use crate::document::{self, InvalidDocument};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Adds to a rendering the clusters and secrets of an earlier one, in `directory`, that it does not have. `clusters`:
/// those that it has.
///
/// # Errors
/// The file that cannot be read.
pub fn add(files: &mut Files, clusters: BTreeMap<String, Value>, directory: &Path) -> io::Result<()> {
    let mut all = before(&directory.join("cds.yaml"))?;
    all.extend(clusters);
    files.discovery("cds.yaml", all.into_values().collect());
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if is_sds_file(name) && files.get(name).is_none() {
            files.text(name, std::fs::read_to_string(&path).map_err(named(&path))?);
        }
    }
    Ok(())
}

/// Returns the clusters of a rendered file by name.
fn before(path: &Path) -> io::Result<BTreeMap<String, Value>> {
    let text = std::fs::read_to_string(path).map_err(named(path))?;
    let invalid = |message: &str| io::Error::other(format!("{}: {message}", path.display()));
    let document = document::from_yaml(&text).map_err(|InvalidDocument { message, .. }| invalid(&message))?;
    let resources = document.get("resources").and_then(Value::as_array);
    let resources = resources.ok_or_else(|| invalid("not a file of clusters that `render` wrote"))?;
    let name = |cluster: &Value| cluster.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(resources.iter().map(|cluster| (name(cluster), cluster.clone())).collect())
}

fn named(path: &Path) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
