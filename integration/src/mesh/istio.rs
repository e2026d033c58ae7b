//! istiod's EnvoyFilters: applies them as `pilot/pkg/networking/core/envoyfilter` of istio/istio does, as far as they
//! are used here. An operation that is not used panics.

use super::resources::{Resources, merge, name};
use serde_json::Value;
use std::collections::BTreeMap;

const MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// A proxy that asks istiod for its configuration.
pub struct Proxy<'a> {
    /// Its version, such as `1.30.2`.
    pub version: &'a str,
    /// The labels of its pod.
    pub labels: &'a [(&'a str, &'a str)],
    /// `GATEWAY`, or `SIDECAR_OUTBOUND` for the outbound half of a sidecar.
    pub context: &'a str,
    /// The ports of the gateway's Services, by the port at which its pod listens.
    pub ports: &'a BTreeMap<u64, Vec<u64>>,
}

/// Applies all EnvoyFilters that select a proxy. As in istiod, each kind of patch has its own pass.
pub fn apply(resources: &mut Resources, filters: &[Value], proxy: &Proxy) {
    let selects = |filter: &&Value| {
        let labels = filter["spec"]["workloadSelector"]["labels"].as_object();
        let has = |(key, value): (&String, &Value)| proxy.labels.iter().any(|(k, v)| k == key && *v == value);
        labels.is_none_or(|labels| labels.into_iter().all(has))
    };
    let patches = filters.iter().filter(selects).flat_map(|filter| {
        let patches = filter["spec"]["configPatches"].as_array().expect("an EnvoyFilter has patches");
        patches.iter().map(Patch)
    });
    let patches: Vec<_> = patches.filter(|patch| patch.is_for(proxy)).collect();
    let of = |kind: &str| -> Vec<&Patch> { patches.iter().filter(|patch| patch.0["applyTo"] == kind).collect() };
    resources.clusters.extend(of("CLUSTER").into_iter().map(Patch::added));
    resources.extensions.extend(of("EXTENSION_CONFIG").into_iter().map(Patch::added));
    for listener in &mut resources.listeners {
        patch_listener(listener, &of);
    }
    for routes in &mut resources.routes {
        patch_routes(routes, &of, proxy);
    }
}

type Of<'a, 'p> = dyn Fn(&str) -> Vec<&'p Patch<'p>> + 'a;

struct Patch<'a>(&'a Value);

impl Patch<'_> {
    fn is_for(&self, proxy: &Proxy) -> bool {
        let context = self.0["match"]["context"].as_str().expect("a patch has a context");
        let version = self.0["match"]["proxy"]["proxyVersion"].as_str().expect("a patch has a version");
        context == proxy.context && version_matches(version, proxy.version)
    }

    fn operation(&self) -> &str {
        self.0["patch"]["operation"].as_str().expect("a patch has an operation")
    }

    fn value(&self) -> &Value {
        &self.0["patch"]["value"]
    }

    fn added(&self) -> Value {
        assert_eq!(self.operation(), "ADD", "{}", self.0);
        self.value().clone()
    }

    fn listener(&self) -> &Value {
        &self.0["match"]["listener"]
    }

    /// `listenerMatch`: no port matches every listener.
    fn matches_listener(&self, listener: &Value) -> bool {
        let port = &self.listener()["portNumber"];
        port.is_null() || *port == listener["address"]["socket_address"]["port_value"]
    }

    fn route_configuration(&self) -> &Value {
        &self.0["match"]["routeConfiguration"]
    }

    /// `routeConfigurationMatch`: for a gateway, the port of its Service, and the Gateway, which only the name of an
    /// HTTPS server's routes has; for a sidecar, the port in the name.
    fn matches_routes(&self, routes: &Value, proxy: &Proxy) -> bool {
        let Some(port) = self.route_configuration()["portNumber"].as_u64() else { return true };
        let number = |text: &str| text.parse::<u64>().ok();
        let name = name(routes);
        if proxy.context != "GATEWAY" {
            return number(name) == Some(port);
        }
        // http.8080, or https.443.NAME.GATEWAY.NAMESPACE
        let mut parts = name.split('.').skip(1);
        let Some(listening) = parts.next().and_then(number) else { return false };
        let named = &self.route_configuration()["gateway"];
        let gateway = parts.nth(1).zip(parts.next()).map(|(name, namespace)| format!("{namespace}/{name}"));
        if !named.is_null() && named.as_str() != gateway.as_deref() {
            return false;
        }
        match proxy.ports.get(&listening) {
            Some(ports) => ports.contains(&port),
            None => listening == port,
        }
    }
}

