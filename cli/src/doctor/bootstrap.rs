//! What only the bootstrap can have: labels of metrics, the admin interface, the node.

use super::dump::{Dump, Logging, items};
use super::finding::Finding;
use crate::render::version::EnvoyVersion;
use pointsman_core::telemetry::metrics::LABELS;
use serde_json::Value;

/// Returns what the bootstrap lacks.
pub fn examine(dump: &Dump) -> Vec<Finding> {
    let mut findings = Vec::new();
    let has = |label: &str| {
        let tags = items(&dump.bootstrap, "/stats_config/stats_tags");
        let mut regexes = tags.filter(|tag| tag.get("tag_name").and_then(Value::as_str) == Some(label));
        regexes.any(|tag| tag.get("regex").and_then(Value::as_str).is_some_and(|regex| regex.contains("llm_")))
    };
    for label in LABELS.iter().filter(|label| !has(label)) {
        findings.push(Finding::new(
            "bootstrap: stats_config.stats_tags",
            &format!("no tag \"{label}\""),
            "the label stays a part of the metrics' names",
            &format!("- {{tag_name: {label}, regex: '^wasmcustom\\.llm_.*?(\\|{label}=([^|]*))'}}"),
        ));
    }
    if dump.bootstrap.pointer("/node/id").and_then(Value::as_str).is_none_or(str::is_empty) {
        findings.push(Finding::new(
            "bootstrap: node",
            "no `id`",
            "Envoy loads nothing by discovery, from files neither",
            "node: {id: envoy, cluster: envoy}",
        ));
    }
    // Where a control plane made the bootstrap, it also uses the admin interface.
    let is_own = dump.bootstrap.pointer("/dynamic_resources/lds_config").is_none();
    let can_be_limited = is_own && dump.version.is_none_or(EnvoyVersion::has_admin_paths);
    if dump.logging == Logging::Offered && can_be_limited {
        findings.push(Finding::new(
            "bootstrap: admin",
            "`/logging` is offered",
            "a program that reaches the admin interface can make Envoy log all headers, keys of callers included",
            "allow_paths: <allow_paths of bootstrap.yaml>",
        ));
    }
    findings
}
