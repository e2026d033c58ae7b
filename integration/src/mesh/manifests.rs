//! Rendered manifests, as the API server stores them and the kubelet mounts their files.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The manifests of a directory. What `kubectl apply -f` would not take, because it is deeper, is not among them.
pub struct Manifests {
    directory: PathBuf,
    objects: Vec<Value>,
}

/// A directory of a pod, and where it is in the test.
#[derive(Debug, Clone)]
pub struct Mounted {
    /// The path in the pod.
    pub in_pod: String,
    /// The path in the test.
    pub here: PathBuf,
}

impl Manifests {
    /// Reads a directory.
    pub fn read(directory: &Path) -> Self {
        let mut paths: Vec<_> = fs::read_dir(directory).expect("is a directory").map(|e| e.unwrap().path()).collect();
        paths.sort();
        let objects: Vec<Value> = paths.iter().filter(|path| path.is_file()).map(|path| read(path)).collect();
        for object in &objects {
            assert!(object["apiVersion"].is_string() && object["kind"].is_string(), "{object}");
        }
        Self { directory: directory.to_owned(), objects }
    }

    /// Returns the objects of a kind.
    pub fn of_kind(&self, kind: &str) -> Vec<Value> {
        self.objects.iter().filter(|object| object["kind"] == kind).cloned().collect()
    }

    /// Returns the only object of a kind.
    pub fn only(&self, kind: &str) -> Value {
        let all = self.of_kind(kind);
        assert_eq!(all.len(), 1, "{kind}: {all:?}");
        all.into_iter().next().expect("there is one")
    }

    /// Returns a file of the ConfigMap with this name.
    pub fn config(&self, name: &str, file: &str) -> String {
        let map = self.config_map(name);
        map["data"][file].as_str().unwrap_or_else(|| panic!("no {file} in {map}")).to_owned()
    }

    /// Returns a patch, which is below the directory.
    pub fn patch(&self, file: &str) -> Value {
        read(&self.directory.join(file))
    }

    fn config_map(&self, name: &str) -> Value {
        let is = |map: &Value| map["metadata"]["name"] == name;
        self.of_kind("ConfigMap").into_iter().find(is).unwrap_or_else(|| panic!("no ConfigMap {name}"))
    }

    /// Mounts volumes below a directory of the test: ConfigMaps of these manifests, Secrets with these `secrets`, and
    /// images with the module alone.
    pub fn mount(
        &self,
        volumes: &Value,
        mounts: &Value,
        secrets: &[(&str, &str)],
        module: &Path,
        into: &Path,
    ) -> Vec<Mounted> {
        let volumes = volumes.as_array().cloned().unwrap_or_default();
        let mount = |mount: &Value| {
            let name = mount["name"].as_str().expect("a mount has a name");
            assert_eq!(mount["readOnly"], true, "{mount}");
            let volume = volumes.iter().find(|volume| volume["name"] == name).expect("a mount has a volume");
            let here = into.join(name);
            fs::create_dir_all(&here).expect("makes a directory");
            let write = |file: &str, text: &str| fs::write(here.join(file), text).expect("writes a file");
            if let Some(map) = volume["configMap"]["name"].as_str() {
                for (file, text) in self.config_map(map)["data"].as_object().expect("is a mapping") {
                    write(file, text.as_str().expect("is text"));
                }
            } else if volume["secret"]["secretName"].is_string() {
                secrets.iter().for_each(|(file, text)| write(file, text));
            } else if volume["image"]["reference"].is_string() {
                fs::copy(module, here.join("plugin.wasm")).expect("copies the module");
            } else {
                panic!("unknown kind of volume: {volume}");
            }
            Mounted { in_pod: mount["mountPath"].as_str().expect("has a path").to_owned(), here }
        };
        let mounted: Vec<_> = mounts.as_array().into_iter().flatten().map(mount).collect();
        // The files name each other by their paths in the pod.
        for at in &mounted {
            for entry in fs::read_dir(&at.here).expect("is a directory") {
                let path = entry.expect("is a file").path();
                if path.extension().is_some_and(|extension| extension == "yaml") {
                    let text = fs::read_to_string(&path).expect("is text");
                    fs::write(&path, in_test(&text, &mounted)).expect("writes a file");
                }
            }
        }
        mounted
    }
}

/// Replaces the directories of the pod with those of the test.
pub fn in_test(text: &str, mounted: &[Mounted]) -> String {
    let replaced = |text: String, at: &Mounted| text.replace(&at.in_pod, &at.here.display().to_string());
    mounted.iter().fold(text.to_owned(), replaced)
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
