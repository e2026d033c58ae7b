//! The client listener and its HTTP connection manager.

use super::duration::{IDLE_MS, seconds};
use super::settings::Settings;
use super::{access_log, local_replies, route, wasm};
use pointsman_core::outcome::envoy_reply;
use pointsman_core::outcome::reply::REPLY_DETAILS;
use pointsman_core::policy::Policy;
use pointsman_core::policy::resilience::DEADLINE_HEADER;
use pointsman_core::routing::dispatch::{PLAN, STATE_COST, STATE_MODEL};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Name of the listener.
pub const NAME: &str = "gateway";

/// Type URL of the HTTP connection manager.
pub const MANAGER_TYPE: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// How long a connection's write buffer may stay full before Envoy closes it, in milliseconds. While it is full, Envoy
/// reads nothing from the provider, so the idle timer of the stream runs as if the provider were silent. This must fire
/// first to tell the two apart: it is well below the default `chunk_timeout`. Before the buffer is full, the caller has
/// left 1 MiB unread, beyond what both kernels hold.
const UNREAD_MS: u64 = 30_000;

/// Returns a listen address. `[::]` takes IPv4 connections too, as a pod of a dual-stack cluster must.
pub fn address(address: SocketAddr) -> Value {
    let mut socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket["ipv4_compat"] = true.into();
    }
    json!({"socket_address": socket})
}

/// The source of the listener's policy and routes.
pub enum Source {
    /// The files beside it, which may be replaced while Envoy runs.
    Files,
    /// The listener itself, so that `envoy --mode validate`, which reads no other file, checks them too.
    Inline {
        /// The gateway stage's filter.
        filter: Value,
        /// The route configuration.
        routes: Value,
    },
}

/// Returns the listener.
pub fn listener(settings: &Settings, policy: &Policy, from: Source) -> Value {
    let limit = route::buffer_limit(policy);
    let (mut filter, (routes_field, mut routes)) = match from {
        Source::Files => (
            json!({"name": wasm::FILTER, "config_discovery": {
                "config_source": settings.source("ecds.yaml"),
                "type_urls": [wasm::TYPE],
                // Nothing passes without a policy.
                "apply_default_config_without_warming": false,
            }}),
            ("rds", json!({"config_source": settings.source("rds.yaml"), "route_config_name": route::NAME})),
        ),
        Source::Inline { filter, routes } => {
            (json!({"name": wasm::FILTER, "typed_config": filter}), ("route_config", routes))
        }
    };
    if settings.shared {
        filter["disabled"] = true.into();
    }
    if let Some(routes) = routes.as_object_mut() {
        routes.remove("@type");
    }
    let mut manager = json!({
        "@type": MANAGER_TYPE,
        "stat_prefix": NAME,
        "codec_type": "AUTO",
        "access_log": access_log::requests(settings),
        // Callers are not proxies: Envoy must not trust their x-forwarded-for and x-envoy headers.
        "use_remote_address": true,
        // The module would keep both from providers. It is cheaper if they never reach the module.
        "skip_xff_append": true,
        "early_header_mutation_extensions": [callers_own()],
        "normalize_path": true,
        "merge_slashes": true,
        // The id of a model in a path may have slashes, which OpenAI's clients encode. The module takes only paths that
        // it knows, and no other filter sees them.
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "common_http_protocol_options": {
            // x_a and x-a are different to Envoy but the same to many servers behind it.
            "headers_with_underscores_action": "DROP_HEADER",
        },
        // Old programs and load testers (ab, some health checkers) speak HTTP/1.0, and then may name no host.
        "http_protocol_options": {"accept_http_10": true, "default_host_for_http_10": "pointsman"},
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_connection_window_size": 16 << 20,
            "initial_stream_window_size": stream_window(settings, limit),
        },
        "request_headers_timeout": "10s",
        // A prompt of tens of megabytes over a slow line takes minutes.
        "request_timeout": "300s",
        "stream_idle_timeout": seconds(IDLE_MS),
        "local_reply_config": local_replies(settings),
        "always_set_request_id_in_response": true,
        "http_filters": [filter, router(settings)],
    });
    manager[routes_field] = routes;
    let mut listener = json!({
        "name": NAME,
        "address": address(settings.listen),
        "per_connection_buffer_limit_bytes": connection_limit(settings, limit),
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        }]}],
    });
    if settings.version.has_watermark_timeout() {
        listener["per_connection_buffer_high_watermark_timeout"] = unread().into();
    }
    listener
}

