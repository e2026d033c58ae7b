//! An Envoy with what a control plane serves. Files take the control plane's place: each resource that Envoy would
//! ask for is in one, and replacing it is a push.

use super::resources::{Resources, name};
use crate::access_log::AccessLog;
use crate::call::Call;
use crate::deadline::await_true;
use crate::environment;
use crate::port::Port;
use crate::process::{self, Process};
use crate::turn;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where the files of one Envoy are, before it is started.
pub struct Place {
    /// The directory of the run.
    pub directory: PathBuf,
    /// The path of the access log.
    pub log: PathBuf,
    ports: BTreeMap<u64, Port>,
    admin: Port,
}

impl Place {
    /// Creates a place with a port of the test for each of these listener ports of the pod.
    pub fn new(ports: &[u64]) -> Self {
        let directory = process::directory();
        let log = directory.join("access.log");
        let ports = ports.iter().map(|port| (*port, Port::reserve())).collect();
        Self { directory, log, ports, admin: Port::reserve() }
    }

    /// Returns the address at which the test finds a port of the pod.
    pub fn address(&self, port: u64) -> SocketAddr {
        self.ports[&port].address
    }

    /// Writes all resources as files, those that others refer to first.
    pub fn push(&self, resources: &Resources) {
        let mut resources = resources.clone();
        for listener in &mut resources.listeners {
            let port = listener["address"]["socket_address"]["port_value"].as_u64().expect("has a port");
            let here = self.address(port);
            let address = json!({"address": here.ip().to_string(), "port_value": here.port()});
            listener["address"]["socket_address"] = address;
        }
        let types = [
            "config.listener.v3.Listener",
            "config.route.v3.RouteConfiguration",
            "config.cluster.v3.Cluster",
            "config.core.v3.TypedExtensionConfig",
        ];
        let Resources { listeners, routes, clusters, extensions } = resources;
        let each = |kind: &str, resources: Vec<Value>| -> Vec<(String, Vec<Value>)> {
            resources.into_iter().map(|resource| (file(kind, name(&resource)), vec![resource])).collect()
        };
        // Those that others refer to first.
        let mut files = each("ecds", extensions).into_iter().map(|f| (3, f)).collect::<Vec<_>>();
        files.push((2, ("cds.yaml".to_owned(), clusters)));
        files.extend(each("rds", routes).into_iter().map(|f| (1, f)));
        files.push((0, ("lds.yaml".to_owned(), listeners)));
        for (kind, (file, mut all)) in files {
            for resource in &mut all {
                resource["@type"] = format!("type.googleapis.com/envoy.{}", types[kind]).into();
                self.rewrite(resource);
            }
            let path = self.directory.join(file);
            let text = json!({"resources": all}).to_string();
            if fs::read_to_string(&path).is_ok_and(|old| old == text) {
                continue;
            }
            let new = path.with_extension("new");
            fs::write(&new, text).expect("writes a file");
            fs::rename(new, path).expect("renames a file");
        }
    }

    /// Puts files in the place of the control plane.
    fn rewrite(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.rewrite(item)),
            Value::Object(members) => {
                let name = |key: &str| members.get(key).and_then(Value::as_str).map(str::to_owned);
                let asked = match (name("route_config_name"), name("name")) {
                    (Some(name), _) => Some(("/config_source", file("rds", &name))),
                    (None, Some(name)) => Some(("/config_discovery/config_source", file("ecds", &name))),
                    _ => None,
                };
                members.values_mut().for_each(|value| self.rewrite(value));
                let Some((pointer, file)) = asked else { return };
                let source = value.pointer_mut(pointer);
                if let Some(source) = source.filter(|source| source.get("ads").is_some()) {
                    let path = self.directory.join(file);
                    let Some(members) = source.as_object_mut() else { return };
                    members.remove("ads");
                    members.insert("path_config_source".to_owned(), json!({"path": path}));
                }
            }
            _ => {}
        }
    }

    /// Starts Envoy with the pushed resources. `bootstrap`: the control plane's own, without the places of resources.
    /// `merged`: what the operator merges into it.
    pub fn start(self, bootstrap: &Value, merged: &str) -> Running {
        let mut bootstrap = bootstrap.clone();
        let source = |file: &str| json!({"path_config_source": {"path": self.directory.join(file)}});
        bootstrap["dynamic_resources"] = json!({"lds_config": source("lds.yaml"), "cds_config": source("cds.yaml")});
        let admin = self.admin.address;
        let address = json!({"address": admin.ip().to_string(), "port_value": admin.port()});
        bootstrap["admin"] = json!({"address": {"socket_address": address}});
        let path = self.directory.join("bootstrap.yaml");
        // JSON is YAML.
        fs::write(&path, bootstrap.to_string()).expect("writes a file");
        let mut arguments = ["--disable-hot-restart", "-l", "warning", "--concurrency", "2"].map(OsStr::new).to_vec();
        arguments.extend(["--file-flush-interval-msec", "20", "--config-yaml", merged, "-c"].map(OsStr::new));
        arguments.push(path.as_os_str());
        let _turn = turn::take();
        let envoy = Process::start(&environment::envoy(), arguments, &[], Some(&self.directory));
        let running = Running { log: AccessLog::at(self.log.clone()), admin, place: self, envoy };
        await_true("Envoy to be ready", || {
            assert!(running.envoy.is_running(), "{:#?}", running.envoy.lines());
            std::net::TcpStream::connect(admin).is_ok() && Call::new("GET", "/ready").send(admin).status == 200
        });
        running
    }
}

fn file(kind: &str, name: &str) -> String {
    format!("{kind}-{}.yaml", name.replace('/', "_"))
}

/// A running Envoy. It ends when dropped, and prints its log if the test panicked.
pub struct Running {
    /// Its files.
    pub place: Place,
    /// The address of its admin interface.
    pub admin: SocketAddr,
    /// Its access log.
    pub log: AccessLog,
    envoy: Process,
}

impl Running {
    /// Returns the directory of the run.
    pub fn directory(&self) -> &Path {
        &self.place.directory
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.envoy.show_log();
        }
    }
}
