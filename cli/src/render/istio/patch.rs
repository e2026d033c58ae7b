//! The patches of an EnvoyFilter.

use crate::render::mesh::version::MeshVersion;
use crate::render::wasm;
use serde_json::{Value, json};

pub use crate::render::mesh::args::ROUTER;

/// Name of the connection manager in every listener of Istio's.
pub const MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// The type that Istio's agent puts in the place of a module that it cannot fetch: a filter that refuses everything.
const REFUSAL: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";

/// Patches in one context, for the proxies of one version.
pub struct Patches {
    context: &'static str,
    version: MeshVersion,
    all: Vec<Value>,
}

impl Patches {
    /// Creates an empty list.
    pub fn new(context: &'static str, version: MeshVersion) -> Self {
        Self { context, version, all: Vec::new() }
    }

    /// Adds a patch. `matched`: where, besides the context and the version.
    pub fn add(&mut self, apply_to: &str, mut matched: Value, operation: &str, value: Value) {
        if let Some(members) = matched.as_object_mut() {
            members.insert("context".to_owned(), self.context.into());
            let version = self.version.to_string().replace('.', r"\.");
            members.insert("proxy".to_owned(), json!({"proxyVersion": format!(r"^{version}(\D|$)")}));
        }
        let patch = json!({"operation": operation, "value": value});
        self.all.push(json!({"applyTo": apply_to, "match": matched, "patch": patch}));
    }

    /// Returns the list.
    pub fn into_value(self) -> Value {
        self.all.into()
    }
}

/// Returns the gateway stage as a filter. It is off but on the routes that switch it on. If its module cannot be
/// fetched, those routes refuse every request.
pub fn gateway_stage() -> Value {
    let mut filter = wasm::discovered(wasm::FILTER, &[wasm::TYPE, REFUSAL]);
    if let Some(members) = filter.as_object_mut() {
        members.insert("disabled".to_owned(), true.into());
    }
    filter
}
