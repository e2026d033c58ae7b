//! `render --target istio`: the EnvoyFilters by which istiod gives its Envoys the gateway, and what their pods need.

// Members are set by index on objects that `json!` made a few lines above; that does not panic.
#![allow(clippy::indexing_slicing)]

mod entry;
mod patch;
mod place;
mod pod;

use super::files::Files;
use super::inputs::Inputs;
use super::mesh::args::{At, MeshArgs};
use super::mesh::pod::Keys;
use super::mesh::version::MeshVersion;
use super::object::{check_size, config_map, object};
use super::rendering::Rendering;
use super::settings::Settings;
use super::yaml::to_yaml;
use super::{listener, route, wasm};
use patch::Patches;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub use entry::domains;

const API: &str = "networking.istio.io/v1alpha3";

/// Istio applies patches of a lower priority first. After those of others, whose priority is usually 0, the filter
/// stays directly before the router.
const PRIORITY: i32 = 100;

/// Everything that a rendering for Istio depends on.
pub struct Istio<'a> {
    /// The version to render for.
    pub version: MeshVersion,
    /// The flags.
    pub args: &'a MeshArgs,
    /// The settings of its Envoys.
    pub settings: &'a Settings,
    /// The policy and its providers.
    pub inputs: &'a Inputs,
}

