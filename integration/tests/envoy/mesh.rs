//! A mesh that serves what `pointsman render` wrote. The patches, applied as the control plane applies them to the
//! listeners that it makes, give a real Envoy the gateway, and leave the mesh's own traffic as it was.

mod envoy_gateway;
mod istio;
mod traffic;

use pointsman_integration::environment;
use pointsman_integration::gateway::{cluster, key_hash};
use pointsman_integration::simulator::Simulator;
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

const POLICY: &str = include_str!("mesh/policy.yaml");
const DIGEST: &str = "sha256:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// Returns the minor version of the mesh that ships the Envoy under test. `first`: the one that ships Envoy 1.36. What
/// no mesh ships yet stands in for the last.
fn minor(first: u32) -> u32 {
    let (_, envoy) = environment::envoy_version();
    first + envoy.min(39) - 36
}

/// Renders a policy into a new directory below `directory`. In it, `<sk-NAME>` stands for the hash of that key.
fn render(directory: &Path, simulator: &Simulator, policy: &str, name: &str, log: &Path, flags: &[&str]) -> PathBuf {
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    };
    let hashed = policy.split("<sk-").enumerate().map(|(i, part)| match (i, part.split_once('>')) {
        (1.., Some((key, rest))) => format!("\"{}\"{rest}", key_hash(&format!("sk-{key}"))),
        _ => part.to_owned(),
    });
    let policy = write(&format!("{name}.yaml"), &hashed.collect::<String>());
    for provider in ["openai", "vllm"] {
        write(&format!("providers/{provider}.yaml"), &cluster(provider, simulator.address(provider), ""));
    }
    let out = directory.join(name);
    let mut render = Command::new(environment::program("pointsman"));
    render.arg("render").args(["--image", "registry.example.com/pointsman", "--image-digest", DIGEST]).args(flags);
    let providers = directory.join("providers");
    for (flag, path) in [("--policy", &policy), ("--providers", &providers), ("--out", &out)] {
        render.arg(flag).arg(path);
    }
    let output = render.arg("--access-log").arg(log).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    out
}

/// Returns the cluster that a control plane makes for the site.
fn site(name: &str, address: SocketAddr) -> Value {
    let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
    let endpoint = json!({"endpoint": {"address": {"socket_address": socket}}});
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "10s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}
