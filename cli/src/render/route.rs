//! The routes: every request goes to the plan cluster that the gateway stage names. Each idle timeout of a stream has a
//! route of its own.

use super::duration::{IDLE_MS, seconds};
use super::settings::{SHARED_PREFIX, Settings};
use super::wasm;
use pointsman_core::policy::Policy;
use pointsman_core::policy::clusters;
use pointsman_core::policy::resilience::{DEADLINE_HEADER, IDLE_HEADER, NEXT_HEADER};
use pointsman_core::routing::dispatch::{ROUTED, STATE_ROUTED};
use serde_json::{Value, json};

/// Name of the route configuration.
pub const NAME: &str = "pointsman";

/// The header in which the gateway stage names the cluster.
pub const CLUSTER_HEADER: &str = "x-pointsman-cluster";

/// The filter state that a route to providers asks for in a listener that has other routes too.
pub fn state_key() -> String {
    format!("wasm.{STATE_ROUTED}")
}

/// Bytes of a request that Envoy may hold beyond the policy's limit. A chunk that exceeds the limit must still fit, so
/// that the module sees it and answers in the caller's dialect. Beyond this, Envoy itself answers 413.
const SLACK: u64 = 2 << 20;

/// Returns the bytes of a request that Envoy may hold. It never holds that many, because the module refuses requests
/// above the policy's limit. But some versions count what a filter has held twice when they decide whether a retry is
/// possible.
pub fn buffer_limit(policy: &Policy) -> u64 {
    2 * (policy.request.max_body_bytes + SLACK)
}

/// Returns the route configuration.
pub fn configuration(settings: &Settings, policy: &Policy) -> Value {
    let mut configuration = json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": NAME,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes(settings, policy)}],
    });
    if !settings.shared {
        for (field, headers) in header_changes() {
            configuration[field] = headers;
        }
    }
    configuration
}

/// Returns the routes, in the order in which Envoy tries them.
pub fn routes(settings: &Settings, policy: &Policy) -> Vec<Value> {
    let backoff = policy.backoff;
    let mut retry_policy = json!({
        // Each request carries its own retry conditions in x-envoy-retry-on and x-envoy-retriable-status-codes. A
        // request with one attempt has neither, so Envoy keeps no copy of it. The gateway stage sets
        // x-envoy-max-retries to the number of its plan; this is the maximum.
        "num_retries": clusters::longest(policy) - 1,
        // By this header the model stage asks for the next attempt where the status alone does not lead to it.
        "retriable_headers": [{"name": NEXT_HEADER, "present_match": true}],
        "retry_back_off": {"base_interval": seconds(backoff.base_ms), "max_interval": seconds(backoff.max_ms)},
    });
    if backoff.max_retry_after_ms > 0 {
        // The model stage keeps the header only if the same provider is tried again.
        retry_policy["rate_limited_retry_back_off"] = json!({
            "reset_headers": [{"name": "retry-after", "format": "SECONDS"}],
            "max_interval": seconds(backoff.max_retry_after_ms),
        });
    }
    if !settings.has_composite_cluster() {
        retry_policy["retry_priority"] = json!({
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        });
    }
    let mut route = json!({
        "name": "pointsman",
        "match": {"prefix": if settings.shared { SHARED_PREFIX } else { "/" }},
        "route": {
            "cluster_header": CLUSTER_HEADER,
            // Each request carries its timeouts in headers. Envoy ignores a route's timeout beside a maximum duration.
            "timeout": "0s",
            // Reads DEADLINE_HEADER, whatever its value.
            "max_stream_duration": {"grpc_timeout_header_max": "0s"},
            // Each provider is called by its own host name.
            "auto_host_rewrite": true,
            "retry_policy": retry_policy,
        },
    });
    // A request that is not a stream may be silent for its whole duration. The route sets this if the listener's limit
    // is lower, or not known.
    let longest_ms = policy.longest_request_ms();
    if longest_ms > IDLE_MS || settings.shared {
        route["route"]["idle_timeout"] = seconds(longest_ms.max(IDLE_MS)).into();
    }
    // Bytes of a request that Envoy holds to read and to resend it. Before 1.37 the listener's limit does both.
    if settings.version.has_route_buffer_limit() {
        route["request_body_buffer_limit"] = buffer_limit(policy).into();
    }
    if settings.shared {
        for (field, headers) in header_changes() {
            route[field] = headers;
        }
        // The filter is off by default. The empty configuration is required, and has no meaning of its own.
        let on = json!({"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "config": {}});
        route["typed_per_filter_config"] = json!({wasm::FILTER: on});
    }
    let without_gateway_stage = if settings.shared { refusals(&route) } else { Vec::new() };
    if settings.shared {
        route["match"]["filter_state"] = json!([{"key": state_key(), "string_match": {"exact": ROUTED}}]);
    }
    let mut routes: Vec<Value> = policy.idle_timeouts_ms().into_iter().map(|ms| idle_route(&route, ms)).collect();
    routes.push(route);
    routes.extend(without_gateway_stage);
    routes
}

/// Returns the routes of requests that the gateway stage has not let through: at first all, for Envoy chooses a route
/// before it runs filters, and these routes switch the filter on. If the filter is missing, they refuse the request,
/// whatever headers it has.
fn refusals(route: &Value) -> Vec<Value> {
    let mut named = route.clone();
    named["name"] = "pointsman cluster named by the caller".into();
    named["match"]["headers"] = json!([{"name": CLUSTER_HEADER, "present_match": true}]);
    named["direct_response"] = json!({"status": 500});
    if let Some(members) = named.as_object_mut() {
        members.remove("route");
    }
    // Not a direct response, to which no `request_body_buffer_limit` applies. Without the header it has no cluster.
    let mut first = route.clone();
    first["name"] = "pointsman first".into();
    first["route"]["cluster_not_found_response_code"] = "INTERNAL_SERVER_ERROR".into();
    vec![named, first]
}

/// Returns the headers that the router changes.
fn header_changes() -> [(&'static str, Value); 3] {
    [
        // A request that does not say so accepts any coding (RFC 9110, section 12.5.3), and the module reads none.
        (
            "request_headers_to_add",
            json!([{
                "header": {"key": "accept-encoding", "value": "identity"},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }]),
        ),
        // Those that the gateway stage left for the router, and Envoy for the choice of a route.
        ("request_headers_to_remove", json!([CLUSTER_HEADER, IDLE_HEADER, DEADLINE_HEADER, "x-forwarded-proto"])),
        // Envoy sets its own. The module handles all other headers, and would handle this one.
        ("response_headers_to_remove", json!(["server"])),
    ]
}

/// Returns the route of streams that may be idle for `ms`. Envoy reads this timer only from the route.
fn idle_route(route: &Value, ms: u64) -> Value {
    let mut route = route.clone();
    route["name"] = format!("pointsman stream {ms}ms").into();
    route["match"]["headers"] = json!([{"name": IDLE_HEADER, "string_match": {"exact": ms.to_string()}}]);
    // An idle timeout in the retry policy has no effect here.
    route["route"]["idle_timeout"] = seconds(ms).into();
    route
}
