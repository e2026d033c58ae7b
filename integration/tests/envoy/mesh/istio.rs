//! Istio: at an ingress gateway, at an egress gateway, and in the sidecar of the caller.

use super::traffic::Mesh;
use super::{POLICY, minor, render, site};
use crate::standard::ask;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::environment;
use pointsman_integration::gateway::OPENAI_SECRET;
use pointsman_integration::mesh::envoy::Place;
use pointsman_integration::mesh::istio::{Proxy, apply, fetch_modules};
use pointsman_integration::mesh::manifests::{Manifests, in_test};
use pointsman_integration::mesh::resources::Resources;
use pointsman_integration::simulator::Simulator;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const GATEWAY: &str = include_str!("istio-gateway.yaml");
const SIDECAR: &str = include_str!("istio-sidecar.yaml");

/// The Service that a caller inside the mesh calls.
const SERVICE: &str = "llm.ai.svc.cluster.local";

/// A proxy of Istio's that becomes a gateway to models.
struct Case {
    /// Where it is, as flags of `render`.
    flags: Vec<&'static str>,
    /// Returns what it serves without Pointsman's patches. The other manifests may change it.
    base: fn(&Manifests) -> Resources,
    context: &'static str,
    labels: &'static [(&'static str, &'static str)],
    /// The ports of its Services, by the ports at which it listens.
    ports: BTreeMap<u64, Vec<u64>>,
    host: &'static str,
    /// The port at which it listens for the host.
    port: u64,
    /// The port at which it listens for the site.
    site: u64,
    /// How it answers calls of an unknown host.
    unknown: u16,
}

/// The pod of a proxy, after the rendered patch.
struct Pod {
    bootstrap: String,
    volumes: Value,
    mounts: Value,
}

impl Pod {
    fn of(manifests: &Manifests) -> Self {
        let template = manifests.patch("patch/deployment.yaml")["spec"]["template"].clone();
        let annotation = |name: &str| template["metadata"]["annotations"][name].as_str().map(str::to_owned);
        let bootstrap = annotation("sidecar.istio.io/bootstrapOverride").expect("has a bootstrap");
        let list = |name: &str| annotation(name).map(|text| serde_json::from_str(&text).expect("is JSON"));
        // Istio's injector adds to a sidecar what its annotations say.
        let (volumes, mounts) = match list("sidecar.istio.io/userVolume") {
            Some(volumes) => (volumes, list("sidecar.istio.io/userVolumeMount").expect("has mounts")),
            None => {
                let container = &template["spec"]["containers"][0];
                assert_eq!(container["name"], "istio-proxy");
                (template["spec"]["volumes"].clone(), container["volumeMounts"].clone())
            }
        };
        Self { bootstrap: manifests.config(&bootstrap, "custom_bootstrap.json"), volumes, mounts }
    }
}

impl Case {
    fn version(&self) -> String {
        format!("1.{}", minor(28))
    }

    fn render(&self, place: &Place, simulator: &Simulator, policy: &str, name: &str) -> Manifests {
        self.render_with(&self.flags, place, simulator, policy, name)
    }

    fn render_with(&self, own: &[&str], place: &Place, simulator: &Simulator, policy: &str, name: &str) -> Manifests {
        let version = self.version();
        let mut flags = vec!["--target", "istio", "--target-version", &version, "--host", self.host];
        flags.extend(own);
        Manifests::read(&render(&place.directory, simulator, policy, name, &place.log, &flags))
    }

    /// Returns what istiod and its agent serve, with the paths of the test.
    fn resources(&self, place: &Place, simulator: &Simulator, manifests: &Manifests) -> Resources {
        let mut resources = (self.base)(manifests);
        resources.clusters.push(site("outbound|80||shop.default.svc.cluster.local", simulator.address("vllm")));
        let version = format!("{}.2", self.version());
        let proxy = Proxy { version: &version, labels: self.labels, context: self.context, ports: &self.ports };
        apply(&mut resources, &manifests.of_kind("EnvoyFilter"), &proxy);
        // Istio's build has it in no version.
        assert!(!json!(resources.clusters).to_string().contains("clusters.composite"));
        let wasm = environment::wasm();
        let fetched = fetch_modules(&mut resources.extensions, &wasm.display().to_string());
        assert_eq!(fetched, ["registry.example.com/pointsman"; 2]);
        let (pod, secrets) = (Pod::of(manifests), [("OPENAI_API_KEY", OPENAI_SECRET)]);
        let mounted = manifests.mount(&pod.volumes, &pod.mounts, &secrets, &wasm, &place.directory.join("mounted"));
        let here = |all: Vec<Value>| serde_json::from_str(&in_test(&json!(all).to_string(), &mounted)).unwrap();
        Resources { clusters: here(resources.clusters), ..resources }
    }

