//! The routes to the plan clusters.

use super::dump::{Dump, items, number};
use super::filter_chain::Chain;
use super::finding::Finding;
use crate::render::route::{CLUSTER_HEADER, state_key};
use crate::render::version::EnvoyVersion;
use pointsman_core::policy::Policy;
use pointsman_core::policy::clusters;
use pointsman_core::policy::resilience::{IDLE_HEADER, NEXT_HEADER};
use serde_json::Value;

/// Returns the route configuration of a connection manager, if it has one already.
fn configuration<'a>(dump: &'a Dump, chain: &'a Chain) -> Option<&'a Value> {
    let name = chain.manager.pointer("/rds/route_config_name").and_then(Value::as_str);
    chain.manager.get("route_config").or_else(|| dump.routes.get(name?))
}

/// Returns whether a route of a connection manager leads to a plan, or enables the gateway stage.
pub fn use_gateway(dump: &Dump, chain: &Chain) -> bool {
    let hosts = configuration(dump, chain).into_iter().flat_map(|all| items(all, "/virtual_hosts"));
    let mut routes = hosts.flat_map(|host| items(host, "/routes"));
    routes.any(|route| text(route, "/route/cluster_header") == Some(CLUSTER_HEADER) || enables(route, chain.filter))
}

/// Returns what the routes of a connection manager lack.
pub fn examine(dump: &Dump, chain: &Chain, policy: &Policy) -> Vec<Finding> {
    let Some(configuration) = configuration(dump, chain) else {
        return vec![Finding::new(
            &chain.place,
            "no route configuration has been received",
            "Envoy answers every request with 404",
            "the resource of that name to what `rds` names: rds.yaml of `pointsman render`",
        )];
    };
    let place = format!("{}: routes", chain.place);
    let hosts: Vec<&Value> = items(configuration, "/virtual_hosts").collect();
    let routes = hosts.iter().flat_map(|host| items(host, "/routes"));
    let routes: Vec<&Value> =
        routes.filter(|route| text(route, "/route/cluster_header") == Some(CLUSTER_HEADER)).collect();
    let missing = |what: &str, why: &str, add: &str| Finding::new(&place, what, why, add);
    if routes.is_empty() {
        return vec![missing(
            &format!("no route has `cluster_header: {CLUSTER_HEADER}`"),
            "no request reaches a provider",
            &format!("route: {{cluster_header: {CLUSTER_HEADER}, …}}: the routes of rds.yaml, before your own"),
        )];
    }
    let mut findings = Vec::new();
    let all = |holds: &dyn Fn(&Value) -> bool| routes.iter().all(|route| holds(route));
    if !all(&|route| route.pointer("/route/auto_host_rewrite") == Some(&Value::Bool(true))) {
        findings.push(missing(
            "no `auto_host_rewrite`",
            "the provider receives the caller's Host",
            "route: {auto_host_rewrite: true}",
        ));
    }
    if !all(&|route| route.pointer("/route/max_stream_duration/grpc_timeout_header_max").is_some()) {
        findings.push(missing(
            "no `grpc_timeout_header_max`",
            "a caller's deadline does not end its request",
            "route: {max_stream_duration: {grpc_timeout_header_max: 0s}}",
        ));
    }
    let retries = clusters::longest(policy).saturating_sub(1) as u64;
    let retried = |route: &Value| {
        let count = number(route.pointer("/route/retry_policy/num_retries")).unwrap_or(1);
        let headers = items(route, "/route/retry_policy/retriable_headers");
        let names = headers.filter_map(|header| text(header, "/name")).any(|name| name == NEXT_HEADER);
        route.pointer("/route/retry_policy").is_some() && count >= retries && names
    };
    if retries > 0 && !all(&retried) {
        findings.push(missing(
            &format!("`num_retries` is below {retries}, or `retriable_headers` lacks {NEXT_HEADER}"),
            "the next model does not serve when one fails",
            &format!(
                "route: {{retry_policy: {{num_retries: {retries}, retriable_headers: [{{name: {NEXT_HEADER}, \
                 present_match: true}}]}}}}"
            ),
        ));
    }
    if chain.is_disabled && !all(&|route| enables(route, chain.filter)) {
        findings.push(missing(
            &format!("they do not enable {}, which is disabled", chain.filter),
            "the gateway stage does not run, and Envoy refuses every request",
            &format!(
                "typed_per_filter_config: {{{}: {{\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, \
                 config: {{}}}}}}",
                chain.filter
            ),
        ));
    }
    if chain.is_disabled && hosts.iter().any(|host| obeys_callers(host)) {
        findings.push(missing(
            &format!("a route with `cluster_header` does not ask for the filter state {}", state_key()),
            "wherever the gateway stage does not run, a client can choose the cluster by a header",
            "the routes of rds.yaml, as they are and in their order",
        ));
    }
    for ms in policy.idle_timeouts_ms() {
        let is_for = |route: &&Value| {
            let mut matches = items(route, "/match/headers");
            matches.any(|header| {
                text(header, "/name") == Some(IDLE_HEADER)
                    && text(header, "/string_match/exact") == Some(ms.to_string().as_str())
            })
        };
        if !routes.iter().any(is_for) {
            findings.push(missing(
                &format!("no route for streams that may be idle for {ms} ms"),
                "the policy's `chunk_timeout` does not apply",
                &format!(
                    "match: {{headers: [{{name: {IDLE_HEADER}, string_match: {{exact: \"{ms}\"}}}}]}}, as in rds.yaml"
                ),
            ));
        }
    }
    if !hides_own_headers(configuration, &hosts, &routes) {
        findings.push(missing(
            &format!("`request_headers_to_remove` does not have {CLUSTER_HEADER}"),
            "providers receive the gateway's own headers",
            "request_headers_to_remove: <request_headers_to_remove of rds.yaml>",
        ));
    }
    findings.extend(buffers(dump, chain, policy, &place, &routes));
    findings
}

