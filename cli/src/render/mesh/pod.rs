//! What the pods of a mesh's gateway need from Kubernetes: the providers' keys, as files.

use super::image::Image;
use crate::render::credential::{sds_file, secret};
use crate::render::object::is_entry;
use crate::render::yaml::to_yaml;
use pointsman_core::config::Credential;
use pointsman_core::policy::Policy;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The directory in the pods below which everything is mounted.
const DIRECTORY: &str = "/etc/pointsman";

/// The directory in the pods with the rendered files, which hold no key. Everything else is beside it: the directory is
/// a volume, in which no other can be mounted.
pub const RENDERED: &str = "/etc/pointsman/rendered";

/// The keys of a policy's providers, as pods see them.
pub struct Keys {
    /// SDS files by name, which name the files of the keys. Empty if no provider has a key.
    pub sds: Map<String, Value>,
    /// The entries that the Secret must have, and what the policy calls each.
    entries: BTreeMap<String, Source>,
}

/// What a policy calls a key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Variable,
    File(String),
}

impl Keys {
    /// Collects the keys. Each is an entry of the Secret: with the name of the environment variable or of the file that
    /// the policy names. Envoy reads a file again when it changes, and a variable never.
    ///
    /// # Errors
    /// A key that cannot be an entry of the Secret.
    pub fn of(policy: &Policy) -> Result<Self, String> {
        let (mut sds, mut entries) = (Map::new(), BTreeMap::new());
        for provider in policy.providers() {
            let Some(credential) = &provider.credential else { continue };
            let refused = |why: String| format!("providers.{}.credential: {why}", provider.name);
            let mut mounted = credential.clone();
            let (entry, source) = match (mounted.env.take(), mounted.file.take()) {
                (Some(variable), _) => (variable, Source::Variable),
                (None, Some(file)) => (file_of(&file).to_owned(), Source::File(file)),
                (None, None) => {
                    let why = "`sds` names a file of yours, which render mounts into no pod; use `env` or `file`";
                    return Err(refused(why.to_owned()));
                }
            };
            if !is_entry(&entry) {
                let why = format!("\"{entry}\" cannot be the name of an entry in a Secret: letters, digits, - _ and .");
                return Err(refused(why));
            }
            match entries.get(&entry) {
                Some(known) if *known != source => {
                    let why = format!("another provider has a key of the name \"{entry}\" from elsewhere; rename one");
                    return Err(refused(why));
                }
                _ => {}
            }
            mounted.file = Some(format!("{DIRECTORY}/keys/{entry}"));
            entries.insert(entry, source);
            if let Some(text) = sds_text(&provider.name, &mounted) {
                sds.insert(file_of(&sds_file(&provider.name)).to_owned(), text.into());
            }
        }
        Ok(Self { sds, entries })
    }

    /// Returns the volumes and their places. `name`: the ConfigMap is `NAME-sds`, and the Secret `NAME-keys`.
    pub fn volumes(&self, name: &str) -> Vec<Volume> {
        let mut volumes = Vec::new();
        if !self.sds.is_empty() {
            let path = format!("{RENDERED}/{}", sds_file(""));
            volumes.push(Volume::of_config_map(&format!("{name}-sds"), directory_of(&path)));
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

    /// Returns in which order the files are applied if the pods need new mounts, for people: Envoy refuses clusters
    /// whose keys it does not find. `config_maps`: the files of what is mounted. `patch`: what mounts it.
    pub fn order(&self, config_maps: &str, patch: &str) -> Option<String> {
        let line = format!(
            "note: Envoy refuses clusters whose keys it does not find. Apply first that Secret and {config_maps}, then \
             {patch}, and the other files once the pods have the keys (a minute later, if no pod restarts)"
        );
        (!self.entries.is_empty()).then_some(line)
    }

    /// Returns the command that creates the Secret, for people.
    pub fn hint(&self, namespace: &str, name: &str) -> Option<String> {
        if self.entries.is_empty() {
            return None;
        }
        // `$(…)` drops the line break at the end of a file. Envoy before 1.40 would send it with the key.
        let entry = |entry: &String| format!(" --from-literal={entry}=\"$(cat FILE)\"");
        let entries: Vec<_> = self.entries.keys().map(entry).collect();
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
    /// Returns the volume of a ConfigMap, with its name.
    pub fn of_config_map(name: &str, path: &str) -> Self {
        Self { path: path.to_owned(), source: json!({"name": name, "configMap": {"name": name}}) }
    }

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

#[cfg(test)]
mod tests {
    use super::*;
    use pointsman_core::policy::parse;

    fn keys(a: &str, b: &str) -> Result<Vec<String>, String> {
        let provider = |credential: &str| {
            let credential: Value = serde_json::from_str(credential).unwrap();
            json!({"dialect": "openai", "data": "internal", "credential": credential})
        };
        let model =
            |provider: &str| json!({"provider": provider, "model": "m", "context": 1000, "max_output_tokens": 10});
        let hash = format!("sha256:{}", "0a".repeat(32));
        let document = json!({
            "providers": {"a": provider(a), "b": provider(b)},
            "models": {"x": model("a"), "y": model("b")},
            "tasks": {"chat": {"primary": "x", "fallback": ["y"]}},
            "tiers": {"pro": {"models": ["x", "y"]}},
            "tenants": {"acme": {"tier": "pro", "keys": [hash]}},
        });
        let (_, policy) = parse::from_value(&document).unwrap();
        let keys = Keys::of(&policy)?;
        assert_eq!((keys.sds.len(), keys.volumes("p").len()), (2, 2));
        let hint = keys.hint("ai", "p").unwrap();
        Ok(keys
            .entries
            .into_keys()
            .inspect(|entry| assert!(hint.contains(&format!("={entry}=\"$(cat ")), "{hint}"))
            .collect())
    }

    const ENV: &str = r#"{"header": "authorization", "env": "KEY"}"#;

    #[test]
    fn every_key_is_an_entry_of_the_secret_whatever_the_policy_calls_it() {
        let file = r#"{"header": "authorization", "file": "/run/keys/azure"}"#;
        assert_eq!(keys(ENV, file), Ok(vec!["KEY".to_owned(), "azure".to_owned()]));
        assert_eq!(keys(ENV, ENV), Ok(vec!["KEY".to_owned()]));
        assert_eq!(keys(file, file), Ok(vec!["azure".to_owned()]));
    }

    #[test]
    fn a_key_that_no_secret_could_hold_is_refused() {
        for (credential, said) in [
            (r#"{"header": "authorization", "sds": "/etc/sds.yaml"}"#, "providers.b.credential: `sds` names a file"),
            (r#"{"header": "authorization", "file": "/run/KEY"}"#, "another provider has a key of the name \"KEY\""),
            (r#"{"header": "authorization", "file": "/run/my key"}"#, "\"my key\" cannot be the name of an entry"),
        ] {
            let refused = keys(ENV, credential).unwrap_err();
            assert!(refused.contains(said), "{refused}");
        }
    }
}