    fn check(&self) {
        let listening: Vec<u64> = self.ports.keys().copied().collect();
        let (simulator, place) = (Simulator::start(), Place::new(&listening));
        let manifests = self.render(&place, &simulator, POLICY, "one");
        place.push(&self.resources(&place, &simulator, &manifests));
        let running = place.start(&bootstrap(), &Pod::of(&manifests).bootstrap);
        let push = |policy: &str| {
            let manifests = self.render(&running.place, &simulator, policy, "two");
            running.place.push(&self.resources(&running.place, &simulator, &manifests));
        };
        let (address, site) = (running.place.address(self.port), running.place.address(self.site));
        let mesh = Mesh { envoy: &running, simulator: &simulator, address, host: self.host, push: &push };
        mesh.check_site(site, self.unknown);
        mesh.check();
        mesh.check_site(site, self.unknown);
        if self.site != self.port {
            // Only at the port that was asked for.
            assert_eq!(Call::new("GET", "/v1/models").header("host", self.host).send(site).status, 404);
        }
        // Before a filter that is not there, istiod puts nothing.
        let mut misplaced: Vec<&str> = self.flags.iter().copied().take_while(|flag| *flag != "--before").collect();
        misplaced.extend(["--before", "envoy.filters.http.rooter"]);
        let manifests = self.render_with(&misplaced, &running.place, &simulator, POLICY, "misplaced");
        let resources = self.resources(&running.place, &simulator, &manifests);
        assert!(!json!(resources.listeners).to_string().contains("pointsman.gateway"));
        running.place.push(&resources);
        mesh.check_without_filter();
        mesh.check_site(site, self.unknown);
    }
}

/// Istio's own part of the bootstrap, as far as names and metrics depend on it.
fn bootstrap() -> Value {
    let prefix = |prefix: &str| json!({"prefix": prefix});
    let mut patterns: Vec<_> =
        ["reporter=", "cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm"].map(prefix).into();
    patterns.push(json!({"suffix": "rbac.allowed"}));
    patterns.extend(["component", "istio"].map(prefix));
    json!({
        "node": {"id": "router~10.0.0.1~gateway.istio-system~istio-system.svc.cluster.local", "cluster": "gateway"},
        "stats_config": {
            "use_all_default_tags": false,
            "stats_tags": [{"tag_name": "cluster_name", "regex": "^cluster(\\.(.+);)"}],
            "stats_matcher": {"inclusion_list": {"patterns": patterns}},
        },
    })
}

fn gateway(_: &Manifests) -> Resources {
    Resources::from_yaml(GATEWAY)
}

