//! The OCI image of the module: the same bytes each time, through a registry and back, and of the form that Istio's
//! agent and Envoy Gateway fetch.

use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::environment;
use pointsman_integration::port::Port;
use pointsman_integration::process::{self, Process};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; run `make test`"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Packs the module under test. Returns what is printed: a digest and a reference for each variant.
fn pack(layout: &Path) -> Vec<(String, String)> {
    let mut command = Command::new(environment::program("pointsman-image"));
    command.args(["--tag", "1.2.3", "--wasm"]).arg(environment::wasm()).arg("--out").arg(layout);
    let printed = run(&mut command);
    let pair = |line: &str| line.split_once("  ").map(|(digest, reference)| (digest.to_owned(), reference.to_owned()));
    printed.lines().map(|line| pair(line).unwrap()).collect()
}

/// Every file of a layout, by its path.
fn files(layout: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![layout.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => open.push(path),
                false => found.push((path.strip_prefix(layout).unwrap().to_owned(), fs::read(&path).unwrap())),
            }
        }
    }
    found.sort();
    found
}

/// A registry on a port of its own.
struct Registry {
    port: Port,
    _process: Process,
}

impl Registry {
    fn start() -> Self {
        let (directory, port) = (process::directory(), Port::reserve());
        let storage = directory.join("storage");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"{}\"}}\n",
            storage.display(),
            port.address
        );
        let file = directory.join("registry.yml");
        fs::write(&file, config).unwrap();
        let arguments = ["serve".as_ref(), file.as_os_str()];
        let process = Process::start(Path::new("docker-registry"), arguments, &[], Some(&directory));
        await_true("the registry", || {
            assert!(process.is_running(), "{:#?}", process.lines());
            TcpStream::connect(port.address).is_ok()
        });
        Self { port, _process: process }
    }

    fn reference(&self, tag: &str) -> String {
        format!("docker://{}/pointsman:{tag}", self.port.address)
    }

    /// Returns a manifest and its digest, as a puller gets them.
    fn manifest(&self, reference: &str) -> (Value, String) {
        let accept = "application/vnd.oci.image.manifest.v1+json,application/vnd.docker.distribution.manifest.v2+json";
        let call = Call::new("GET", &format!("/v2/pointsman/manifests/{reference}")).header("accept", accept);
        let answer = call.send(self.port.address);
        assert_eq!(answer.status, 200, "{}", answer.text());
        (answer.json(), digest(&answer.body))
    }

    fn blob(&self, descriptor: &Value) -> Vec<u8> {
        let digest = descriptor["digest"].as_str().unwrap();
        let answer = Call::new("GET", &format!("/v2/pointsman/blobs/{digest}")).send(self.port.address);
        assert_eq!((answer.status, answer.body.len() as u64), (200, descriptor["size"].as_u64().unwrap()));
        assert_eq!(self::digest(&answer.body), digest);
        answer.body
    }

    /// Fetches the module as Istio's agent (pkg/wasm/imagefetcher.go) and Envoy Gateway (internal/wasm/imagefetcher.go)
    /// do: from the last layer if that is an ordinary one, and else from the layer of the module's own type.
    fn fetch(&self, manifest: &Value) -> Result<Vec<u8>, String> {
        const ORDINARY: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
        const OWN: &str = "application/vnd.module.wasm.content.layer.v1+wasm";
        let layers = manifest["layers"].as_array().unwrap();
        if manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json" {
            return Err("a Docker manifest must have Docker's layers".to_owned());
        }
        let last = layers.last().ok_or("no layer")?;
        if last["mediaType"] == ORDINARY {
            return member(&self.blob(last), "plugin.wasm").ok_or("no plugin.wasm".to_owned());
        }
        if layers.len() != 2 {
            return Err(format!("{} layers, not two", layers.len()));
        }
        let own = layers.iter().find(|layer| layer["mediaType"] == OWN).ok_or("no layer of the module's type")?;
        Ok(self.blob(own))
    }
}

/// Returns a file of a compressed archive.
fn member(archive: &[u8], name: &str) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("layer.tar.gz");
    fs::write(&file, archive).unwrap();
    let output = Command::new("tar").arg("-xzOf").arg(file).arg(name).stderr(Stdio::null()).output().unwrap();
    output.status.success().then_some(output.stdout)
}

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[test]
#[ignore = "needs the module: make test"]
fn the_same_module_gives_the_same_image() {
    let scratch = tempfile::tempdir().unwrap();
    let (one, other) = (scratch.path().join("one"), scratch.path().join("other"));
    let digests = |layout| pack(layout).into_iter().map(|(digest, _)| digest).collect::<Vec<_>>();
    assert_eq!(digests(&one), digests(&other));
    assert_eq!(files(&one), files(&other));
    // Again in the same place: nothing of the first is left.
    pack(&one);
    assert_eq!(files(&one), files(&other));
    for (path, bytes) in files(&one) {
        if let Some(name) = path.to_str().unwrap().strip_prefix("blobs/sha256/") {
            assert_eq!(digest(&bytes), format!("sha256:{name}"));
        }
    }
}

#[test]
#[ignore = "needs the module, skopeo and docker-registry: make test"]
fn it_goes_through_a_registry_and_back_with_its_digest_and_the_layer_that_meshes_fetch() {
    let registry = Registry::start();
    let scratch = tempfile::tempdir().unwrap();
    let layout = scratch.path().join("image");
    let module = fs::read(environment::wasm()).unwrap();
    let images = pack(&layout);
    let tags: Vec<&str> = images.iter().map(|(_, reference)| reference.rsplit_once(':').unwrap().1).collect();
    assert_eq!(tags, ["1.2.3", "1.2.3-oci"]);
    for ((digest, reference), tag) in images.iter().zip(tags) {
        let copy = |options: &[&str], from: &str, to: &str| {
            run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q"]).args(options).args([from, to]))
        };
        copy(&["--dest-tls-verify=false"], reference, &registry.reference(tag));
        // By its tag, and by the digest that `make image` printed.
        for by in [tag, digest] {
            let (manifest, pushed) = registry.manifest(by);
            assert_eq!(&pushed, digest);
            assert!(registry.fetch(&manifest).unwrap() == module, "not the module");
        }
        let back = format!("oci:{}:{tag}", scratch.path().join("back").display());
        copy(&["--src-tls-verify=false"], &registry.reference(tag), &back);
        let manifest = run(Command::new("skopeo").args(["inspect", "--raw", &back]));
        assert_eq!(&self::digest(manifest.as_bytes()), digest);
    }
    // Another file in the layer would not be found.
    let (mut manifest, _) = registry.manifest("1.2.3");
    assert_eq!(member(&registry.blob(&manifest["layers"][0]), "pointsman.wasm"), None);
    manifest["layers"][0]["mediaType"] = "application/vnd.oci.image.layer.v1.tar".into();
    assert_eq!(registry.fetch(&manifest), Err("1 layers, not two".to_owned()));
}
