//! A directory in the OCI image layout: blobs by their digest, and an index of what they make up.
//!
//! <https://github.com/opencontainers/image-spec/blob/main/image-layout.md>

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The media type of a manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A layout that is being written.
pub struct Layout {
    directory: PathBuf,
    manifests: Vec<Value>,
}

/// Returns the digest of some bytes, as descriptors have it.
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Layout {
    /// Makes an empty layout. Removes the one that was there; never removes anything else.
    ///
    /// # Errors
    /// The system's, or that the directory holds something else.
    pub fn create(directory: &Path) -> io::Result<Self> {
        if directory.exists() {
            let is_empty = fs::read_dir(directory)?.next().is_none();
            if !is_empty && !directory.join("oci-layout").exists() {
                return Err(io::Error::other("is not an OCI layout; remove it, or choose another directory"));
            }
            fs::remove_dir_all(directory)?;
        }
        fs::create_dir_all(directory.join("blobs/sha256"))?;
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Self { directory: directory.to_owned(), manifests: Vec::new() })
    }

    /// Writes a blob and returns its descriptor.
    ///
    /// # Errors
    /// The system's.
    pub fn blob(&mut self, media_type: &str, bytes: &[u8]) -> io::Result<Value> {
        let digest = digest(bytes);
        let name = digest.trim_start_matches("sha256:");
        fs::write(self.directory.join("blobs/sha256").join(name), bytes)?;
        Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
    }

    /// Writes a manifest, gives it a tag, and returns its digest.
    ///
    /// # Errors
    /// The system's.
    pub fn add(&mut self, tag: &str, manifest: &Manifest) -> io::Result<String> {
        let text = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": manifest.config,
            "layers": manifest.layers,
            "annotations": manifest.annotations,
        });
        let text = text.to_string();
        let mut descriptor = self.blob(MANIFEST, text.as_bytes())?;
        if let Some(members) = descriptor.as_object_mut() {
            members.insert("annotations".to_owned(), json!({"org.opencontainers.image.ref.name": tag}));
        }
        self.manifests.push(descriptor);
        Ok(digest(text.as_bytes()))
    }

    /// Writes the index.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(self) -> io::Result<()> {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": self.manifests,
        });
        fs::write(self.directory.join("index.json"), index.to_string())
    }
}

/// What an image consists of: descriptors of blobs that are in the layout.
pub struct Manifest {
    /// Its configuration.
    pub config: Value,
    /// Its layers.
    pub layers: Vec<Value>,
    /// Its annotations.
    pub annotations: Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_layout_is_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("image");
        Layout::create(&path).unwrap().finish().unwrap();
        fs::write(path.join("blobs/sha256/old"), "").unwrap();
        Layout::create(&path).unwrap();
        assert!(!path.join("blobs/sha256/old").exists());
        let other = scratch.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("file"), "").unwrap();
        assert!(Layout::create(&other).is_err() && other.join("file").exists());
    }
}
