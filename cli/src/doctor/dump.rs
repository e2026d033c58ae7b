//! What a config dump has: the resources of a running Envoy, by kind and name.

use super::finding::Finding;
use crate::render::version::EnvoyVersion;
use serde_json::Value;
use std::collections::BTreeMap;

/// Whether the admin interface offers `/logging`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logging {
    /// Everyone who reaches it can make Envoy log callers' keys.
    Offered,
    /// It does not.
    Refused,
    /// The admin interface was not asked.
    Unknown,
}

/// The resources of an Envoy.
#[derive(Debug)]
pub struct Dump {
    /// Envoy's version, if it is one that Pointsman supports.
    pub version: Option<EnvoyVersion>,
    /// The bootstrap.
    pub bootstrap: Value,
    /// The listeners, static and discovered.
    pub listeners: Vec<Value>,
    /// The clusters by name, static and discovered.
    pub clusters: BTreeMap<String, Value>,
    /// The endpoints by cluster, where Envoy got them by EDS.
    pub endpoints: BTreeMap<String, Value>,
    /// The route configurations by name that listeners got by RDS.
    pub routes: BTreeMap<String, Value>,
    /// The filters by name that came by ECDS: their `typed_config`.
    pub filters: BTreeMap<String, Value>,
    /// What the admin interface does with `/logging`.
    pub logging: Logging,
    /// The updates that Envoy has rejected: the resource and the reason.
    errors: Vec<(String, String)>,
}

impl Dump {
    /// Reads the answer of `/config_dump?include_eds`.
    ///
    /// # Errors
    /// If it is not one.
    pub fn read(text: &str, version: Option<EnvoyVersion>) -> Result<Self, String> {
        let document: Value = serde_json::from_str(text).map_err(|e| format!("not a config dump: {e}"))?;
        let configs = document.get("configs").and_then(Value::as_array).ok_or("not a config dump: no `configs`")?;
        let mut dump = Self {
            version,
            bootstrap: Value::Null,
            listeners: Vec::new(),
            clusters: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            routes: BTreeMap::new(),
            filters: BTreeMap::new(),
            logging: Logging::Unknown,
            errors: Vec::new(),
        };
        for config in configs {
            if let Some(bootstrap) = config.get("bootstrap") {
                dump.bootstrap = bootstrap.clone();
            }
            for (list, items) in config.as_object().into_iter().flatten() {
                items.as_array().into_iter().flatten().for_each(|item| dump.take(list, item));
            }
        }
        if dump.bootstrap.is_null() {
            return Err("not a whole config dump: it has no bootstrap".to_owned());
        }
        if dump.version.is_none() {
            let number = |part: &str| dump.bootstrap.pointer(&format!("/node/user_agent_build_version/version/{part}"));
            let number = |part: &str| number(part).and_then(Value::as_u64).unwrap_or(0);
            dump.version = format!("{}.{}", number("major_number"), number("minor_number")).parse().ok();
        }
        Ok(dump)
    }

    /// Takes an item of a list in the dump.
    fn take(&mut self, list: &str, item: &Value) {
        let name =
            |resource: &Value, field: &str| resource.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut into = |which: Kind, resource: &Value| {
            let (all, field) = match which {
                Kind::Listener => {
                    self.listeners.push(resource.clone());
                    return;
                }
                Kind::Cluster => (&mut self.clusters, "name"),
                Kind::Endpoints => (&mut self.endpoints, "cluster_name"),
                Kind::Routes => (&mut self.routes, "name"),
            };
            all.insert(name(resource, field), resource.clone());
        };
        match list {
            "static_listeners" => item.get("listener").into_iter().for_each(|found| into(Kind::Listener, found)),
            "dynamic_listeners" => {
                item.pointer("/active_state/listener").into_iter().for_each(|found| into(Kind::Listener, found));
            }
            "static_clusters" | "dynamic_active_clusters" => {
                item.get("cluster").into_iter().for_each(|found| into(Kind::Cluster, found));
            }
            "static_endpoint_configs" | "dynamic_endpoint_configs" => {
                item.get("endpoint_config").into_iter().for_each(|found| into(Kind::Endpoints, found));
            }
            "static_route_configs" | "dynamic_route_configs" => {
                item.get("route_config").into_iter().for_each(|found| into(Kind::Routes, found));
            }
            "ecds_filters" => {
                if let Some(filter) = item.get("ecds_filter")
                    && let Some(typed) = filter.get("typed_config")
                {
                    self.filters.insert(name(filter, "name"), typed.clone());
                }
            }
            _ => {}
        }
        if let Some(details) = item.pointer("/error_state/details").and_then(Value::as_str) {
            let resource = ["/error_state/failed_configuration/name", "/name", "/cluster/name", "/route_config/name"];
            let resource = resource.iter().find_map(|at| item.pointer(at).and_then(Value::as_str)).unwrap_or(list);
            self.errors.push((resource.to_owned(), details.to_owned()));
        }
    }

    /// Returns a finding for each update that Envoy has rejected: what it has is older than what it was sent.
    pub fn rejected(&self) -> Vec<Finding> {
        let of = |(resource, details): &(String, String)| {
            let what = format!("Envoy rejected the last update: {}", details.trim());
            Finding::new(resource, &what, "it runs on an older configuration", "what the message asks for")
        };
        self.errors.iter().map(of).collect()
    }

    /// Returns the type and the configuration of a filter: its own, or the one that came by ECDS. `None` if it has
    /// none, or has not received it.
    pub fn typed<'a>(&'a self, filter: &'a Value) -> Option<(&'a str, &'a Value)> {
        let typed = match filter.get("config_discovery") {
            Some(_) => self.filters.get(filter.get("name")?.as_str()?)?,
            None => filter.get("typed_config")?,
        };
        Some(unwrapped(typed))
    }
}

/// The kinds of resources that are kept by name, and listeners.
enum Kind {
    Listener,
    Cluster,
    Endpoints,
    Routes,
}

/// Returns the type of a configuration, without its prefix, and the configuration. Control planes wrap one that they do
/// not know in a `TypedStruct`.
pub fn unwrapped(typed: &Value) -> (&str, &Value) {
    let kind = typed.get("@type").and_then(Value::as_str).unwrap_or_default();
    let (kind, value) = match kind.ends_with(".TypedStruct") {
        true => {
            (typed.get("type_url").and_then(Value::as_str).unwrap_or_default(), typed.get("value").unwrap_or(typed))
        }
        false => (kind, typed),
    };
    (kind.rsplit('/').next().unwrap_or(kind), value)
}

/// Returns the items of a list at a JSON pointer; none if there is no list.
pub fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// Returns a number. JSON has 64-bit numbers of protocol buffers as text.
pub fn number(value: Option<&Value>) -> Option<u64> {
    let value = value?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}
