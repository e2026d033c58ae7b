//! A stage of the module, as Envoy was told to run it.

use super::dump::Dump;
use super::finding::Finding;
use crate::render::wasm;
use serde_json::Value;

/// What a filter is.
pub enum Filter<'a> {
    /// A stage of Pointsman's module.
    Stage(Stage<'a>),
    /// One that comes by discovery, and has not come.
    NotReceived(&'a str),
    /// Another filter, by its type.
    Other(&'a str),
}

/// A stage and its configuration.
#[derive(Clone, Copy)]
pub struct Stage<'a> {
    config: &'a Value,
}

/// Returns what a filter is.
pub fn filter<'a>(dump: &'a Dump, filter: &'a Value) -> Filter<'a> {
    let name = filter.get("name").and_then(Value::as_str).unwrap_or_default();
    match dump.typed(filter) {
        Some((kind, typed)) if wasm::TYPE.ends_with(kind) => match typed.get("config") {
            Some(config) if is_ours(config) => Filter::Stage(Stage { config }),
            _ => Filter::Other(kind),
        },
        Some((kind, _)) => Filter::Other(kind),
        None if filter.get("config_discovery").is_some() => Filter::NotReceived(name),
        None => Filter::Other(name),
    }
}

/// The module's roles are its root ids.
fn is_ours(config: &Value) -> bool {
    let root = config.get("root_id").and_then(Value::as_str).unwrap_or_default();
    let text = config.pointer("/configuration/value").and_then(Value::as_str).unwrap_or_default();
    ["gateway", "model"].contains(&root) && text.contains("\"role\"")
}

impl<'a> Stage<'a> {
    /// Returns whether this is the gateway stage, and not the model stage.
    pub fn is_gateway(&self) -> bool {
        self.config.get("root_id").and_then(Value::as_str) == Some("gateway")
    }

    /// Returns the text of its configuration.
    pub fn configuration(&self) -> Option<&'a str> {
        self.config.pointer("/configuration/value").and_then(Value::as_str)
    }

    /// Returns what both stages must have in common.
    pub fn vm(&self) -> &'a Value {
        self.config.get("vm_config").unwrap_or(&Value::Null)
    }

    /// Returns what this stage lacks, whatever its role.
    pub fn examine(&self, place: &str) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.config.get("allow_on_headers_stop_iteration") != Some(&Value::Bool(true)) {
            findings.push(Finding::new(
                place,
                "no `allow_on_headers_stop_iteration`",
                "Envoy holds the body back as long as the module holds the headers, and requests hang",
                "config: {allow_on_headers_stop_iteration: true}",
            ));
        }
        if self.config.get("failure_policy").and_then(Value::as_str) != Some("FAIL_RELOAD") {
            findings.push(Finding::new(
                place,
                "`failure_policy` is not FAIL_RELOAD",
                "after a trap, Envoy answers 503 until it is restarted; with FAIL_OPEN, requests pass without a check",
                "config: {failure_policy: FAIL_RELOAD}",
            ));
        }
        findings
    }
}
