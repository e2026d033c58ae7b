//! The two logs: one JSON line per request, and one per attempt at a provider.

use super::settings::{LogTarget, Settings};
use pointsman_core::routing::dispatch::STATE_AUDIT;
use serde_json::{Value, json};

/// The log of requests: the audit record where the module has written one, else what Envoy itself knows.
pub fn requests(settings: &Settings) -> Value {
    let state = format!("wasm.{STATE_AUDIT}");
    let without = format!("!('{state}' in filter_state)");
    // The whole line, its newline included, comes from the module: without a record nothing at all is written.
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
    json!([
        logger(settings, &record, None),
        logger(settings, &json!({"json_format": no_record}), Some(failed_without_record(&without))),
    ])
}

/// Response headers by which the model stage tells the log of attempts what it knows.
const MODEL: &str = "x-pointsman-model";
const ATTEMPTS: &str = "x-pointsman-attempts";

/// The log of attempts, which the router writes.
pub fn attempts(settings: &Settings) -> Value {
    let attempt = json!({
        "trace_id": "%REQ(X-REQUEST-ID)%",
        // Envoy's own count is 0 in this log. The model stage's is text: an expression that makes a number of it costs
        // as much as all the rest of the line.
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
    json!([logger(settings, &json!({"json_format": attempt}), None)])
}

/// The upstream filter of attempts without a model stage: what the log takes for that stage's words is taken away
/// there, because only the provider can have written it. The log has null then; which model it was is in the audit
/// record.
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

/// Requests that failed before the module saw them. The status, which is cheap to look at, is looked at first.
fn failed_without_record(expression: &str) -> Value {
    let status = |op: &str, value: u32| {
        let value = json!({"default_value": value, "runtime_key": "pointsman.access_log.status"});
        json!({"status_code_filter": {"comparison": {"op": op, "value": value}}})
    };
    let cel = json!({"extension_filter": {
        "name": "envoy.access_loggers.extension_filters.cel",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
            "expression": expression,
        },
    }});
    json!({"and_filter": {"filters": [
        {"or_filter": {"filters": [status("GE", 400), status("EQ", 0)]}},
        cel,
    ]}})
}
