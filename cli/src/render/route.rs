//! The one route: every request goes to the plan cluster that the gateway stage names.

use super::settings::Settings;
use pointsman_core::plans;
use pointsman_core::policy::Policy;
use serde_json::{Value, json};

/// Name of the route configuration.
pub const NAME: &str = "pointsman";

/// What Envoy may hold of a request beyond the policy's limit, in bytes. A chunk that goes past the limit must still fit,
/// so that the module sees it and answers in the caller's dialect; past this, Envoy answers 413 by itself.
const SLACK: u64 = 2 << 20;

/// Bytes of a request that Envoy may hold.
pub fn buffer_limit(policy: &Policy) -> u64 {
    policy.limits.max_body_bytes + SLACK
}

/// The route configuration.
pub fn configuration(settings: &Settings, policy: &Policy) -> Value {
    let mut retry_policy = json!({
        "retry_on": "5xx,reset,connect-failure,refused-stream,retriable-status-codes",
        // 529: Anthropic is overloaded.
        "retriable_status_codes": [408, 409, 429, 529],
        // The gateway stage sets x-envoy-max-retries to its plan's number; this is the most it can be.
        "num_retries": plans::longest(policy) - 1,
        // The next attempt goes to another provider: nothing is won by waiting.
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.010s"},
    });
    if !settings.version.has_composite_cluster() {
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
        "match": {"prefix": "/"},
        "route": {
            "cluster_header": "x-pointsman-cluster",
            // A route timeout would cut streams; the stream idle timeout of the listener ends what has died.
            "timeout": "0s",
            // Each provider is called by its own name.
            "auto_host_rewrite": true,
            "retry_policy": retry_policy,
        },
    });
    // Bytes that Envoy keeps of a request, to read it and to send it again.
    let limit = if settings.version.has_route_buffer_limit() {
        "request_body_buffer_limit"
    } else {
        "per_request_buffer_limit_bytes"
    };
    route[limit] = buffer_limit(policy).into();
    json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": NAME,
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}],
    })
}
