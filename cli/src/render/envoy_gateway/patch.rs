//! The patches of an EnvoyPatchPolicy.

use serde_json::{Value, json};

/// Type URL of a listener.
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// Type URL of a route configuration.
pub const ROUTES: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// Type URL of a cluster.
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";

/// The connection managers of a listener. An HTTP listener has one, in its default filter chain, and an HTTPS listener
/// one in each of its filter chains.
pub const MANAGER: &str = "$..filters[?(@.name == 'envoy.filters.network.http_connection_manager')].typed_config";

/// Returns the path of an HTTP filter in all connection managers.
pub fn http_filter(name: &str) -> String {
    format!("$..http_filters[?(@.name == '{name}')]")
}

/// A place in a resource.
pub struct Place {
    json_path: Option<String>,
    path: String,
}

impl Place {
    /// Returns the place with this path.
    pub fn at(path: &str) -> Self {
        Self { json_path: None, path: path.to_owned() }
    }

    /// Returns the places at `path` below each that matches `json_path`.
    pub fn of(json_path: &str, path: &str) -> Self {
        Self { json_path: Some(json_path.to_owned()), path: path.to_owned() }
    }
}

/// A list of patches, applied in order.
#[derive(Default)]
pub struct Patches(Vec<Value>);

impl Patches {
    /// Adds a whole resource.
    pub fn resource(&mut self, of_type: &str, name: &str, value: Value) {
        let operation = json!({"op": "add", "path": "", "value": value});
        self.0.push(json!({"type": of_type, "name": name, "operation": operation}));
    }

    /// Adds a value to a resource of this type and name.
    pub fn add(&mut self, (of_type, name, place): (&str, String, Place), value: Value) {
        let mut operation = json!({"op": "add", "value": value});
        if let Some(members) = operation.as_object_mut() {
            if let Some(json_path) = place.json_path {
                members.insert("jsonPath".to_owned(), json_path.into());
            }
            if !place.path.is_empty() {
                members.insert("path".to_owned(), place.path.into());
            }
        }
        self.0.push(json!({"type": of_type, "name": name, "operation": operation}));
    }

    /// Returns the list.
    pub fn into_value(self) -> Value {
        self.0.into()
    }
}