fn enables(route: &Value, filter: &str) -> bool {
    let own = route.get("typed_per_filter_config").and_then(|all| all.get(filter));
    own.is_some_and(|own| own.get("disabled") != Some(&Value::Bool(true)))
}

/// Whether a request that the gateway stage has not seen reaches the cluster that it names itself.
fn obeys_callers(host: &Value) -> bool {
    for route in items(host, "/routes") {
        let refused = |header: &Value| {
            text(header, "/name") == Some(CLUSTER_HEADER) && header.get("present_match") == Some(&Value::Bool(true))
        };
        if route.get("direct_response").is_some() && items(route, "/match/headers").any(refused) {
            return false;
        }
        let is_asked = items(route, "/match/filter_state").any(|state| text(state, "/key") == Some(&state_key()));
        if text(route, "/route/cluster_header") == Some(CLUSTER_HEADER) && !is_asked {
            return true;
        }
    }
    false
}

/// Whether the header with the cluster is removed from each request, on one of the levels that can.
fn hides_own_headers(configuration: &Value, hosts: &[&Value], routes: &[&Value]) -> bool {
    let removes =
        |level: &Value| items(level, "/request_headers_to_remove").any(|name| name.as_str() == Some(CLUSTER_HEADER));
    let on_host = |route: &Value| {
        hosts.iter().any(|host| removes(host) && items(host, "/routes").any(|one| std::ptr::eq(one, route)))
    };
    removes(configuration) || routes.iter().all(|route| removes(route) || on_host(route))
}

/// Returns whether a request of the size that the policy allows would be refused by Envoy.
fn buffers(dump: &Dump, chain: &Chain, policy: &Policy, place: &str, routes: &[&Value]) -> Option<Finding> {
    const DEFAULT: u64 = 1 << 20;
    let most = policy.request.max_body_bytes;
    let of_listener = number(chain.listener.get("per_connection_buffer_limit_bytes")).unwrap_or(DEFAULT);
    let on_route = dump.version.is_none_or(EnvoyVersion::has_route_buffer_limit);
    let of_route = |route: &Value| {
        let own = number(route.get("request_body_buffer_limit")).filter(|_| on_route);
        own.unwrap_or(of_listener) >= most
    };
    if routes.iter().all(|route| of_route(route)) {
        return None;
    }
    let limit = crate::render::route::buffer_limit(policy);
    let why = format!("Envoy answers 413 to prompts that the policy allows (`request.max_body_bytes`: {most})");
    Some(match on_route {
        true => {
            let add = format!("request_body_buffer_limit: {limit}");
            Finding::new(place, "`request_body_buffer_limit` is too low", &why, &add)
        }
        false => {
            let add = format!("per_connection_buffer_limit_bytes: {limit}");
            Finding::new(&chain.place, "`per_connection_buffer_limit_bytes` is too low", &why, &add)
        }
    })
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}
