//! `render --target envoy-gateway`: the policies by which Envoy Gateway gives its Envoys the gateway, and what their
//! pods need.

// Members are set by index on objects that `json!` made a few lines above; that does not panic.
#![allow(clippy::indexing_slicing)]

mod patch;

use super::bootstrap::{histogram_buckets, stats_tags};
use super::files::Files;
use super::inputs::Inputs;
use super::mesh::args::{MeshArgs, missing};
use super::mesh::pod::{Keys, Volume};
use super::object::{check_size, config_map, object};
use super::rendering::Rendering;
use super::settings::Settings;
use super::yaml::to_yaml;
use super::{listener, route, wasm};
use patch::{Patches, Place};
use serde_json::{Value, json};

const API: &str = "gateway.envoyproxy.io/v1alpha1";
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// What the author of the Gateway must know about the ClientTrafficPolicy.
const TRAFFIC: &str = "\
This policy of one listener takes the place of a ClientTrafficPolicy for the whole Gateway: Envoy Gateway does not
merge the two. If there is one, copy into this one what the listener still needs of it, such as TLS and client
addresses.";

/// Everything that a rendering for Envoy Gateway depends on.
pub struct EnvoyGateway<'a> {
    /// The flags.
    pub args: &'a MeshArgs,
    /// The settings of its Envoys.
    pub settings: &'a Settings,
    /// The policy and its providers.
    pub inputs: &'a Inputs,
    /// The volume with the module, unless the operator puts it there.
    pub module: Option<Volume>,
}

