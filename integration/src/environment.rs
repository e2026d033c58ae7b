//! Locates the programs under test by the environment variables that `make test` sets.

use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;

/// Returns the path in an environment variable.
///
/// # Panics
/// If the variable is unset or the path does not exist.
pub fn path(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable)
        .map(PathBuf::from)
        .unwrap_or_else(|| panic!("{variable} is not set, so there is nothing to test: run `make test`"));
    assert!(path.exists(), "{variable} names {}, which does not exist: run `make test`", path.display());
    path
}

/// Returns the path of one of the project's own programs.
pub fn program(name: &str) -> PathBuf {
    let path = path("POINTSMAN_BIN").join(name);
    assert!(path.exists(), "{} does not exist: run `make test`", path.display());
    path
}

/// Returns the path of the Envoy under test.
pub fn envoy() -> PathBuf {
    path("ENVOY")
}

/// Returns the path of the module under test.
pub fn wasm() -> PathBuf {
    path("POINTSMAN_WASM")
}

/// Returns the first of two amounts of load, or the second in `make test-long`, which sets `POINTSMAN_LONG`.
pub fn load(usual: u64, long: u64) -> u64 {
    if std::env::var_os("POINTSMAN_LONG").is_some() { long } else { usual }
}

/// Returns the major and minor version of the Envoy under test.
pub fn envoy_version() -> (u32, u32) {
    static VERSION: LazyLock<(u32, u32)> = LazyLock::new(|| {
        let output = Command::new(envoy()).arg("--version").output().expect("runs envoy --version");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // "…/envoy  version: 0a1b…/1.40.0/Clean/RELEASE/BoringSSL"
        let numbers = text.split('/').find_map(|part| {
            let mut numbers = part.split('.').map(str::parse);
            match (numbers.next(), numbers.next(), numbers.next()) {
                (Some(Ok(major)), Some(Ok(minor)), Some(_)) => Some((major, minor)),
                _ => None,
            }
        });
        numbers.unwrap_or_else(|| panic!("no version in {text:?}"))
    });
    *VERSION
}
