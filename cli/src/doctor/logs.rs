//! What a connection manager and its router must log and answer.

use super::dump::{items, unwrapped};
use super::finding::Finding;
use pointsman_core::outcome::reply::REPLY_DETAILS;
use pointsman_core::routing::dispatch::STATE_AUDIT;
use serde_json::Value;

/// Returns what of the logs and of Envoy's own answers is missing.
pub fn examine(place: &str, manager: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let record = format!("wasm.{STATE_AUDIT}:PLAIN");
    if !mentions(manager.get("access_log"), &record) {
        findings.push(Finding::new(
            place,
            "no access log has the audit record",
            "no request is recorded",
            &format!(
                "access_log: log_format: {{omit_empty_values: true, text_format_source: {{inline_string: \
                 \"%FILTER_STATE({record})%\"}}}}"
            ),
        ));
    }
    let router = items(manager, "/http_filters").filter_map(|filter| filter.get("typed_config")).map(unwrapped);
    let router = router.filter(|(kind, _)| kind.ends_with(".Router")).map(|(_, router)| router).last();
    let router = router.unwrap_or(&Value::Null);
    const PROVIDER: &str = "UPSTREAM_METADATA(pointsman:provider)";
    if !mentions(router.get("upstream_log"), PROVIDER) {
        findings.push(Finding::new(
            place,
            "the router's `upstream_log` has no `attempt_provider`",
            "no attempt is recorded",
            &format!("upstream_log: log_format: {{json_format: {{attempt_provider: \"%{PROVIDER}%\", …}}}}"),
        ));
    }
    if router.get("suppress_envoy_headers") != Some(&Value::Bool(true)) {
        findings.push(Finding::new(
            place,
            "the router has no `suppress_envoy_headers`",
            "providers receive Envoy's own headers, with the attempts and the timeouts",
            "suppress_envoy_headers: true",
        ));
    }
    if !mentions(manager.get("local_reply_config"), REPLY_DETAILS) {
        findings.push(Finding::new(
            place,
            "no `local_reply_config` of Pointsman's",
            "Envoy's own errors, a timeout for example, are plain text instead of OpenAI's error object",
            "local_reply_config: <local_reply_config of bootstrap.yaml>",
        ));
    }
    findings
}

/// Whether a text is part of a tree.
fn mentions(tree: Option<&Value>, text: &str) -> bool {
    match tree {
        Some(Value::String(string)) => string.contains(text),
        Some(Value::Array(list)) => list.iter().any(|item| mentions(Some(item), text)),
        Some(Value::Object(members)) => members.values().any(|member| mentions(Some(member), text)),
        _ => false,
    }
}
