//! What a rendering depends on besides the policy and the providers.

use super::mesh::image::Image;
use super::version::EnvoyVersion;
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Where access log lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Envoy's standard output.
    Stdout,
    /// A file, which Envoy reopens on SIGUSR1.
    File(String),
}

/// Settings of one Envoy.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The command that renders, for the header of each file.
    pub command: String,
    /// Envoy version to render for.
    pub version: EnvoyVersion,
    /// Directory in which Envoy finds the files, without a trailing slash.
    pub prefix: String,
    /// Path at which Envoy finds the module.
    pub wasm: String,
    /// Listen address for clients.
    pub listen: SocketAddr,
    /// Address of Envoy's admin interface.
    pub admin: SocketAddr,
    /// Address at which the metrics are offered by themselves.
    pub metrics: Option<SocketAddr>,
    /// Whether all of the admin interface is offered.
    pub full_admin: bool,
    /// The memory that Envoy may allocate, in bytes; 0 for no bound.
    pub max_heap: u64,
    /// Where access log lines go.
    pub access_log: LogTarget,
    /// Whether Envoy watches the directory of the files. A ConfigMap or a Secret that is mounted is replaced as a
    /// whole, by one symbolic link (`..data`), and no file in it is renamed. Otherwise, Envoy watches each file by
    /// itself.
    pub watches_directory: bool,
    /// Whether the listener also has routes that are not Pointsman's. All of it then applies to [`SHARED_PREFIX`] only.
    pub shared: bool,
    /// What is different where a control plane configures Envoy; `None` where these files do.
    pub mesh: Option<MeshSettings>,
}

/// Settings of an Envoy that a control plane configures.
#[derive(Debug, Clone)]
pub struct MeshSettings {
    /// The domains of the gateway's virtual host. Its listeners have other hosts too.
    pub hosts: Vec<String>,
    /// The image with the module, if the control plane's agent fetches it. Both stages then come by discovery, because
    /// the agent looks for images nowhere else.
    pub image: Option<Image>,
    /// Whether this build of Envoy has the extensions of its version that are newer than `aggregate`.
    pub has_composite_cluster: bool,
}

/// The paths of the gateway in a shared listener.
pub const SHARED_PREFIX: &str = "/v1/";

impl Settings {
    /// Returns the path at which Envoy finds a rendered file.
    pub fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.prefix)
    }

    /// Returns the image with the module, if Envoy does not read it from [`Self::wasm`].
    pub fn image(&self) -> Option<&Image> {
        self.mesh.as_ref()?.image.as_ref()
    }

    /// Returns whether plans are composite clusters: attempt N goes to member N.
    pub fn has_composite_cluster(&self) -> bool {
        self.version.has_composite_cluster() && self.mesh.as_ref().is_none_or(|mesh| mesh.has_composite_cluster)
    }

    /// Returns the config source for a rendered file.
    pub fn source(&self, file: &str) -> Value {
        let mut source = json!({"path": self.path(file)});
        if self.watches_directory {
            source["watched_directory"] = json!({"path": self.prefix});
        }
        json!({"path_config_source": source, "resource_api_version": "V3"})
    }
}
