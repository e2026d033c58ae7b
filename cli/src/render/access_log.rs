//! The two access logs: one JSON line per request, and one per attempt at a provider.

use super::route;
use super::settings::{LogTarget, SHARED_PREFIX, Settings};
use pointsman_core::routing::dispatch::STATE_AUDIT;
use serde_json::{Value, json};

/// Returns the request loggers: the module's audit record, or Envoy's own data if the module wrote none.
pub fn requests(settings: &Settings) -> Value {
    let state = format!("wasm.{STATE_AUDIT}");
    let without = format!("!('{state}' in filter_state)");
    // The module writes the whole line with its newline, so nothing is written without a record.
    let record = json!({
        "text_format_source": {"inline_string": format!("%FILTER_STATE({state}:PLAIN)%")},
        "omit_empty_values": true,
    });
    let no_record = json!({
        "start_time": "%START_TIME%",
        "trace_id": "%REQ(X-REQUEST-ID)%",
        "response_flags": "%RESPONSE_FLAGS%",
        "status": "%RESPONSE_CODE%",
        "error_code": "%RESPONSE_CODE_DETAILS%",
        "latency_ms": "%DURATION%",
        "policy_decision": "none",
    });
    let mut failed = failed_without_record(&without);
    if settings.shared {
        failed = both(failed, of_gateway(settings));
    }
    json!([logger(settings, &record, None), logger(settings, &json!({"json_format": no_record}), Some(failed))])
}

/// Matches requests to the gateway in a shared listener: those that its stage has routed, and those that never came to
/// it, by their path and host. Once a provider is chosen, these are the provider's.
pub fn of_gateway(settings: &Settings) -> Value {
    let arrived = header(":path", &json!({"prefix": SHARED_PREFIX}));
    let arrived = match &settings.mesh {
        Some(mesh) => both(arrived, header(":authority", &json!({"safe_regex": {"regex": authority(&mesh.hosts)}}))),
        None => arrived,
    };
    let routed = cel(&format!("'{}' in filter_state", route::state_key()));
    json!({"or_filter": {"filters": [arrived, routed]}})
}

fn header(name: &str, matched: &Value) -> Value {
    json!({"header_filter": {"header": {"name": name, "string_match": matched}}})
}

/// Returns the regular expression of what leads Envoy to the virtual host with these domains where ports are ignored:
/// the name in letters of any case, and what follows its last colon is the port, whatever it is.
fn authority(hosts: &[String]) -> String {
    let hosts: Vec<_> = hosts.iter().map(|host| host.replace('.', r"\.")).collect();
    format!(r"(?i)({})(:[^:\]]*)?", hosts.join("|"))
}

/// Matches what both filters match.
pub fn both(one: Value, other: Value) -> Value {
    json!({"and_filter": {"filters": [one, other]}})
}

/// Response headers by which the model stage passes the model and the attempt number to the attempt log.
const MODEL: &str = "x-pointsman-model";
const ATTEMPTS: &str = "x-pointsman-attempts";

/// Returns the attempt logger, which the router runs.
pub fn attempts(settings: &Settings) -> Value {
    let attempt = json!({
        "trace_id": "%REQ(X-REQUEST-ID)%",
        // Envoy's own count is 0 in this log. The model stage's count is text: an expression to make it a number costs
        // as much as the rest of the line.
        "attempt": format!("%RESP({ATTEMPTS})%"),
        "attempt_provider": "%UPSTREAM_METADATA(pointsman:provider)%",
        "attempt_model": format!("%RESP({MODEL})%"),
        "status": "%RESPONSE_CODE%",
        "response_flags": "%RESPONSE_FLAGS%",
        "upstream_host": "%UPSTREAM_HOST%",
        "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
        "transport_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
        "duration_ms": "%DURATION%",
    });
    // The router also logs requests to the other clusters of a shared listener. Their endpoints name no provider.
    let to_provider = settings.shared.then(|| cel("'pointsman' in xds.upstream_host_metadata.filter_metadata"));
    json!([logger(settings, &json!({"json_format": attempt}), to_provider)])
}

/// The upstream filter for attempts without a model stage. It removes the headers that the log would read as the model
/// stage's, because only the provider can have set them. The log then has null; the audit record has the model.
pub fn honest_attempt() -> Value {
    json!({
        "name": "pointsman.attempt",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"response_mutations": [{"remove": MODEL}, {"remove": ATTEMPTS}]},
        },
    })
}

fn logger(settings: &Settings, format: &Value, when: Option<Value>) -> Value {
    let (name, mut config) = match &settings.access_log {
        LogTarget::Stdout => (
            "envoy.access_loggers.stdout",
            json!({"@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"}),
        ),
        LogTarget::File(path) => (
            "envoy.access_loggers.file",
            json!({"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": path}),
        ),
    };
    config["log_format"] = format.clone();
    let mut logger = json!({"name": name, "typed_config": config});
    if let Some(filter) = when {
        logger["filter"] = filter;
    }
    logger
}

/// Matches requests that failed before the module saw them. The cheap status check comes first.
fn failed_without_record(expression: &str) -> Value {
    let status = |op: &str, value: u32| {
        let value = json!({"default_value": value, "runtime_key": "pointsman.access_log.status"});
        json!({"status_code_filter": {"comparison": {"op": op, "value": value}}})
    };
    both(json!({"or_filter": {"filters": [status("GE", 400), status("EQ", 0)]}}), cel(expression))
}

/// Matches requests for which a CEL expression is true.
pub fn cel(expression: &str) -> Value {
    json!({"extension_filter": {
        "name": "envoy.access_loggers.extension_filters.cel",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            "expression": expression,
        },
    }})
}

#[cfg(test)]
mod tests {
    use super::authority;
    use regex::Regex;

    /// As Envoy does for a virtual host whose domains are lower case, with `ignore_port_in_host_matching`.
    #[test]
    fn the_host_is_matched_as_envoy_routes_it() {
        let hosts = ["llm.example.com", "llm"].map(str::to_owned);
        let matches = Regex::new(&format!("^(?:{})$", authority(&hosts))).unwrap();
        for ours in ["llm.example.com", "LLM.Example.COM", "llm.example.com:", "llm:abc", "llm:99999", "LLM:80"] {
            assert!(matches.is_match(ours), "{ours}");
        }
        for other in ["llm.example.com.", "llmxexample.com", "llm:1:2", "a.llm", "llm.example.org", "", "llm:[::1]"] {
            assert!(!matches.is_match(other), "{other}");
        }
    }
}