impl Istio<'_> {
    /// Returns the files.
    ///
    /// # Errors
    /// A flag that is missing, or an object that Kubernetes would refuse.
    pub fn files(&self) -> Result<Files, String> {
        let (args, namespace) = (self.args, self.args.namespace()?);
        let (name, selector) = (&args.name, place::selector(args)?);
        let keys = Keys::of(&self.inputs.policy)?;
        let mut files = Files::new(&self.settings.command);
        let mut add = |file: &str, object: &Value| -> Result<(), String> {
            check_size(object)?;
            files.document(file, object);
            Ok(())
        };
        let bootstrap = format!("{name}-bootstrap");
        // Istio gives it to Envoy as an argument, so it is one line.
        let text = pod::bootstrap(self.settings).to_string();
        add("configmap-bootstrap.yaml", &config_map(namespace, &bootstrap, json!({pod::BOOTSTRAP_FILE: text})))?;
        if !keys.sds.is_empty() {
            let sds = Value::Object(keys.sds.clone());
            add("configmap-sds.yaml", &config_map(namespace, &format!("{name}-sds"), sds))?;
        }
        let rendering = Rendering::new(self.settings, self.inputs);
        let filter = |suffix: &str, patches: Patches| {
            // Beside the one of another version while the mesh is upgraded.
            let name = format!("{name}{suffix}-{}", self.version);
            let spec = json!({
                "priority": PRIORITY,
                "workloadSelector": {"labels": &selector},
                "configPatches": patches.into_value(),
            });
            object(API, "EnvoyFilter", namespace, &name, spec)
        };
        add("envoyfilter-clusters.yaml", &filter("-clusters", self.clusters(rendering.clusters())))?;
        add("envoyfilter.yaml", &filter("", self.gateway(&rendering)?))?;
        for (file, object) in entry::objects(args, namespace)? {
            add(file, &object)?;
        }
        let volumes = keys.volumes(name);
        if args.gateway.is_some() {
            let overlay = format!("{name}-gateway");
            let deployment = to_yaml(&pod::made_from_gateway(&bootstrap, &volumes));
            add("configmap-gateway.yaml", &config_map(namespace, &overlay, json!({"deployment": deployment})))?;
            files.document("patch/gateway.yaml", &pod::parameters(&overlay));
            return Ok(files);
        }
        let patch = match args.at {
            At::Sidecar => pod::workload(&bootstrap, &volumes),
            At::Ingress | At::Egress => pod::gateway(&bootstrap, &volumes),
        };
        files.document("patch/deployment.yaml", &patch);
        Ok(files)
    }

    fn patches(&self) -> Patches {
        let context = match self.args.at {
            At::Ingress | At::Egress => "GATEWAY",
            At::Sidecar => "SIDECAR_OUTBOUND",
        };
        Patches::new(context, self.version)
    }

    fn clusters(&self, clusters: BTreeMap<String, Value>) -> Patches {
        let mut patches = self.patches();
        for (_, mut cluster) in clusters {
            if let Some(members) = cluster.as_object_mut() {
                members.remove("@type");
            }
            patches.add("CLUSTER", json!({}), "ADD", cluster);
        }
        patches
    }

    fn gateway(&self, rendering: &Rendering) -> Result<Patches, String> {
        let (settings, policy) = (self.settings, &self.inputs.policy);
        let mut patches = self.patches();
        let stages = [(wasm::FILTER, rendering.gateway_stage()), (wasm::MODEL_FILTER, wasm::model_config(settings))];
        for (name, config) in stages {
            patches.add("EXTENSION_CONFIG", json!({}), "ADD", json!({"name": name, "typed_config": config}));
        }
        let limit = route::buffer_limit(policy);
        let mut of_listener = json!({"per_connection_buffer_limit_bytes": listener::connection_limit(settings, limit)});
        if settings.version.has_watermark_timeout() {
            of_listener["per_connection_buffer_high_watermark_timeout"] = listener::unread().into();
        }
        patches.add("LISTENER", self.listener(json!({})), "MERGE", of_listener);
        let manager = json!({"filterChain": {"filter": {"name": patch::MANAGER}}});
        let manager_config = listener::shared_manager(settings, limit);
        let merged = json!({"name": patch::MANAGER, "typed_config": manager_config});
        patches.add("NETWORK_FILTER", self.listener(manager), "MERGE", merged);
        let filter = |name: &str| {
            let of = json!({"filter": {"name": patch::MANAGER, "subFilter": {"name": name}}});
            self.listener(json!({"filterChain": of}))
        };
        patches.add("HTTP_FILTER", filter(&self.args.before), "INSERT_BEFORE", patch::gateway_stage());
        patches.add("HTTP_FILTER", filter(patch::ROUTER), "MERGE", listener::router(settings));
        self.routes(&mut patches)?;
        Ok(patches)
    }

    /// The listeners of a gateway all get the filter, switched off: a route of any of them may switch it on. Of a
    /// sidecar, only the one of the port.
    fn listener(&self, mut matched: Value) -> Value {
        if self.args.at == At::Sidecar {
            matched["portNumber"] = place::port(self.args).into();
        }
        match matched.as_object() {
            Some(members) if members.is_empty() => json!({}),
            _ => json!({"listener": matched}),
        }
    }

    fn routes(&self, patches: &mut Patches) -> Result<(), String> {
        let args = self.args;
        let routes = route::routes(self.settings, &self.inputs.policy);
        let domains = domains(args)?;
        let of = |name: &str| json!({"name": name, "domains": domains, "routes": routes});
        match args.at {
            // Of every Gateway at the port: the route configuration of an HTTP port names none.
            At::Ingress => {
                let matched = json!({"routeConfiguration": {"portNumber": place::gateway_port(args)}});
                patches.add("VIRTUAL_HOST", matched, "ADD", of(&args.name));
            }
            // Of the rendered Gateway only.
            At::Egress => {
                let gateway = format!("{}/{}", args.namespace()?, args.name);
                let matched = json!({"portNumber": place::gateway_port(args), "gateway": gateway});
                patches.add("VIRTUAL_HOST", json!({"routeConfiguration": matched}), "ADD", of(&args.name));
            }
            // Replaces what istiod makes for the Service, which would tell providers the number of the attempt.
            At::Sidecar => {
                let port = place::port(args);
                let name = format!("{}:{port}", domains.first().map_or("", String::as_str));
                let matched = json!({"routeConfiguration": {"portNumber": port, "vhost": {"name": name}}});
                patches.add("VIRTUAL_HOST", matched, "REPLACE", of(&name));
            }
        }
        Ok(())
    }
}
