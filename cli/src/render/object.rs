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

/// Returns whether a text is a DNS subdomain (RFC 1123): the names that most kinds of objects may have.
pub fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// Returns whether a text is the key of a label: a name, after the prefix of its owner and `/` if it has one.
pub fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_label_value(name),
        None => is_label_value(text),
    }
}

/// Returns whether a text is the value of a label that is not empty.
pub fn is_label_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let is_end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    text.len() <= 63 && is_end(bytes.first()) && is_end(bytes.last()) && text.bytes().all(inner)
}

/// Returns whether a text is the key of an entry in a Secret or a ConfigMap.
pub fn is_entry(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    !text.is_empty() && text.len() <= 253 && !text.starts_with("..") && text != "." && text.bytes().all(inner)
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
    fn names_are_those_that_kubernetes_takes() {
        let long = "a".repeat(64);
        for (is_valid, right, wrong) in [
            (is_label as fn(&str) -> bool, ["a", "a-1", "0"], ["", "a.b", "-a"]),
            (is_subdomain, ["a.b", "a", "eg-1.example.com"], ["a..b", ".a", "A.b"]),
            (is_label_key, ["app", "app.kubernetes.io/name", "a_B"], ["a/b/c", "/a", "a b"]),
            (is_label_value, ["caller", "v1.2_3", "A"], ["", "-a", "a=b"]),
            (is_entry, ["OPENAI_API_KEY", "azure.key", "_a"], ["", "..", "a/b"]),
        ] {
            assert!(right.iter().all(|text| is_valid(text)), "{right:?}");
            assert!(!wrong.iter().any(|text| is_valid(text)), "{wrong:?}");
        }
        assert!(!is_label(&long) && !is_label_value(&long) && is_label_value(&long[..63]));
    }

    #[test]
    fn an_object_too_large_for_kubernetes_is_refused() {
        let of = |bytes: usize| config_map("n", "big", json!({"a": "x".repeat(bytes)}));
        assert_eq!(check_size(&of(1_000_000)), Ok(()));
        let refused = check_size(&of(1_400_000)).unwrap_err();
        assert!(refused.starts_with("the ConfigMap \"big\" has 14001"), "{refused}");
    }
}
