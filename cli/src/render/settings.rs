//! What a rendering depends on besides policy and providers.

use super::version::EnvoyVersion;
use std::net::SocketAddr;

/// Where access log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Envoy's standard output.
    Stdout,
    /// A file, which Envoy opens again on SIGUSR1.
    File(String),
}

/// Settings of one Envoy.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The command that renders, for the head of each file.
    pub command: String,
    /// Version that is rendered for.
    pub version: EnvoyVersion,
    /// Directory in which Envoy finds the files; no slash at its end.
    pub prefix: String,
    /// Path at which Envoy finds the module.
    pub wasm: String,
    /// Address for callers.
    pub listen: SocketAddr,
    /// Address of Envoy's admin interface.
    pub admin: SocketAddr,
    /// Where access log lines go.
    pub access_log: LogTarget,
}

impl Settings {
    /// Path of one of the rendered files, as Envoy finds it.
    pub fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.prefix)
    }
}
