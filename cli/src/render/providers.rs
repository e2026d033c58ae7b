//! The operator's own clusters: the providers', with Pointsman's metadata added to their endpoints, and the Redis
//! bridge's.

use super::cluster_fields::suspicious;
use super::clusters::{HTTP_OPTIONS, as_direct};
use crate::document::{self, InvalidDocument};
use crate::finding::{Finding, Located, Rule, Severity};
use crate::regular_file;
use crate::source::Source;
use pointsman_core::config::place::Place;
use pointsman_core::config::problem::Problem;
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

/// The clusters that a policy needs.
#[derive(Debug)]
pub struct OwnClusters {
    /// By name: the providers' and the Redis bridge's.
    pub by_name: BTreeMap<String, OwnCluster>,
    /// What is probably not meant in their files.
    pub suspicious: Vec<Finding>,
}

/// Returns the clusters of the policy's providers and of its Redis bridge, by name, and what is suspicious in their
/// files. Ignores files for other providers, so one directory can serve many policies.
///
/// # Errors
/// Everything found, at least one error.
pub fn clusters(directory: &Path, policy: &Policy) -> Result<OwnClusters, Vec<Finding>> {
    let of_directory = |message: String| Finding::of_file(&directory.display().to_string(), Rule::Cluster, message);
    let mut findings = Vec::new();
    let mut found: BTreeMap<String, OwnFile> = BTreeMap::new();
    let paths = files(directory).map_err(|error| {
        vec![Finding::of_file(&directory.display().to_string(), Rule::Unreadable, unreadable(&error))]
    })?;
    let mut spoilt: Vec<PathBuf> = Vec::new();
    for path in paths {
        let file = match OwnFile::read(&path) {
            Ok(file) => file,
            Err(finding) => {
                findings.push(*finding);
                spoilt.push(path);
                continue;
            }
        };
        if let Some(other) = found.get(&file.name) {
            let message = format!("{} also has a cluster named \"{}\"", other.path.display(), file.name);
            findings.push(file.finding(&Problem::new("name", message)));
        }
        found.insert(file.name.clone(), file);
    }
    let mut clusters = BTreeMap::new();
    let mut missing = Vec::new();
    for provider in policy.providers() {
        match found.remove(&*provider.name) {
            Some(mut file) => {
                let suspicious = suspicious(provider, &file.cluster);
                findings.extend(suspicious.iter().map(|problem| file.finding(problem).into_warning()));
                match prepare(provider, std::mem::take(&mut file.cluster)) {
                    Ok(cluster) => {
                        clusters.insert(provider.name.to_string(), OwnCluster { file: file.path, cluster });
                    }
                    Err(problem) => findings.push(file.finding(&problem)),
                }
            }
            // What is wrong with its file has been reported.
            None if spoilt.iter().any(|path| is_for(path, &provider.name)) => {}
            None => missing.push(provider),
        }
    }
    for provider in missing {
        // The file of no other provider.
        let bridge = policy.redis.as_ref().map(|bridge| &*bridge.cluster);
        let other = found.values().find(|file| is_for(&file.path, &provider.name) && Some(&*file.name) != bridge);
        findings.push(match other {
            Some(file) => {
                let message = format!(
                    "no provider has this name; write {} if this is the cluster of that provider",
                    provider.name
                );
                file.finding(&Problem::new("name", message))
            }
            None => of_directory(format!(
                "no cluster for provider \"{}\"; add a *.yaml file that begins with `name: {0}`",
                provider.name
            )),
        });
    }
    if let Some(bridge) = &policy.redis {
        match found.remove(&*bridge.cluster) {
            Some(OwnFile { path: file, mut cluster, .. }) => {
                set_type(&mut cluster);
                delay_first_check(&mut cluster);
                clusters.insert(bridge.cluster.to_string(), OwnCluster { file, cluster });
            }
            None if spoilt.iter().any(|path| is_for(path, &bridge.cluster)) => {}
            None => findings.push(of_directory(format!(
                "no cluster for the Redis bridge; add a *.yaml file that begins with `name: {}`",
                bridge.cluster
            ))),
        }
    }
    let is_refused = findings.iter().any(|finding| finding.severity == Severity::Error);
    if is_refused { Err(findings) } else { Ok(OwnClusters { by_name: clusters, suspicious: findings }) }
}

