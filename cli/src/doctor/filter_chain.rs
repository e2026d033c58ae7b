//! The connection managers that have the gateway stage, and the order of their filters.

use super::dump::{Dump, items, unwrapped};
use super::finding::Finding;
use super::logs;
use super::stage::{self, Filter, Stage};
use crate::render::version::EnvoyVersion;
use serde_json::Value;

/// A connection manager with the gateway stage.
pub struct Chain<'a> {
    /// Its listener and filter chain.
    pub place: String,
    /// The listener.
    pub listener: &'a Value,
    /// The connection manager.
    pub manager: &'a Value,
    /// The name of the gateway stage's filter, and whether only routes enable it.
    pub filter: &'a str,
    /// Whether only routes enable the filter.
    pub is_disabled: bool,
    /// The gateway stage; `None` if it has not been received.
    pub gateway: Option<Stage<'a>>,
    filters: Vec<Filter<'a>>,
    at: usize,
}

/// Filters that may edit or read the body and so must not come between the gateway stage and the provider: the module
/// has counted and signed off what it saw.
const OF_BODIES: [&str; 13] = [
    "aws_lambda",
    "buffer",
    "compressor",
    "decompressor",
    "ext_proc",
    "file_system_buffer",
    "grpc_json_transcoder",
    "json_to_metadata",
    "lua",
    "dynamic_modules",
    "proto_message_extraction",
    "thrift_to_metadata",
    "wasm",
];

/// Filters that say who calls. The gateway stage reads their headers.
const OF_IDENTITY: [&str; 6] = ["api_key_auth", "basic_auth", "ext_authz", "jwt_authn", "oauth2", "rbac"];

/// Returns the connection managers with the gateway stage.
pub fn with_gateway(dump: &Dump) -> Vec<Chain<'_>> {
    let mut found = Vec::new();
    for listener in &dump.listeners {
        let name = listener.get("name").and_then(Value::as_str).unwrap_or("without a name");
        let chains = items(listener, "/filter_chains").chain(listener.get("default_filter_chain"));
        for chain in chains {
            let managers = items(chain, "/filters").filter_map(|filter| filter.get("typed_config")).map(unwrapped);
            let managers = managers.filter(|(kind, _)| kind.ends_with(".HttpConnectionManager"));
            found.extend(managers.filter_map(|(_, manager)| Chain::new(dump, name, listener, manager)));
        }
    }
    found
}

/// Whether a filter does nothing but on routes that switch it on: it is disabled, or it is an external processor that
/// is shown nothing, like that of an InferencePool.
fn is_idle(filter: &Value) -> bool {
    if filter.get("disabled") == Some(&Value::Bool(true)) {
        return true;
    }
    let Some((kind, config)) = filter.get("typed_config").map(unwrapped) else { return false };
    let skips = |mode: &str| config.pointer(&format!("/processing_mode/{mode}")).and_then(Value::as_str);
    kind.ends_with(".ExternalProcessor")
        && ["request_header_mode", "response_header_mode"].into_iter().all(|mode| skips(mode) == Some("SKIP"))
        && ["request_body_mode", "response_body_mode"].into_iter().all(|mode| skips(mode).is_none_or(|is| is == "NONE"))
}

impl<'a> Chain<'a> {
    fn new(dump: &'a Dump, name: &str, listener: &'a Value, manager: &'a Value) -> Option<Self> {
        let all: Vec<&Value> = items(manager, "/http_filters").collect();
        let filters: Vec<Filter> = all.iter().map(|filter| stage::filter(dump, filter)).collect();
        let is_gateway = |filter: &Filter| match filter {
            Filter::Stage(stage) => stage.is_gateway(),
            Filter::NotReceived(name) => name.contains("pointsman"),
            Filter::Other(_) => false,
        };
        let at = filters.iter().position(is_gateway)?;
        let own = all.get(at)?;
        let gateway = match filters.get(at)? {
            Filter::Stage(stage) => Some(*stage),
            _ => None,
        };
        Some(Self {
            place: format!("listener {name}"),
            listener,
            manager,
            filter: own.get("name").and_then(Value::as_str).unwrap_or_default(),
            is_disabled: own.get("disabled") == Some(&Value::Bool(true)),
            gateway,
            filters,
            at,
        })
    }

    /// Returns what the connection manager lacks.
    pub fn examine(&self, version: Option<EnvoyVersion>) -> Vec<Finding> {
        let mut findings = match &self.gateway {
            Some(stage) => stage.examine(&format!("{}: {}", self.place, self.filter)),
            None => vec![Finding::new(
                &self.place,
                &format!("the filter {} has not been received", self.filter),
                "Envoy answers every request with 500",
                "the resource of that name to what `config_discovery` names: ecds.yaml of `pointsman render`",
            )],
        };
        findings.extend(self.order());
        findings.extend(logs::examine(&self.place, self.manager));
        let unread = "per_connection_buffer_high_watermark_timeout";
        if version.is_some_and(EnvoyVersion::has_watermark_timeout) && self.listener.get(unread).is_none() {
            findings.push(Finding::new(
                &self.place,
                &format!("no `{unread}`"),
                "a caller that does not read its response is recorded as `chunk_timeout` of the provider",
                &format!("{unread}: 30s"),
            ));
        }
        findings
    }

    /// Returns the filters that are in the wrong place.
    fn order(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let after = self.filters.iter().zip(items(self.manager, "/http_filters")).skip(self.at + 1);
        for (filter, config) in after {
            let Filter::Other(kind) = filter else { continue };
            if is_idle(config) {
                continue;
            }
            // envoy.extensions.filters.http.NAME.v3.Message
            let name = kind.rsplit('.').nth(2).unwrap_or(kind);
            let why = match name {
                name if OF_BODIES.contains(&name) => "it may edit bodies after Pointsman has read them",
                name if OF_IDENTITY.contains(&name) => "Pointsman reads what it says of the caller, before it has run",
                _ => continue,
            };
            let what = format!("the filter {name} comes after {}", self.filter);
            findings.push(Finding::new(
                &self.place,
                &what,
                why,
                &format!("{} below it in `http_filters`", self.filter),
            ));
        }
        findings
    }
}
