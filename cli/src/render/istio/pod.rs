//! What Istio's pods need: labels for metrics in Envoy's bootstrap, and the files with the keys.

use crate::render::bootstrap::{histogram_buckets, stats_tags};
use crate::render::mesh::pod::Volume;
use crate::render::settings::Settings;
use serde_json::{Value, json};

/// Name of the proxy's container.
const PROXY: &str = "istio-proxy";

/// Returns what Envoy merges into Istio's bootstrap: the labels of the module's metrics, their buckets, and that
/// Istio's choice of statistics includes them.
pub fn bootstrap(settings: &Settings) -> Value {
    json!({"stats_config": {
        "stats_tags": stats_tags(settings),
        "histogram_bucket_settings": histogram_buckets(),
        "stats_matcher": {"inclusion_list": {"patterns": [{"contains": "wasmcustom.llm_"}]}},
    }})
}

/// Returns the patch of a gateway's Deployment.
pub fn gateway(bootstrap: &str, volumes: &[Volume]) -> Value {
    let mut pod = json!({});
    if !volumes.is_empty() {
        let mounts: Vec<_> = volumes.iter().map(Volume::mount).collect();
        pod = json!({
            "containers": [{"name": PROXY, "volumeMounts": mounts}],
            "volumes": volumes.iter().map(Volume::volume).collect::<Vec<_>>(),
        });
    }
    template(json!({"sidecar.istio.io/bootstrapOverride": bootstrap}), pod)
}

/// Returns the patch of a calling workload's Deployment, into whose pods Istio puts the proxy.
pub fn workload(bootstrap: &str, volumes: &[Volume]) -> Value {
    let mut annotations = json!({"sidecar.istio.io/bootstrapOverride": bootstrap});
    if let (false, Some(members)) = (volumes.is_empty(), annotations.as_object_mut()) {
        let all: Value = volumes.iter().map(Volume::volume).collect();
        let mounts: Value = volumes.iter().map(Volume::mount).collect();
        members.insert("sidecar.istio.io/userVolume".to_owned(), all.to_string().into());
        members.insert("sidecar.istio.io/userVolumeMount".to_owned(), mounts.to_string().into());
    }
    template(annotations, json!({}))
}

fn template(annotations: Value, pod: Value) -> Value {
    let mut template = json!({"metadata": {"annotations": annotations}});
    if let (Some(members), true) = (template.as_object_mut(), pod != json!({})) {
        members.insert("spec".to_owned(), pod);
    }
    json!({"spec": {"template": template}})
}