fn unreadable(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such directory; it holds one Envoy cluster per provider".to_owned(),
        std::io::ErrorKind::NotADirectory => "not a directory; name the one that holds the providers' clusters".into(),
        _ => error.to_string(),
    }
}

/// Whether a file is named like a cluster.
fn is_for(path: &Path, cluster: &str) -> bool {
    path.file_stem().is_some_and(|stem| stem == cluster)
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

/// A file of the operator's.
struct OwnFile {
    path: PathBuf,
    /// The cluster's name.
    name: String,
    cluster: Value,
    text: String,
}

impl OwnFile {
    fn read(path: &Path) -> Result<Self, Box<Finding>> {
        let file = path.display().to_string();
        let text = regular_file::read_to_string(path)
            .map_err(|error| Box::new(Finding::of_file(&file, Rule::Unreadable, error.to_string())))?;
        let located = || Located::never_shown(&file, Source::of_yaml(text.clone()));
        let cluster = document::from_yaml(&text)
            .map_err(|InvalidDocument { at, message }| Box::new(located().at(at, Rule::Syntax, message)))?;
        match cluster.get("name").and_then(Value::as_str) {
            Some(name) => Ok(Self { path: path.to_owned(), name: name.to_owned(), cluster, text }),
            None => {
                let message = "expected an Envoy cluster whose `name` is the provider's name";
                let problem = Problem::of_field(Place::default(), "name", message);
                Err(Box::new(Finding::of_problem(&located(), Rule::Cluster, &problem)))
            }
        }
    }

    fn finding(&self, problem: &Problem) -> Finding {
        let file = self.path.display().to_string();
        let located = Located::never_shown(&file, Source::of_yaml(self.text.clone()));
        Finding::of_problem(&located, Rule::Cluster, problem)
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
fn prepare(provider: &Provider, mut cluster: Value) -> Result<Value, Problem> {
    const OPTIONS: &str = "typed_extension_protocol_options";
    let options = cluster.get(OPTIONS);
    if options.is_some_and(|options| !options.is_object()) {
        return Err(Problem::new(OPTIONS, "expected a mapping"));
    }
    let options = options.and_then(|options| options.get(HTTP_OPTIONS));
    if options.is_some_and(|options| !options.is_object()) {
        return Err(Problem::new(Place::of(&[OPTIONS, HTTP_OPTIONS]), "expected a mapping"));
    }
    if options.is_some_and(|options| options.get("http_filters").is_some()) {
        let place = Place::of(&[OPTIONS, HTTP_OPTIONS, "http_filters"]);
        return Err(Problem::of_name(
            place,
            "filters of a provider cluster never run: requests go through a plan cluster",
        ));
    }
    let is_direct = provider.credential.is_none();
    let is_old = |old: &&&str| is_direct && options.is_none() && cluster.get(**old).is_some();
    if let Some(old) = OLD_HTTP_OPTIONS.iter().find(is_old) {
        return Err(Problem::of_name(Place::of(&[old]), format!("set it in {OPTIONS}, under {HTTP_OPTIONS}")));
    }
    let is_tls = cluster.get("transport_socket").is_some();
    let mut endpoints = 0;
    let localities = cluster.pointer_mut("/load_assignment/endpoints").and_then(Value::as_array_mut);
    for locality in localities.into_iter().flatten() {
        for endpoint in locality.get_mut("lb_endpoints").and_then(Value::as_array_mut).into_iter().flatten() {
            endpoints += 1;
            let Some(members) = endpoint.as_object_mut() else {
                return Err(Problem::new("load_assignment", format!("endpoint {endpoints} is not a mapping")));
            };
            mark(&provider.name, members).ok_or_else(|| {
                Problem::new("load_assignment", format!("the metadata of endpoint {endpoints} is not a mapping"))
            })?;
            name_host(members, is_tls);
        }
    }
    if endpoints == 0 {
        let message = format!(
            "the cluster \"{}\" has no endpoints in load_assignment; EDS endpoints cannot be marked with a provider",
            provider.name
        );
        return Err(Problem::of_field(Place::default(), "load_assignment", message));
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
