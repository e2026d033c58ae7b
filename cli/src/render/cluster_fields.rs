//! What can be told of a provider's cluster without Envoy: unknown fields, and connections that are not protected.

use pointsman_core::config::place::Place;
use pointsman_core::config::problem::Problem;
use pointsman_core::policy::Provider;
use serde_json::Value;

/// The fields of `envoy.config.cluster.v3.Cluster` up to Envoy 1.40.
const FIELDS: [&str; 53] = [
    "alt_stat_name",
    "circuit_breakers",
    "cleanup_interval",
    "close_connections_on_host_health_failure",
    "cluster_type",
    "common_http_protocol_options",
    "common_lb_config",
    "connect_timeout",
    "connection_pool_per_downstream_connection",
    "dns_failure_refresh_rate",
    "dns_jitter",
    "dns_lookup_family",
    "dns_refresh_rate",
    "dns_resolution_config",
    "dns_resolvers",
    "eds_cluster_config",
    "filters",
    "health_checks",
    "http2_protocol_options",
    "http_protocol_options",
    "ignore_health_on_host_removal",
    "lb_policy",
    "lb_subset_config",
    "least_request_lb_config",
    "load_assignment",
    "load_balancing_policy",
    "lrs_report_endpoint_metrics",
    "lrs_server",
    "maglev_lb_config",
    "max_requests_per_connection",
    "metadata",
    "name",
    "original_dst_lb_config",
    "outlier_detection",
    "per_connection_buffer_limit_bytes",
    "preconnect_policy",
    "protocol_selection",
    "respect_dns_ttl",
    "ring_hash_lb_config",
    "round_robin_lb_config",
    "track_cluster_stats",
    "track_timeout_budgets",
    "transport_socket",
    "transport_socket_matches",
    "type",
    "typed_dns_resolver_config",
    "typed_extension_protocol_options",
    "upstream_bind_config",
    "upstream_config",
    "upstream_connection_options",
    "upstream_http_protocol_options",
    "use_tcp_for_dns_lookups",
    "wait_for_warm_on_init",
];

/// Returns what Envoy would refuse, or what is probably not meant.
pub fn suspicious(provider: &Provider, cluster: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for name in cluster.as_object().into_iter().flat_map(|fields| fields.keys()) {
        // Envoy also reads `connectTimeout`.
        let snake: String = name
            .chars()
            .flat_map(|c| [c.is_ascii_uppercase().then_some('_'), Some(c.to_ascii_lowercase())])
            .flatten()
            .collect();
        if name != "@type" && !FIELDS.contains(&snake.as_str()) {
            let message = format!("unknown field \"{name}\" of an Envoy cluster; Envoy would reject it");
            problems.push(Problem::of_field(Place::default(), name, message));
        }
    }
    match cluster.get("transport_socket") {
        Some(socket) if is_tls(socket) && !verifies(socket) => {
            let message = "TLS without `trusted_ca` accepts any certificate; set \
                `common_tls_context.validation_context.trusted_ca`";
            problems.push(Problem::of_name("transport_socket", message));
        }
        None if !provider.local && cluster.get("transport_socket_matches").is_none() && is_remote(cluster) => {
            let message = "no `transport_socket`, so prompts and keys of this provider, which is not `local`, go over \
                the network without TLS";
            problems.push(Problem::of_field(Place::default(), "load_assignment", message));
        }
        _ => {}
    }
    problems
}

fn is_tls(socket: &Value) -> bool {
    socket.pointer("/typed_config/@type").and_then(Value::as_str).is_some_and(|t| t.ends_with(".UpstreamTlsContext"))
}

/// Returns whether a TLS context checks the certificate of the server.
fn verifies(socket: &Value) -> bool {
    let Some(context) = socket.pointer("/typed_config/common_tls_context") else { return false };
    let ways = ["validation_context_sds_secret_config", "combined_validation_context"];
    let trusts = ["trusted_ca", "system_root_certs", "verify_certificate_spki", "verify_certificate_hash"];
    ways.iter().any(|way| context.get(way).is_some())
        || context
            .get("validation_context")
            .is_some_and(|validation| trusts.iter().any(|trust| validation.get(trust).is_some()))
}

/// Returns whether an endpoint is neither on this machine nor named by a single word, as in a network of containers.
fn is_remote(cluster: &Value) -> bool {
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let localities = cluster.get("load_assignment").map(|all| list(all, "endpoints")).unwrap_or_default();
    localities.iter().flat_map(|locality| list(locality, "lb_endpoints")).any(|endpoint| {
        let host = endpoint.pointer("/endpoint/address/socket_address/address").and_then(Value::as_str);
        host.is_some_and(|host| host.contains(['.', ':']) && !host.starts_with("127.") && host != "::1")
    })
}
