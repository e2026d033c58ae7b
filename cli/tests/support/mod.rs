//! Helpers of the `render` and `up` tests: the program, scratch directories, and a real Envoy with the module.

// Clippy treats helpers as test code only inside #[test]; not every test uses every helper.
#![allow(clippy::unwrap_used, clippy::panic, dead_code, missing_docs)]

pub mod running;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

pub fn pointsman() -> Command {
    Command::new(env!("CARGO_BIN_EXE_pointsman"))
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned()
}

/// A scratch directory, removed when it is dropped.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new(name: &str) -> Self {
        Self(tempfile::Builder::new().prefix(&format!("pointsman-{name}-")).tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Replaces the scratch path in a message by a fixed one.
    pub fn hide(&self, message: &str) -> String {
        message.replace(&self.0.path().display().to_string(), "HERE")
    }
}

/// Returns a policy over the providers `a` (no key) and `b` (key in `env`).
pub fn policy(env: &str) -> String {
    format!(
        r#"default_task: chat
providers:
  a: {{dialect: openai, local: true, data: regulated}}
  b: {{dialect: openai, data: internal, credential: {{header: authorization, prefix: "Bearer ", env: {env}}}}}
models:
  near: {{provider: a, model: x, level: local, context: 1000, max_output_tokens: 10}}
  far: {{provider: b, model: y, level: mid, context: 1000, max_output_tokens: 10}}
tasks:
  chat: {{primary: near, fallback: [far]}}
tiers:
  pro: {{models: [near, far]}}
tenants:
  acme: {{tier: pro, keys: ["sha256:3a1cdbbac5d6b86d15c4bfb2e6d5bd0c3d2b1a8e6f74d5c6b7a89f0e1d2c3b4a"]}}
"#
    )
}

/// Returns a provider's cluster at a local `port`.
pub fn cluster(name: &str, port: u16) -> String {
    format!(
        "name: {name}\ntype: STATIC\nconnect_timeout: 1s\nload_assignment:\n  \
         cluster_name: {name}\n  endpoints:\n  - lb_endpoints:\n    \
         - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}\n"
    )
}

/// Returns the Envoy to test with. A test that needs one must not pass without it.
pub fn envoy() -> PathBuf {
    let path = std::env::var_os("ENVOY").map_or_else(|| PathBuf::from("envoy"), PathBuf::from);
    match Command::new(&path).arg("--version").output() {
        Ok(output) if output.status.success() => path,
        _ => panic!("no Envoy at {}: set ENVOY to a real one, or run `make test`", path.display()),
    }
}

/// Returns the version of the Envoy to test with, as `1.40`.
pub fn envoy_version() -> String {
    let output = text(&Command::new(envoy()).arg("--version").output().unwrap());
    let number = output.rsplit("version: ").next().unwrap().split('/').nth(1).unwrap();
    number.rsplit_once('.').unwrap().0.to_owned()
}

/// Returns the module. A test that needs it must not pass without it.
pub fn wasm() -> PathBuf {
    let built = root().join("target/wasm32-wasip1/release/pointsman.wasm");
    let path = std::env::var_os("POINTSMAN_WASM").map_or(built, PathBuf::from);
    assert!(path.is_file(), "no module at {}: run `make wasm`, or set POINTSMAN_WASM", path.display());
    path
}