/// Matches the only form of the expression that is used.
fn version_matches(expression: &str, version: &str) -> bool {
    let prefix = expression.strip_prefix('^').and_then(|rest| rest.strip_suffix(r"(\D|$)"));
    let prefix = prefix.unwrap_or_else(|| panic!("cannot read {expression}")).replace(r"\.", ".");
    version.strip_prefix(&prefix).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

fn patch_listener(listener: &mut Value, of: &Of) {
    for patch in of("LISTENER").into_iter().filter(|patch| patch.matches_listener(listener)).collect::<Vec<_>>() {
        assert_eq!(patch.operation(), "MERGE");
        merge(listener, patch.value());
    }
    let matched =
        |kind: &str| -> Vec<&Patch> { of(kind).into_iter().filter(|patch| patch.matches_listener(listener)).collect() };
    let (network, http) = (matched("NETWORK_FILTER"), matched("HTTP_FILTER"));
    let chains = listener["filter_chains"].as_array_mut().expect("a listener has filter chains");
    for filter in chains.iter_mut().flat_map(|chain| chain["filters"].as_array_mut().expect("a chain has filters")) {
        for patch in &network {
            assert_eq!(patch.operation(), "MERGE");
            if patch.listener()["filterChain"]["filter"]["name"] == filter["name"] {
                merge_filter(filter, patch.value());
            }
        }
        if filter["name"] == MANAGER {
            let filters = filter["typed_config"]["http_filters"].as_array_mut().expect("a manager has filters");
            patch_http_filters(filters, &http);
        }
    }
}

/// Insertions first, then merges.
fn patch_http_filters(filters: &mut Vec<Value>, patches: &[&Patch]) {
    let named = |patch: &Patch| patch.listener()["filterChain"]["filter"]["subFilter"]["name"].clone();
    for patch in patches.iter().filter(|patch| patch.operation() == "INSERT_BEFORE") {
        if let Some(at) = filters.iter().position(|filter| filter["name"] == named(patch)) {
            filters.insert(at, patch.value().clone());
        }
    }
    for filter in filters {
        for patch in patches.iter().filter(|patch| patch.operation() == "MERGE") {
            if filter["name"] == named(patch) {
                merge_filter(filter, patch.value());
            }
        }
    }
    for patch in patches {
        assert!(["INSERT_BEFORE", "MERGE"].contains(&patch.operation()), "{}", patch.0);
    }
}

/// A filter without a configuration of its own is left alone.
fn merge_filter(filter: &mut Value, patch: &Value) {
    if filter["typed_config"].is_null() {
        return;
    }
    assert_eq!(filter["typed_config"]["@type"], patch["typed_config"]["@type"], "different messages do not merge");
    merge(filter, patch);
}

fn patch_routes(routes: &mut Value, of: &Of, proxy: &Proxy) {
    let matched = |kind: &str| -> Vec<&Patch> {
        of(kind).into_iter().filter(|patch| patch.matches_routes(routes, proxy)).collect()
    };
    let patches = matched("VIRTUAL_HOST");
    let all = routes["virtual_hosts"].as_array_mut().expect("is a list");
    for patch in &patches {
        match patch.operation() {
            "REPLACE" => {
                let of = &patch.route_configuration()["vhost"]["name"];
                all.iter_mut().filter(|host| host["name"] == *of).for_each(|host| *host = patch.value().clone());
            }
            "ADD" => {}
            other => panic!("{other} of a virtual host"),
        }
    }
    all.extend(patches.iter().filter(|patch| patch.operation() == "ADD").map(|patch| patch.added()));
}

/// Does what the agent beside Envoy does with extension configurations: fetches the module, and names its file. Returns
/// the images that it had to fetch.
pub fn fetch_modules(extensions: &mut [Value], file: &str) -> Vec<String> {
    let mut fetched = Vec::new();
    for extension in extensions {
        let code = &mut extension["typed_config"]["config"]["vm_config"]["code"];
        let remote = code["remote"].take();
        let uri = remote["http_uri"]["uri"].as_str().expect("the code is remote");
        let (name, digest) =
            uri.strip_prefix("oci://").and_then(|rest| rest.split_once("@sha256:")).expect("is pinned");
        assert_eq!(remote["sha256"], digest, "{remote}");
        assert!(remote["http_uri"]["timeout"].is_string() && remote["http_uri"]["cluster"].is_string(), "{remote}");
        fetched.push(name.to_owned());
        *code = serde_json::json!({"local": {"filename": file}});
    }
    fetched
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_is_for_one_minor_version() {
        for (version, matches) in
            [("1.3.0", true), ("1.3-alpha.1", true), ("1.3", true), ("1.30.0", false), ("1.2.9", false)]
        {
            assert_eq!(version_matches(r"^1\.3(\D|$)", version), matches, "{version}");
        }
    }

    #[test]
    fn lists_grow_and_scalars_are_replaced() {
        let mut one = json!({"a": [1], "b": {"c": 1, "d": 2}, "e": 1});
        merge(&mut one, &json!({"a": [2], "b": {"c": 3}, "e": {"f": 1}}));
        assert_eq!(one, json!({"a": [1, 2], "b": {"c": 3, "d": 2}, "e": {"f": 1}}));
    }
}