fn ingress() -> Case {
    Case {
        flags: vec!["--namespace", "istio-system"],
        base: gateway,
        context: "GATEWAY",
        labels: &[("app", "istio-ingressgateway"), ("istio", "ingressgateway")],
        ports: BTreeMap::from([(8080, vec![80]), (8443, vec![443])]),
        host: "llm.example.com",
        port: 8443,
        site: 8080,
        unknown: 404,
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_ingress_gateway_with_a_site() {
    ingress().check();
}

/// In the place of a module that it cannot fetch, Istio's agent puts a filter that refuses everything.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn without_the_module_only_the_gateways_own_routes_refuse() {
    let case = ingress();
    let (simulator, place) = (Simulator::start(), Place::new(&[8080, 8443]));
    let manifests = case.render(&place, &simulator, POLICY, "one");
    let mut resources = case.resources(&place, &simulator, &manifests);
    for extension in &mut resources.extensions {
        let api = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
        extension["typed_config"] = json!({"@type": api, "rules": {}, "rules_stat_prefix": "wasm-default-deny"});
    }
    place.push(&resources);
    let running = place.start(&bootstrap(), &Pod::of(&manifests).bootstrap);
    let send = |host: &str| Call::new("GET", "/v1/models").header("host", host).send(running.place.address(8443));
    assert_eq!(send(case.host).status, 403);
    assert_eq!(send("shop.example.com").status, 200);
    // As soon as it can be fetched, all is well.
    running.place.push(&case.resources(&running.place, &simulator, &manifests));
    let models = || Call::new("GET", "/v1/models").header("host", case.host).key("sk-acme");
    await_true("the module", || models().send(running.place.address(8443)).status == 200);
    let chat = Call::chat_json(&ask("chat", "at last")).header("host", case.host).key("sk-acme");
    await_true("the model stage", || chat.clone().send(running.place.address(8443)).status == 200);
}

/// The rendered Gateway has a listener of its own and no VirtualService: istiod refuses there whatever has no route.
/// The gateway also has an InferencePool, whose filter must come after Pointsman's.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_egress_gateway_with_an_inference_pool() {
    let base = |manifests: &Manifests| {
        let mut base = gateway(manifests);
        let server = manifests.only("Gateway");
        let port = &server["spec"]["servers"][0]["port"];
        assert_eq!((&server["spec"]["servers"][0]["hosts"][0], &port["number"]), (&json!(SERVICE), &json!(443)));
        let [name, namespace] = ["name", "namespace"].map(|key| server["metadata"][key].as_str().unwrap());
        let routes = format!("https.443.{}.{name}.{namespace}", port["name"].as_str().unwrap());
        let manager = &mut base.listeners[1]["filter_chains"][0]["filters"][0]["typed_config"];
        manager["rds"]["route_config_name"] = routes.as_str().into();
        base.routes[1] = json!({
            "name": routes, "validate_clusters": false, "ignore_port_in_host_matching": true,
            "virtual_hosts": [{"name": "blackhole:443", "domains": ["*"], "routes": []}],
        });
        for listener in &mut base.listeners {
            let filters = &mut listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
            filters.as_array_mut().unwrap().insert(1, inference_pool());
        }
        base
    };
    let case = Case {
        flags: vec!["--at", "egress", "--namespace", "istio-egress", "--before", "envoy.filters.http.ext_proc"],
        base,
        context: "GATEWAY",
        labels: &[("istio", "egressgateway")],
        ports: BTreeMap::from([(8080, vec![80]), (8443, vec![443])]),
        host: SERVICE,
        port: 8443,
        site: 8080,
        unknown: 404,
    };
    case.check();
}

/// The filter that istiod gives a gateway with an InferencePool. Only the pool's routes switch it on.
fn inference_pool() -> Value {
    json!({
        "name": "envoy.filters.http.ext_proc",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "grpc_service": {"envoy_grpc": {"cluster_name": "dummy"}, "timeout": "10s"},
            "failure_mode_allow": true,
            "processing_mode": {"request_header_mode": "SKIP", "response_header_mode": "SKIP"},
            "message_timeout": "1000s",
        },
    })
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_sidecar_of_a_caller() {
    let case = Case {
        flags: vec!["--at", "sidecar", "--namespace", "shop", "--selector", "app=caller"],
        base: |_| Resources::from_yaml(SIDECAR),
        context: "SIDECAR_OUTBOUND",
        labels: &[("app", "caller")],
        ports: BTreeMap::from([(80, vec![])]),
        host: SERVICE,
        port: 80,
        site: 80,
        unknown: 502,
    };
    case.check();
}

/// In a pod of another version, or with other labels, nothing changes.
#[test]
fn patches_are_for_one_version_and_for_the_labels() {
    let mut resources = Resources::from_yaml(GATEWAY);
    let patch = json!({
        "applyTo": "CLUSTER", "match": {"context": "GATEWAY", "proxy": {"proxyVersion": "^1\\.30(\\D|$)"}},
        "patch": {"operation": "ADD", "value": {"name": "added"}},
    });
    let filter =
        json!({"spec": {"workloadSelector": {"labels": {"istio": "ingressgateway"}}, "configPatches": [patch]}});
    let cases = [("1.31.0", "ingressgateway", 0), ("1.30.1", "other", 0), ("1.30.1", "ingressgateway", 1)];
    for (version, label, count) in cases {
        let proxy = Proxy { version, labels: &[("istio", label)], context: "GATEWAY", ports: &BTreeMap::new() };
        apply(&mut resources, std::slice::from_ref(&filter), &proxy);
        assert_eq!(resources.clusters.len(), count, "{version} {label}");
    }
}