/// Returns how long a connection's write buffer may stay full.
pub fn unread() -> String {
    seconds(UNREAD_MS)
}

/// Returns the router filter.
pub fn router(settings: &Settings) -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            "suppress_envoy_headers": true,
            "upstream_log": access_log::attempts(settings),
        },
    })
}

/// Returns what a connection manager that a control plane made needs besides the filter and the routes.
pub fn shared_manager(settings: &Settings, request_limit: u64) -> Value {
    let mut manager = json!({
        "@type": MANAGER_TYPE,
        "access_log": access_log::requests(settings),
        "local_reply_config": local_replies(settings),
        "always_set_request_id_in_response": true,
    });
    if !settings.version.has_route_buffer_limit() {
        manager["http2_protocol_options"] =
            json!({"initial_stream_window_size": stream_window(settings, request_limit)});
    }
    manager
}

/// Removes, before any filter, what clients send about themselves and providers must not see: the program, the
/// compression that it accepts, and the machine details that the OpenAI and Anthropic clients send. Also removes gRPC's
/// deadline, which the routes would apply until the module replaces it.
fn callers_own() -> Value {
    json!({
        "name": "pointsman.caller",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation",
            "mutations": [
                {"remove_on_match": {"key_matcher": {"prefix": "x-stainless-"}}},
                {"remove": "accept-encoding"},
                // The gateway stage sets its own.
                {"remove": DEADLINE_HEADER},
                {"append": {
                    "header": {"key": "user-agent", "value": "pointsman"},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }},
            ],
        },
    })
}

/// What Envoy says when the router's timer for the whole request fires.
const ROUTERS_TIMEOUT: &str = "['response_timeout', 'upstream_response_timeout']";

