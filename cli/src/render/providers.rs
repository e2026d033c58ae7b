//! The operator's own clusters: the providers', with Pointsman's metadata added to their endpoints, and the Redis
//! bridge's.

use super::clusters::{HTTP_OPTIONS, as_direct};
use crate::document;
use pointsman_core::policy::{Policy, Provider};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A cluster of the operator's own.
#[derive(Debug)]
pub struct OwnCluster {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The cluster, ready for Envoy.
    pub cluster: Value,
}

/// Returns the clusters of the policy's providers and of its Redis bridge, by name. Ignores files for other providers,
/// so one directory can serve many policies.
///
/// # Errors
/// Every mistake found, each with its file name.
pub fn clusters(directory: &Path, policy: &Policy) -> Result<BTreeMap<String, OwnCluster>, Vec<String>> {
    let mut problems = Vec::new();
    let mut found: BTreeMap<String, (PathBuf, Value)> = BTreeMap::new();
    for path in files(directory).map_err(|e| vec![format!("{}: {e}", directory.display())])? {
        let (name, cluster) = match read(&path) {
            Ok(named) => named,
            Err(problem) => {
                problems.push(format!("{}: {problem}", path.display()));
                continue;
            }
        };
        if let Some((other, _)) = found.get(&name) {
            problems.push(format!("{}: {} also has a cluster named \"{name}\"", path.display(), other.display()));
        }
        found.insert(name, (path, cluster));
    }
    let mut clusters = BTreeMap::new();
    for provider in policy.providers() {
        match found.remove(&*provider.name) {
            Some((file, cluster)) => match prepare(provider, cluster) {
                Ok(cluster) => {
                    clusters.insert(provider.name.to_string(), OwnCluster { file, cluster });
                }
                Err(problem) => problems.push(format!("{}: {problem}", file.display())),
            },
            None => problems.push(format!(
                "{}: no cluster for provider \"{}\"; add a *.yaml file that begins with `name: {1}`",
                directory.display(),
                provider.name
            )),
        }
    }
    if let Some(bridge) = &policy.redis {
        match found.remove(&*bridge.cluster) {
            Some((file, mut cluster)) => {
                set_type(&mut cluster);
                delay_first_check(&mut cluster);
                clusters.insert(bridge.cluster.to_string(), OwnCluster { file, cluster });
            }
            None => problems.push(format!(
                "{}: no cluster for the Redis bridge; add a *.yaml file that begins with `name: {}`",
                directory.display(),
                bridge.cluster
            )),
        }
    }
    if problems.is_empty() { Ok(clusters) } else { Err(problems) }
}

/// Returns the `*.yaml` and `*.yml` files, sorted by name.
pub fn files(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<(String, Value), String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let cluster = document::from_yaml(&text).map_err(|e| e.to_string())?;
    match cluster.get("name").and_then(Value::as_str) {
        Some(name) => Ok((name.to_owned(), cluster)),
        None => Err("expected an Envoy cluster whose `name` is the provider's name".to_owned()),
    }
}

/// Cluster fields that Envoy has deprecated and ignores if there are [`HTTP_OPTIONS`].
const OLD_HTTP_OPTIONS: [&str; 5] = [
    "common_http_protocol_options",
    "upstream_http_protocol_options",
    "http_protocol_options",
    "http2_protocol_options",
    "protocol_selection",
];

/// Adds the provider name and the host name to every endpoint of a provider's cluster.
fn prepare(provider: &Provider, mut cluster: Value) -> Result<Value, String> {
    let options = cluster.get("typed_extension_protocol_options");
    if options.is_some_and(|options| !options.is_object()) {
        return Err("typed_extension_protocol_options is not an object".to_owned());
    }
    let options = options.and_then(|options| options.get(HTTP_OPTIONS));
    if options.is_some_and(|options| !options.is_object()) {
        return Err(format!("typed_extension_protocol_options: {HTTP_OPTIONS} is not an object"));
    }
    if options.is_some_and(|options| options.get("http_filters").is_some()) {
        return Err("http_filters of a provider cluster never run: requests go through a plan cluster".to_owned());
    }
    let is_direct = provider.credential.is_none();
    let is_old = |old: &&&str| is_direct && options.is_none() && cluster.get(**old).is_some();
    if let Some(old) = OLD_HTTP_OPTIONS.iter().find(is_old) {
        return Err(format!("{old}: set it in typed_extension_protocol_options, under {HTTP_OPTIONS}"));
    }
    let is_tls = cluster.get("transport_socket").is_some();
    let mut endpoints = 0;
    let localities = cluster.pointer_mut("/load_assignment/endpoints").and_then(Value::as_array_mut);
    for locality in localities.into_iter().flatten() {
        for endpoint in locality.get_mut("lb_endpoints").and_then(Value::as_array_mut).into_iter().flatten() {
            endpoints += 1;
            let Some(members) = endpoint.as_object_mut() else {
                return Err(format!("load_assignment: endpoint {endpoints} is not an object"));
            };
            mark(&provider.name, members)
                .ok_or_else(|| format!("load_assignment: the metadata of endpoint {endpoints} is not an object"))?;
            name_host(members, is_tls);
        }
    }
    if endpoints == 0 {
        return Err(format!(
            "the cluster \"{}\" has no endpoints in load_assignment; EDS endpoints cannot be marked with a provider",
            provider.name
        ));
    }
    set_type(&mut cluster);
    delay_first_check(&mut cluster);
    Ok(if is_direct { as_direct(cluster) } else { cluster })
}

fn set_type(cluster: &mut Value) {
    if let Some(members) = cluster.as_object_mut() {
        members.insert("@type".to_owned(), "type.googleapis.com/envoy.config.cluster.v3.Cluster".into());
    }
}

/// Delays the first health check of a cluster until Envoy's main loop runs, unless the operator has set a delay. During
/// startup, Envoy compiles the module in the same thread, for seconds: a check that began before would time out and the
/// cluster would serve nothing until the next check. Envoy becomes ready after the first check either way.
fn delay_first_check(cluster: &mut Value) {
    for check in cluster.get_mut("health_checks").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(members) = check.as_object_mut() {
            members.entry("initial_jitter").or_insert_with(|| "0.001s".into());
        }
    }
}

/// Sets `metadata.filter_metadata.pointsman.provider`.
fn mark(provider: &str, endpoint: &mut Map<String, Value>) -> Option<()> {
    let mut at = endpoint;
    for key in ["metadata", "filter_metadata", "pointsman"] {
        at = at.entry(key).or_insert_with(|| json!({})).as_object_mut()?;
    }
    at.insert("provider".to_owned(), provider.into());
    Some(())
}

/// Sets `endpoint.hostname`, which becomes the `Host` of requests, unless the operator has set it.
fn name_host(endpoint: &mut Map<String, Value>, is_tls: bool) {
    let Some(endpoint) = endpoint.get_mut("endpoint").and_then(Value::as_object_mut) else { return };
    if endpoint.contains_key("hostname") {
        return;
    }
    let socket = endpoint.get("address").and_then(|address| address.get("socket_address"));
    let host = socket.and_then(|socket| socket.get("address")).and_then(Value::as_str);
    let port = socket.and_then(|socket| socket.get("port_value")).and_then(Value::as_u64);
    let hostname = match (host, port) {
        (Some(host), Some(port)) => {
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            if port == if is_tls { 443 } else { 80 } { host } else { format!("{host}:{port}") }
        }
        // A Unix socket has no host name.
        _ => "localhost".to_owned(),
    };
    endpoint.insert("hostname".to_owned(), hostname.into());
}
