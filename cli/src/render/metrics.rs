//! The listener of the metrics: it offers `/stats/prometheus` of the admin interface and nothing else of it, so that a
//! Prometheus can reach the metrics and cannot drain Envoy or read its configuration.

use super::listener::{MANAGER_TYPE, address};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Name of the listener, and of the cluster that is the admin interface.
const NAME: &str = "pointsman.metrics";

/// Returns the listener.
pub fn listener(at: SocketAddr) -> Value {
    let path = "/stats/prometheus";
    let route = json!({
        "match": {"path": path, "headers": [{"name": ":method", "string_match": {"exact": "GET"}}]},
        "route": {"cluster": NAME, "timeout": "30s"},
    });
    let manager = json!({
        "@type": MANAGER_TYPE,
        "stat_prefix": "metrics",
        "use_remote_address": true,
        "normalize_path": true,
        "request_headers_timeout": "10s",
        "request_timeout": "10s",
        "stream_idle_timeout": "60s",
        "route_config": {"name": NAME, "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    json!({
        "name": NAME,
        "address": address(at),
        "per_connection_buffer_limit_bytes": 1 << 20,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager", "typed_config": manager,
        }]}],
    })
}

/// Returns the cluster whose one host is the admin interface.
pub fn cluster(admin: SocketAddr) -> Value {
    let ip = match admin.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let endpoint = json!({"endpoint": {"address": address(SocketAddr::new(ip, admin.port()))}});
    json!({
        "name": NAME,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": NAME, "endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}
