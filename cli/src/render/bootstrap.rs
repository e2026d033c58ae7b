//! The bootstrap: the configuration that Envoy reads once, at startup.

use super::listener::address;
use super::metrics;
use super::settings::Settings;
use pointsman_core::telemetry::metrics::LABELS;
use serde_json::{Value, json};

/// The source of the clusters.
pub enum Clusters {
    /// A file, which may be replaced while Envoy runs.
    File,
    /// The bootstrap itself.
    Inline(Vec<Value>),
}

/// Returns the bootstrap with its listener, and that of the metrics if they have one.
pub fn bootstrap(settings: &Settings, listener: Value, clusters: Clusters) -> Value {
    let mut bootstrap = json!({
        // Envoy sends these names when it requests secrets, clusters and routes.
        "node": {"id": "pointsman", "cluster": "pointsman"},
        "admin": admin(settings),
        "static_resources": {"listeners": [listener]},
        "stats_config": {"stats_tags": stats_tags(settings), "histogram_bucket_settings": histogram_buckets()},
        "overload_manager": overload_manager(settings),
    });
    match clusters {
        Clusters::File => {
            bootstrap["dynamic_resources"] = json!({"cds_config": settings.source("cds.yaml")});
        }
        Clusters::Inline(clusters) => {
            bootstrap["static_resources"]["clusters"] = clusters.into_iter().map(without_type).collect();
        }
    }
    if let Some(at) = settings.metrics {
        for (list, item) in [("listeners", metrics::listener(at)), ("clusters", metrics::cluster(settings.admin))] {
            match &mut bootstrap["static_resources"][list] {
                Value::Array(items) => items.push(item),
                none => *none = json!([item]),
            }
        }
    }
    bootstrap
}

/// Bounds on connections and memory. As memory fills, Envoy first gives free memory back to the system, then resets the
/// HTTP/2 streams that hold the most, closes connections after their request, and at last refuses requests with 503.
fn overload_manager(settings: &Settings) -> Value {
    let connections = json!({
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": 50_000,
        },
    });
    if settings.max_heap == 0 {
        return json!({"resource_monitors": [connections]});
    }
    const HEAP: &str = "envoy.resource_monitors.fixed_heap";
    let heap = json!({
        "name": HEAP,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
            "max_heap_size_bytes": settings.max_heap,
        },
    });
    let action = |name: &str, trigger: Value| {
        let mut trigger = trigger;
        trigger["name"] = HEAP.into();
        json!({"name": format!("envoy.overload_actions.{name}"), "triggers": [trigger]})
    };
    let rising = json!({"scaling_threshold": 0.85, "saturation_threshold": 0.95});
    let from = |share: f64| json!({"threshold": {"value": share}});
    json!({
        "refresh_interval": "0.25s",
        // Streams that hold less than a mebibyte are not tracked.
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": 20},
        "resource_monitors": [connections, heap],
        "actions": [
            action("shrink_heap", from(0.8)),
            action("reset_high_memory_stream", json!({"scaled": rising})),
            action("disable_http_keepalive", from(0.9)),
            action("stop_accepting_requests", from(0.95)),
        ],
    })
}

/// The paths of the admin interface that only show something, and those with which `up` drains Envoy and log rotation
/// opens files again.
///
/// All others are refused. `/logging` can make Envoy log every request header, with the callers' keys; a heap dump
/// holds them too.
const ADMIN_PATHS: [&str; 13] = [
    "certs",
    "clusters",
    "config_dump",
    "drain_listeners",
    "healthcheck/fail",
    "healthcheck/ok",
    "init_dump",
    "listeners",
    "memory",
    "ready",
    "reopen_logs",
    "server_info",
    "stats(/prometheus)?",
];

fn admin(settings: &Settings) -> Value {
    let mut admin = json!({"address": address(settings.admin)});
    if settings.version.has_admin_paths() && !settings.full_admin {
        // Envoy matches the path with its query.
        let regex = format!(r"/({})(\?.*)?", ADMIN_PATHS.join("|"));
        admin["allow_paths"] = json!([{"safe_regex": {"regex": regex}}]);
    }
    admin
}

/// Returns a bootstrap with one cluster and no listener.
pub fn cluster_bootstrap(cluster: Value) -> Value {
    let node = json!({"id": "pointsman", "cluster": "pointsman"});
    json!({"node": node, "static_resources": {"clusters": [without_type(cluster)]}})
}

/// A static cluster, unlike one in a discovery response, does not say that it is one.
fn without_type(mut cluster: Value) -> Value {
    if let Some(members) = cluster.as_object_mut() {
        members.remove("@type");
    }
    cluster
}

/// One tag per label: `wasmcustom.llm_requests_total|tier=pro|…` becomes `llm_requests_total{tier="pro",…}`.
pub fn stats_tags(settings: &Settings) -> Value {
    let tag = |name: &str, regex: String| json!({"tag_name": name, "regex": regex});
    if settings.version.has_metrics_at_root() {
        return LABELS.iter().map(|label| tag(label, format!(r"^wasmcustom\.llm_.*?(\|{label}=([^|]*))"))).collect();
    }
    // A tag cuts its first group out of the name. Its value is the second group, here empty.
    let scope = tag("pointsman_scope", r"^(cluster\.plan_[^.]*\.())wasmcustom\.llm_".to_owned());
    let labels = LABELS
        .iter()
        .map(|label| tag(label, format!(r"^(?:cluster\.plan_[^.]*\.)?wasmcustom\.llm_.*?(\|{label}=([^|]*))")));
    std::iter::once(scope).chain(labels).collect()
}

/// Envoy's default buckets reach an hour but are coarse in the range of model latencies.
pub fn histogram_buckets() -> Value {
    let of = |name: &str, buckets: &[u32]| json!({"match": {"contains": name}, "buckets": buckets});
    json!([
        of(
            "wasmcustom.llm_latency_ms",
            &[50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000]
        ),
        of(
            "wasmcustom.llm_time_to_first_token_ms",
            &[25, 50, 100, 200, 300, 500, 750, 1000, 2000, 3000, 5000, 10_000, 30_000, 60_000]
        ),
    ])
}