/// Returns Envoy's own replies, for when the module can no longer answer (a held response breaks off) or cannot answer
/// yet (a request is malformed). The first match applies.
fn local_replies(settings: &Settings) -> Value {
    let reply = |filter: Value, kind: &str, code: &str, message: &str| {
        let error = json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
        json!({
            "filter": filter,
            "body_format_override": {
                "text_format_source": {"inline_string": error.to_string()},
                "content_type": "application/json",
            },
        })
    };
    // The module's own replies have none of these flags. A reply that replaces the last of several failed responses has
    // URX.
    let told = |flags: &[&str], code: &str, message: &str| {
        reply(json!({"response_flag_filter": {"flags": flags}}), "server_error", code, message)
    };
    let header = |name: &str, value: &str| {
        let header = json!({"key": name, "value": value});
        json!({"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"})
    };
    let of_state = |name: &str| format!("%FILTER_STATE(wasm.{name}:PLAIN)%");
    // The last two only of an answer that is assembled from a stream. Envoy omits an empty header.
    let attempted = [
        header("x-pointsman-attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
        header("x-pointsman-model", &of_state(STATE_MODEL)),
        header("x-pointsman-cost-usd", &of_state(STATE_COST)),
    ];
    let mut timeout = told(&["UT"], "attempt_timeout", "The model provider did not respond in time.");
    timeout["headers_to_add"] = json!(attempted);
    // An answer that is assembled from a stream.
    let mut silent = told(&["SI"], "chunk_timeout", "The model provider did not respond in time.");
    silent["filter"] = access_log::both(status("EQ", 504), silent["filter"].take());
    silent["headers_to_add"] = json!(attempted);
    let broken = ["UC", "UR", "LR", "UPE"];
    let mut broken = told(&broken, "provider_unreachable", "The model provider is unavailable. Try again later.");
    broken["headers_to_add"] = json!(attempted);
    broken["status_code"] = 503.into();
    // Before the rest: whether it has a flag depends on Envoy's version. A held answer ends this way. The router's
    // timer is that of the whole request, except without a model stage.
    let at_deadline = with_details(
        "EQ",
        504,
        &format!(
            "== 'max_duration_timeout' || response.code_details in {ROUTERS_TIMEOUT} && \
             xds.cluster_name.startsWith('{PLAN}')"
        ),
    );
    let mut deadline = reply(at_deadline, "server_error", "deadline_exceeded", "The request exceeded its deadline.");
    let [attempts, model, cost] = attempted;
    deadline["headers_to_add"] = json!([attempts, model, cost, header("x-should-retry", "false")]);
    let other = ["LH", "UH", "UF", "UO", "NR", "NC", "DT", "DPE", "SI", "OM", "UMSDR"];
    let mut mappers =
        vec![deadline, timeout, silent, broken, told(&other, "gateway_error", "The request could not be served.")];
    // The rest has no flag. The codes are those of the audit record.
    for (status, kind, message) in [
        (408, "invalid_request_error", "The request was not received in time."),
        (413, "invalid_request_error", "The request is too large."),
        (431, "invalid_request_error", "The request headers are too large."),
        (500, "server_error", "The request could not be served."),
        (400, "invalid_request_error", "The gateway could not understand the request."),
    ] {
        mappers.push(reply(of_envoy(status), kind, envoy_reply::outcome(status).code(), message));
    }
    let mut mappers: Vec<Value> = mappers.into_iter().flat_map(in_both_dialects).collect();
    if settings.shared {
        for mapper in &mut mappers {
            mapper["filter"] = access_log::both(mapper["filter"].take(), access_log::of_gateway(settings));
        }
    }
    json!({"mappers": mappers})
}

/// Returns the mapper for requests of Anthropic's API, then the mapper itself.
fn in_both_dialects(mapper: Value) -> [Value; 2] {
    let body = mapper.pointer("/body_format_override/text_format_source/inline_string").and_then(Value::as_str);
    let error: Value = body.and_then(|body| serde_json::from_str(body).ok()).unwrap_or_default();
    let member = |name: &str| error.pointer(&format!("/error/{name}")).and_then(Value::as_str).unwrap_or_default();
    let of_messages = local_replies::of_messages(&mapper, member("code"), member("message"));
    [of_messages, mapper]
}

/// Matches Envoy's own replies with this status. 400 and 500 stand for their whole class.
///
/// The details tell the module's own replies apart. They are checked last: a reply from the cache has no such status.
fn of_envoy(status: u16) -> Value {
    let op = if status.is_multiple_of(100) { "GE" } else { "EQ" };
    with_details(op, status, &format!("!= '{REPLY_DETAILS}'"))
}

/// Matches replies with such a status and such details.
fn with_details(op: &str, code: u16, details: &str) -> Value {
    access_log::both(status(op, code), access_log::cel(&format!("response.code_details {details}")))
}

/// Matches replies with such a status.
fn status(op: &str, code: u16) -> Value {
    let value = json!({"default_value": code, "runtime_key": format!("pointsman.local_reply.status_{code}")});
    json!({"status_code_filter": {"comparison": {"op": op, "value": value}}})
}

/// Before Envoy 1.37, the connection limit is also the limit of what a filter may hold of an HTTP/1.1 request.
pub fn connection_limit(settings: &Settings, request_limit: u64) -> u64 {
    const ENVOYS_DEFAULT: u64 = 1 << 20;
    if settings.version.has_route_buffer_limit() { ENVOYS_DEFAULT } else { request_limit }
}

/// Before Envoy 1.37, the stream window is also the limit of what a filter may hold of an HTTP/2 request.
pub fn stream_window(settings: &Settings, request_limit: u64) -> u64 {
    const USUAL: u64 = 1 << 20;
    const MOST: u64 = (1 << 31) - 1;
    if settings.version.has_route_buffer_limit() { USUAL } else { request_limit.min(MOST) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_of_all_interfaces_takes_both_families() {
        for (text, expected) in [("[::]:80", json!(true)), ("[::1]:80", Value::Null), ("0.0.0.0:80", Value::Null)] {
            assert_eq!(address(text.parse().unwrap())["socket_address"]["ipv4_compat"], expected, "{text}");
        }
    }
}
