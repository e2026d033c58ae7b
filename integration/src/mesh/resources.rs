//! The resources that a control plane serves to one Envoy, and how it merges one into another.

use serde_json::Value;

/// What a control plane serves to one Envoy.
#[derive(Debug, Clone)]
pub struct Resources {
    /// Listeners.
    pub listeners: Vec<Value>,
    /// Route configurations.
    pub routes: Vec<Value>,
    /// Clusters.
    pub clusters: Vec<Value>,
    /// Extension configurations: those that a `config_discovery` names.
    pub extensions: Vec<Value>,
}

impl Resources {
    /// Reads a document with these four lists; one that is missing is empty.
    pub fn from_yaml(text: &str) -> Self {
        let document: Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let list = |name: &str| document[name].as_array().cloned().unwrap_or_default();
        Self {
            listeners: list("listeners"),
            routes: list("routes"),
            clusters: list("clusters"),
            extensions: list("extensions"),
        }
    }
}

/// Merges a message into another as protobuf does: scalars replace, messages merge, lists grow.
pub fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(members), Value::Object(more)) => {
            for (key, value) in more {
                match members.get_mut(key) {
                    Some(old) => merge(old, value),
                    None => {
                        members.insert(key.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(items), Value::Array(more)) => items.extend(more.iter().cloned()),
        (old, new) => *old = new.clone(),
    }
}

/// Returns the name of a resource.
pub fn name(resource: &Value) -> &str {
    resource["name"].as_str().unwrap_or_else(|| panic!("no name in {resource}"))
}
