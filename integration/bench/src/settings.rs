//! The Envoy configuration of each variant.

use crate::Result;
use crate::envoy::Variant;
use crate::process::{Scratch, free_port};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The programs and modules that a configuration needs.
pub struct Modules<'a> {
    /// The `pointsman` command.
    pub pointsman: &'a Path,
    /// Pointsman's module.
    pub wasm: &'a Path,
    /// The module that decides nothing.
    pub noop: &'a Path,
}

/// Writes the configuration of `variant` as JSON, which is also YAML, and returns its path.
pub fn write(variant: Variant, modules: &Modules, port: u16, upstream: u16, scratch: &Scratch) -> Result<PathBuf> {
    let config = match variant {
        Variant::Bare => bare(port, upstream, true, None),
        Variant::BareNoLog => bare(port, upstream, false, None),
        Variant::Noop => bare(port, upstream, true, Some(modules.noop)),
        Variant::Carry | Variant::Pointsman | Variant::Budgets | Variant::Limited | Variant::Tenants => {
            return render(variant, modules, port, upstream, scratch);
        }
    };
    scratch.write(&format!("{}.yaml", variant.name().replace(' ', "-")), &config.to_string())
}

/// Renders the bench's policy with `pointsman render`. Both providers have the same upstream.
fn render(variant: Variant, modules: &Modules, port: u16, upstream: u16, scratch: &Scratch) -> Result<PathBuf> {
    let name = variant.name().replace([' ', ','], "-");
    let policy = scratch.write(&format!("{name}.json"), &crate::policy::document(variant).to_string())?;
    for provider in crate::policy::PROVIDERS {
        let cluster = json!({"name": provider, "type": "STATIC", "connect_timeout": "2s",
            "load_assignment": endpoints(provider, upstream)});
        scratch.write(&format!("providers/{provider}.yaml"), &cluster.to_string())?;
    }
    let wasm = if variant == Variant::Carry { modules.noop } else { modules.wasm };
    let wasm = std::path::absolute(wasm).map_err(|e| format!("{}: {e}", wasm.display()))?;
    let out = scratch.path(&format!("rendered-{name}"));
    let mut command = Command::new(modules.pointsman);
    command.arg("render").arg("--policy").arg(policy).arg("--providers").arg(scratch.path("providers"));
    command.arg("--out").arg(&out).arg("--wasm").arg(wasm);
    command.args(["--listen", &format!("127.0.0.1:{port}"), "--admin", &format!("127.0.0.1:{}", free_port()?)]);
    let program = modules.pointsman.display();
    let output = command.output().map_err(|e| format!("{program}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{program} render: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(out.join("bootstrap.yaml"))
}

fn endpoints(cluster: &str, port: u16) -> Value {
    json!({"cluster_name": cluster, "endpoints": [{"lb_endpoints": [{"endpoint":
        {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]}]})
}

/// The fields that operators usually log, one JSON object per request.
const LOG: &str = concat!(
    r#"{"start_time":"%START_TIME%","trace_id":"%REQ(X-REQUEST-ID)%","method":"%REQ(:METHOD)%","path":"%REQ(:PATH)%","#,
    r#""protocol":"%PROTOCOL%","status":%RESPONSE_CODE%,"response_flags":"%RESPONSE_FLAGS%","#,
    r#""response_code_details":"%RESPONSE_CODE_DETAILS%","bytes_received":%BYTES_RECEIVED%,"bytes_sent":%BYTES_SENT%,"#,
    r#""duration":%DURATION%,"request_duration":%REQUEST_DURATION%,"response_duration":%RESPONSE_DURATION%,"#,
    r#""user_agent":"%REQ(USER-AGENT)%","authority":"%REQ(:AUTHORITY)%","upstream":"%UPSTREAM_HOST%","#,
    r#""upstream_cluster":"%UPSTREAM_CLUSTER%","attempts":%UPSTREAM_REQUEST_ATTEMPT_COUNT%,"#,
    r#""downstream":"%DOWNSTREAM_REMOTE_ADDRESS%","route":"%ROUTE_NAME%","transport_failure":"%UPSTREAM_TRANSPORT_FAILURE_REASON%"}"#,
    "\n"
);

/// Returns the configuration of a plain proxy. With `wasm`, that module is a filter in both places where Pointsman has
/// one.
fn bare(port: u16, upstream: u16, log: bool, wasm: Option<&Path>) -> Value {
    let access_log = json!([{
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": {"text_format_source": {"inline_string": LOG}},
        },
    }]);
    let http = "type.googleapis.com/envoy.extensions.filters.http";
    let router = json!({"name": "envoy.filters.http.router",
        "typed_config": {"@type": format!("{http}.router.v3.Router"), "suppress_envoy_headers": true}});
    let codec = json!({"name": "envoy.filters.http.upstream_codec",
        "typed_config": {"@type": format!("{http}.upstream_codec.v3.UpstreamCodec")}});
    let filters = |last: Value| wasm.map(noop_filter).into_iter().chain([last]).collect::<Vec<_>>();
    let protocol_options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "listeners": [{
                "name": "bench",
                "per_connection_buffer_limit_bytes": 32 << 20,
                "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3\
                            .HttpConnectionManager",
                        "stat_prefix": "bench",
                        "use_remote_address": true,
                        "normalize_path": true,
                        "merge_slashes": true,
                        "access_log": if log { access_log } else { json!([]) },
                        "http_filters": filters(router),
                        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
                            {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}},
                        ]}]},
                    },
                }]}],
            }],
            "clusters": [{
                "name": "upstream",
                "type": "STATIC",
                "connect_timeout": "2s",
                "load_assignment": endpoints("upstream", upstream),
                "typed_extension_protocol_options": {protocol_options: {
                    "@type": format!("type.googleapis.com/{protocol_options}"),
                    "explicit_http_config": {"http_protocol_options": {}},
                    "http_filters": filters(codec),
                }},
            }],
        },
    })
}

fn noop_filter(module: &Path) -> Value {
    json!({
        "name": "noop",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "noop",
                "vm_config": {
                    "vm_id": "noop",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": {"local": {"filename": module}},
                },
            },
        },
    })
}
