//! The two variants of the Wasm image specification. Istio's agent and Envoy Gateway fetch either.
//!
//! <https://github.com/solo-io/wasm/tree/master/spec>

use crate::layer::{gzip, tar};
use crate::layout::{Layout, Manifest, digest};
use serde_json::{Value, json};
use std::io;

/// Packs the module as an ordinary image: `FROM scratch`, `COPY plugin.wasm ./`. Any registry takes it.
///
/// # Errors
/// The system's.
pub fn compat(layout: &mut Layout, module: &[u8]) -> io::Result<Manifest> {
    let archive = tar("plugin.wasm", module)?;
    let layer = layout.blob("application/vnd.oci.image.layer.v1.tar+gzip", &gzip(&archive)?)?;
    // The file runs on any machine, but a container runtime that mounts the image compares these with its own.
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(&archive)]},
    });
    let config = layout.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
    let mut annotations = annotations();
    if let Some(members) = annotations.as_object_mut() {
        members.insert("module.wasm.image/variant".to_owned(), "compat".into());
    }
    Ok(Manifest { config, layers: vec![layer], annotations })
}

/// Packs the module as an artifact of exactly two layers: the module as it is, and what to know to run it. Not every
/// registry takes its media types.
///
/// # Errors
/// The system's.
pub fn artifact(layout: &mut Layout, module: &[u8]) -> io::Result<Manifest> {
    const CONFIG: &str = "application/vnd.module.wasm.config.v1+json";
    let runtime = json!({
        "type": "envoy_proxy",
        "abiVersions": ["v0.2.1"],
        "config": {"root_ids": ["gateway", "model"]},
    });
    let titled = |mut descriptor: Value, title: &str| {
        if let Some(members) = descriptor.as_object_mut() {
            members.insert("annotations".to_owned(), json!({"org.opencontainers.image.title": title}));
        }
        descriptor
    };
    let config = layout.blob(CONFIG, runtime.to_string().as_bytes())?;
    let content = layout.blob("application/vnd.module.wasm.content.layer.v1+wasm", module)?;
    let layers = vec![titled(config.clone(), "runtime-config.json"), titled(content, "plugin.wasm")];
    Ok(Manifest { config, layers, annotations: annotations() })
}

fn annotations() -> Value {
    json!({
        "org.opencontainers.image.title": "pointsman",
        "org.opencontainers.image.description": "An LLM gateway as a filter for Envoy",
        "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
    })
}
