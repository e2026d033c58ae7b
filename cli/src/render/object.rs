//! Kubernetes objects, and what Kubernetes allows in their names and sizes.

use serde_json::{Value, json};

/// The largest object that `render` writes, in bytes of JSON. etcd refuses requests above 1.5 MiB, which also hold what
/// Kubernetes adds.
const MAX_BYTES: usize = 1_400_000;

/// Returns an object of the mesh's namespace.
pub fn object(api_version: &str, kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": metadata(namespace, name)});
    object["spec"] = spec;
    object
}

/// Returns a ConfigMap with these files.
pub fn config_map(namespace: &str, name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(namespace, name), "data": data})
}

fn metadata(namespace: &str, name: &str) -> Value {
    json!({"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/name": "pointsman"}})
}

/// Refuses an object that Kubernetes would refuse for its size.
///
/// # Errors
/// Its kind and size, and what makes it smaller.
pub fn check_size(object: &Value) -> Result<(), String> {
    let size = object.to_string().len();
    if size <= MAX_BYTES {
        return Ok(());
    }
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    Err(format!(
        "the {kind} \"{name}\" has {size} bytes, and Kubernetes stores at most {MAX_BYTES}; shorten the chains of the \
         policy's tasks, or remove tenants"
    ))
}

/// Returns whether a text is a DNS label (RFC 1123), which is a valid name of every kind of object.
pub fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_too_large_for_kubernetes_is_refused() {
        let of = |bytes: usize| config_map("n", "big", json!({"a": "x".repeat(bytes)}));
        assert_eq!(check_size(&of(1_000_000)), Ok(()));
        let refused = check_size(&of(1_400_000)).unwrap_err();
        assert!(refused.starts_with("the ConfigMap \"big\" has 14001"), "{refused}");
    }
}
