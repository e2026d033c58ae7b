//! The module as an Envoy filter, in either of its roles.

use super::settings::Settings;
use serde_json::{Value, json};

/// Type URL of Envoy's Wasm filter.
pub const TYPE: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// Name of the gateway stage, under which Envoy requests its configuration.
pub const FILTER: &str = "pointsman.gateway";

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
                "code": {"local": {"filename": settings.wasm}},
            },
        },
    })
}

/// Returns the model stage, an upstream filter of every plan cluster.
pub fn model_stage(settings: &Settings) -> Value {
    let configuration = match settings.version.survives_failure_at_end() {
        true => json!({"role": "model"}),
        false => json!({"role": "model", "fails_at_end": false}),
    };
    json!({"name": "pointsman.model", "typed_config": filter(settings, "model", &configuration)})
}

/// Returns the gateway stage with a policy.
pub fn gateway_stage(settings: &Settings, policy: &Value) -> Value {
    filter(settings, "gateway", &json!({"role": "gateway", "policy": policy}))
}
