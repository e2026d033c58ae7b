//! What Istio's pods need: labels for metrics in Envoy's bootstrap, and the files with the keys.

use crate::render::bootstrap::{histogram_buckets, stats_tags};
use crate::render::mesh::pod::Volume;
use crate::render::settings::Settings;
use serde_json::{Value, json};

/// Name of the proxy's container.
const PROXY: &str = "istio-proxy";

/// The file of the ConfigMap with [`bootstrap`], which Istio's injector mounts at [`BOOTSTRAP_DIRECTORY`].
pub const BOOTSTRAP_FILE: &str = "custom_bootstrap.json";
const BOOTSTRAP_DIRECTORY: &str = "/etc/istio/custom-bootstrap";

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

/// Returns what istiod merges into the Deployment that it makes from a Gateway of the Kubernetes Gateway API. Its pods
/// get nothing injected, so that the annotation for the bootstrap has no effect.
pub fn made_from_gateway(bootstrap: &str, volumes: &[Volume]) -> Value {
    let mut volumes = volumes.to_vec();
    volumes.push(Volume::of_config_map(bootstrap, BOOTSTRAP_DIRECTORY));
    let file = format!("{BOOTSTRAP_DIRECTORY}/{BOOTSTRAP_FILE}");
    json!({"spec": {"template": {"spec": {
        "containers": [{
            "name": PROXY,
            "env": [{"name": "ISTIO_BOOTSTRAP_OVERRIDE", "value": file}],
            "volumeMounts": volumes.iter().map(Volume::mount).collect::<Vec<_>>(),
        }],
        "volumes": volumes.iter().map(Volume::volume).collect::<Vec<_>>(),
    }}}})
}

/// Returns the patch that makes a Gateway use the ConfigMap with [`made_from_gateway`].
pub fn parameters(config_map: &str) -> Value {
    json!({"spec": {"infrastructure": {"parametersRef": {"group": "", "kind": "ConfigMap", "name": config_map}}}})
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
