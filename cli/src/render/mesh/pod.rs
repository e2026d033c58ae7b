//! What the pods of a mesh's gateway need from Kubernetes: the providers' keys, as files.

use super::image::Image;
use crate::render::credential::{sds_file, secret};
use crate::render::yaml::to_yaml;
use pointsman_core::config::Credential;
use pointsman_core::policy::Policy;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The directory in the pods below which everything is mounted.
const DIRECTORY: &str = "/etc/pointsman";

/// The directory in the pods with the rendered files, which hold no key. Everything else is beside it: the directory is
/// a volume, in which no other can be mounted.
pub const RENDERED: &str = "/etc/pointsman/rendered";

/// The keys of a policy's providers, as pods see them.
pub struct Keys {
    /// SDS files by name, which name the files of the keys. Empty if no provider has a key.
    pub sds: Map<String, Value>,
    /// The entries that the Secret must have.
    pub entries: BTreeSet<String>,
}

impl Keys {
    /// Collects the keys. What the policy names as an environment variable is an entry of the Secret: Envoy reads a
    /// file again when it changes, and a variable never.
    pub fn of(policy: &Policy) -> Self {
        let (mut sds, mut entries) = (Map::new(), BTreeSet::new());
        for provider in policy.providers() {
            let Some(credential) = &provider.credential else { continue };
            let mut mounted = credential.clone();
            if let Some(variable) = mounted.env.take() {
                mounted.file = Some(format!("{DIRECTORY}/keys/{variable}"));
                entries.insert(variable);
            }
            if let Some(text) = sds_text(&provider.name, &mounted) {
                sds.insert(file_of(&sds_file(&provider.name)).to_owned(), text.into());
            }
        }
        Self { sds, entries }
    }

    /// Returns the volumes and their places. `name`: the ConfigMap is `NAME-sds`, and the Secret `NAME-keys`.
    pub fn volumes(&self, name: &str) -> Vec<Volume> {
        let mut volumes = Vec::new();
        if !self.sds.is_empty() {
            let name = format!("{name}-sds");
            volumes.push(Volume {
                path: directory_of(&format!("{RENDERED}/{}", sds_file(""))).to_owned(),
                source: json!({"name": name, "configMap": {"name": name}}),
            });
        }
        if !self.entries.is_empty() {
            let name = format!("{name}-keys");
            volumes.push(Volume {
                path: format!("{DIRECTORY}/keys"),
                source: json!({"name": name, "secret": {"secretName": name}}),
            });
        }
        volumes
    }

    /// Returns the command that creates the Secret, for people.
    pub fn hint(&self, namespace: &str, name: &str) -> Option<String> {
        if self.entries.is_empty() {
            return None;
        }
        let entries: Vec<_> = self.entries.iter().map(|entry| format!(" --from-literal={entry}=…")).collect();
        Some(format!(
            "note: the keys come from a Secret of yours: kubectl -n {namespace} create secret generic {name}-keys{}",
            entries.concat()
        ))
    }
}

fn directory_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(directory, _)| directory)
}

/// The keys of a ConfigMap are names of files.
fn file_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, file)| file)
}

fn sds_text(provider: &str, credential: &Credential) -> Option<String> {
    secret(provider, credential).map(|secret| to_yaml(&json!({"resources": [secret]})))
}

/// A volume of a pod.
#[derive(Clone)]
pub struct Volume {
    /// The directory at which it is mounted.
    path: String,
    /// The volume, with its name.
    source: Value,
}

impl Volume {
    /// Returns the volume with the files of an image, which Kubernetes mounts from 1.33 on.
    pub fn of_image(name: &str, image: &Image) -> Self {
        let source = json!({"reference": image.reference(), "pullPolicy": "IfNotPresent"});
        Self { path: format!("{DIRECTORY}/module"), source: json!({"name": format!("{name}-module"), "image": source}) }
    }

    /// Returns the path of a file in the volume.
    pub fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// Returns the volume.
    pub fn volume(&self) -> Value {
        self.source.clone()
    }

    /// Returns its mount.
    pub fn mount(&self) -> Value {
        let name = self.source.get("name").cloned().unwrap_or_default();
        json!({"name": name, "mountPath": self.path, "readOnly": true})
    }
}
