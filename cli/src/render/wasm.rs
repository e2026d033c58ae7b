//! The module as an Envoy filter, in either of its roles.

use super::settings::Settings;
use serde_json::{Value, json};

/// Type URL of Envoy's Wasm filter.
pub const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// Name of the gateway stage, under which Envoy requests its configuration.
pub const FILTER: &str = "pointsman.gateway";

/// Name of the model stage, under which Envoy requests its configuration from a control plane.
pub const MODEL_FILTER: &str = "pointsman.model";

/// Returns the filter for a role, with its plugin configuration.
///
/// The VM configuration of both roles is identical, so they share one VM per worker and its shared data.
pub fn filter(settings: &Settings, role: &str, configuration: &Value) -> Value {
    // Pretty-printed, so that two renderings can be compared. Envoy passes the text to the module unchanged.
    let text = serde_json::to_string_pretty(configuration).unwrap_or_default();
    json!({
        "@type": TYPE,
        "config": {
            "name": format!("pointsman.{role}"),
            "root_id": role,
            // Without it, Envoy passes the request body on while the module still holds the headers.
            "allow_on_headers_stop_iteration": true,
            // A trap would be a bug. Requests then fail closed until the VM has been reloaded.
            "failure_policy": "FAIL_RELOAD",
            "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text},
            "vm_config": {
                "vm_id": "pointsman",
                "runtime": "envoy.wasm.runtime.v8",
                "code": code(settings),
            },
        },
    })
}

fn code(settings: &Settings) -> Value {
    match settings.image() {
        None => json!({"local": {"filename": settings.wasm}}),
        // Envoy never sees this: Istio's agent puts the file there that it has fetched. Envoy's schema needs a cluster,
        // for which istiod too writes "_".
        Some(image) => json!({"remote": {
            "http_uri": {"uri": image.uri(), "timeout": "30s", "cluster": "_"},
            "sha256": image.digest(),
        }}),
    }
}

/// Returns a filter whose configuration comes from the control plane, as one of these types.
///
/// Without a timeout, like istiod's own: a listener and a cluster wait for the module, and a new pod is not ready
/// before. With one, a pod that fetches its module slowly would be ready, and answer every request with 500.
pub fn discovered(name: &str, types: &[&str]) -> Value {
    json!({"name": name, "config_discovery": {
        "config_source": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
        "type_urls": types,
    }})
}

/// Returns the model stage, an upstream filter of every plan cluster.
pub fn model_stage(settings: &Settings) -> Value {
    match settings.image() {
        None => json!({"name": MODEL_FILTER, "typed_config": model_config(settings)}),
        Some(_) => discovered(MODEL_FILTER, &[TYPE]),
    }
}

/// Returns the configuration of the model stage.
pub fn model_config(settings: &Settings) -> Value {
    let configuration = match settings.version.survives_failure_at_end() {
        true => json!({"role": "model"}),
        false => json!({"role": "model", "fails_at_end": false}),
    };
    filter(settings, "model", &configuration)
}

/// Returns the gateway stage with a policy.
pub fn gateway_stage(settings: &Settings, policy: &Value) -> Value {
    filter(settings, "gateway", &json!({"role": "gateway", "policy": policy}))
}