impl EnvoyGateway<'_> {
    /// Returns the files.
    ///
    /// # Errors
    /// A flag that is missing, or an object that Kubernetes would refuse.
    pub fn files(&self) -> Result<Files, String> {
        let (args, namespace) = (self.args, self.args.namespace()?);
        let name = &args.name;
        let mut files = Files::new(&self.settings.command);
        let mut add = |file: &str, object: &Value| -> Result<(), String> {
            check_size(object)?;
            files.document(file, object);
            Ok(())
        };
        let keys = Keys::of(&self.inputs.policy)?;
        if !keys.sds.is_empty() {
            // Where the pods are, which is not where their Gateway is.
            let sds = Value::Object(keys.sds.clone());
            add("configmap-sds.yaml", &config_map(&args.proxy_namespace, &format!("{name}-sds"), sds))?;
        }
        let of = |kind: &str, spec: Value| object(API, kind, namespace, name, spec);
        add("envoyproxy.yaml", &of("EnvoyProxy", self.proxy(&keys)))?;
        let traffic = of("ClientTrafficPolicy", self.traffic()?);
        check_size(&traffic)?;
        // What has no patch refuses everything.
        add("httproutefilter.yaml", &of("HTTPRouteFilter", json!({"directResponse": {"statusCode": 404}})))?;
        add("httproute.yaml", &object(&format!("{GATEWAY_API}/v1"), "HTTPRoute", namespace, name, self.route()?))?;
        add("envoypatchpolicy.yaml", &of("EnvoyPatchPolicy", self.patches(namespace)?))?;
        files.commented("clienttrafficpolicy.yaml", TRAFFIC, &traffic);
        Ok(files)
    }

    fn gateway(&self) -> Result<(&str, &str), String> {
        let given =
            |flag: &Option<String>, name: &str, meaning: &str| flag.clone().ok_or_else(|| missing(name, meaning));
        given(&self.args.gateway, "--gateway", "the name of the Gateway")?;
        given(&self.args.listener, "--listener", "the name of its listener")?;
        Ok((self.args.gateway.as_deref().unwrap_or_default(), self.args.listener.as_deref().unwrap_or_default()))
    }

    /// What the pods need. The operator's own EnvoyProxy, if there is one, takes these fields.
    fn proxy(&self, keys: &Keys) -> Value {
        let mut volumes = keys.volumes(&self.args.name);
        volumes.extend(self.module.clone());
        let statistics = json!({"stats_config": {
            "stats_tags": stats_tags(self.settings),
            "histogram_bucket_settings": histogram_buckets(),
        }});
        let deployment = json!({
            "pod": {"volumes": volumes.iter().map(Volume::volume).collect::<Vec<_>>()},
            "container": {"volumeMounts": volumes.iter().map(Volume::mount).collect::<Vec<_>>()},
        });
        json!({
            "bootstrap": {"type": "Merge", "value": to_yaml(&statistics)},
            "provider": {"type": "Kubernetes", "kubernetes": {"envoyDeployment": deployment}},
        })
    }

    /// Envoy Gateway's default buffer of 32 KiB refuses most prompts. How the listener reads paths stays as it is,
    /// because the rules of its other hosts depend on it: a client that encodes the slashes of a model's id is
    /// redirected.
    fn traffic(&self) -> Result<Value, String> {
        let (gateway, section) = self.gateway()?;
        let limit = route::buffer_limit(&self.inputs.policy);
        let target = json!({"group": GATEWAY_API, "kind": "Gateway", "name": gateway, "sectionName": section});
        let mut spec = json!({
            "targetRefs": [target],
            "connection": {"bufferLimit": listener::connection_limit(self.settings, limit).to_string()},
        });
        if !self.settings.version.has_route_buffer_limit() {
            let window = listener::stream_window(self.settings, limit).to_string();
            spec["http2"] = json!({"initialStreamWindowSize": window});
        }
        Ok(spec)
    }

    /// The route that makes Envoy Gateway give the host a virtual host.
    fn route(&self) -> Result<Value, String> {
        let (gateway, section) = self.gateway()?;
        let filter = json!({"group": "gateway.envoyproxy.io", "kind": "HTTPRouteFilter", "name": self.args.name});
        Ok(json!({
            "parentRefs": [{"group": GATEWAY_API, "kind": "Gateway", "name": gateway, "sectionName": section}],
            "hostnames": self.args.hosts()?,
            "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                "filters": [{"type": "ExtensionRef", "extensionRef": filter}],
            }],
        }))
    }

    fn patches(&self, namespace: &str) -> Result<Value, String> {
        let (gateway, section) = self.gateway()?;
        let (settings, policy) = (self.settings, &self.inputs.policy);
        let rendering = Rendering::new(settings, self.inputs);
        let mut patches = Patches::default();
        for (name, mut cluster) in rendering.clusters() {
            if let Some(members) = cluster.as_object_mut() {
                members.remove("@type");
            }
            patches.resource(patch::CLUSTER, &name, cluster);
        }
        let name = format!("{namespace}/{gateway}/{section}");
        let listener = |place: Place| (patch::LISTENER, name.clone(), place);
        if settings.version.has_watermark_timeout() {
            let at = Place::at("/per_connection_buffer_high_watermark_timeout");
            patches.add(listener(at), listener::unread().into());
        }
        let manager = |path: &str| listener(Place::of(patch::MANAGER, path));
        let parts = listener::shared_manager(settings, route::buffer_limit(policy));
        for logger in parts["access_log"].as_array().into_iter().flatten() {
            patches.add(manager("/access_log/-"), logger.clone());
        }
        for part in ["local_reply_config", "always_set_request_id_in_response"] {
            patches.add(manager(&format!("/{part}")), parts[part].clone());
        }
        // At the place of an item of a list, "add" puts the new one before it.
        let filter = json!({"name": wasm::FILTER, "disabled": true, "typed_config": rendering.gateway_stage()});
        patches.add(listener(Place::of(&patch::http_filter(&self.args.before), "")), filter);
        let router = format!("{}.typed_config", patch::http_filter(super::mesh::args::ROUTER));
        let log = listener::router(settings)["typed_config"]["upstream_log"].clone();
        patches.add(listener(Place::of(&router, "/upstream_log")), log);
        for host in self.args.hosts()? {
            let host = format!("$.virtual_hosts[?(@.name == '{name}/{}')]", host.replace('.', "_"));
            // Each goes before those that are there.
            for route in route::routes(settings, policy).into_iter().rev() {
                patches.add((patch::ROUTES, name.clone(), Place::of(&host, "/routes/0")), route);
            }
        }
        let target = json!({"group": GATEWAY_API, "kind": "Gateway", "name": gateway});
        Ok(json!({"type": "JSONPatch", "targetRef": target, "jsonPatches": patches.into_value()}))
    }
}
