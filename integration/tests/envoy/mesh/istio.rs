//! Istio: at an ingress gateway, at an egress gateway, and in the sidecar of the caller.

use super::traffic::Mesh;
use super::{HOST, POLICY, minor, render};
use pointsman_integration::call::Call;
use pointsman_integration::environment;
use pointsman_integration::gateway::OPENAI_SECRET;
use pointsman_integration::mesh::envoy::Place;
use pointsman_integration::mesh::istio::{Proxy, apply, fetch_modules};
use pointsman_integration::mesh::manifests::{Manifests, in_test};
use pointsman_integration::mesh::resources::Resources;
use pointsman_integration::simulator::Simulator;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;

const GATEWAY: &str = include_str!("istio-gateway.yaml");

/// What istiod and its agent make of manifests.
struct Istiod<'a> {
    base: Resources,
    proxy: Proxy<'a>,
    place: &'a Place,
}

impl Istiod<'_> {
    /// Returns what the proxy gets, with the paths of the test.
    fn resources(&self, manifests: &Manifests, volumes: &Value, mounts: &Value) -> Resources {
        let mut resources = self.base.clone();
        apply(&mut resources, &manifests.of_kind("EnvoyFilter"), &self.proxy);
        let wasm = environment::wasm();
        let fetched = fetch_modules(&mut resources.extensions, &wasm.display().to_string());
        assert_eq!(fetched, ["registry.example.com/pointsman"; 2]);
        let secrets = [("OPENAI_API_KEY", OPENAI_SECRET)];
        let mounted = manifests.mount(volumes, mounts, &secrets, &wasm, &self.place.directory.join("mounted"));
        let here = |all: Vec<Value>| serde_json::from_str(&in_test(&json!(all).to_string(), &mounted)).unwrap();
        Resources { clusters: here(resources.clusters), ..resources }
    }
}

/// The cluster that istiod makes for the site.
fn site(address: SocketAddr) -> Value {
    let name = "outbound|80||shop.default.svc.cluster.local";
    let endpoint = json!({"address": {"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}}});
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "10s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]},
    })
}

/// Istio's own part of the bootstrap, as far as metrics and names depend on it.
fn bootstrap() -> Value {
    json!({
        "node": {"id": "router~10.0.0.1~gateway.istio-system~istio-system.svc.cluster.local", "cluster": "gateway.istio-system"},
        "stats_config": {
            "use_all_default_tags": false,
            "stats_tags": [{"tag_name": "cluster_name", "regex": "^cluster(\\.(.+);)"}],
            "stats_matcher": {"inclusion_list": {"patterns": [
                {"prefix": "reporter="}, {"prefix": "cluster_manager"}, {"prefix": "listener_manager"}, {"prefix": "server"},
                {"prefix": "cluster.xds-grpc"}, {"prefix": "wasm"}, {"suffix": "rbac.allowed"}, {"prefix": "component"},
                {"prefix": "istio"},
            ]}},
        },
    })
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_ingress_gateway_with_a_site() {
    let version = format!("1.{}", minor(28));
    let (simulator, place) = (Simulator::start(), Place::new(&[8080, 8443]));
    let flags = ["--target", "istio", "--target-version", &version, "--namespace", "istio-system", "--host", HOST];
    let written = |policy: &str, name: &str| {
        Manifests::read(&render(&place.directory, &simulator, policy, name, &place.log, &flags))
    };
    let manifests = written(POLICY, "one");
    let patch = manifests.patch("patch/deployment.yaml");
    let pod = &patch["spec"]["template"];
    let (volumes, mounts) = (&pod["spec"]["volumes"], &pod["spec"]["containers"][0]["volumeMounts"]);
    assert_eq!(pod["spec"]["containers"][0]["name"], "istio-proxy");
    let merged = pod["metadata"]["annotations"]["sidecar.istio.io/bootstrapOverride"].as_str().unwrap();
    let merged = manifests.config(merged, "custom_bootstrap.json");

    let mut base = Resources::from_yaml(GATEWAY);
    base.clusters.push(site(simulator.address("vllm")));
    let ports = BTreeMap::from([(8080, vec![80]), (8443, vec![443])]);
    let proxy_version = format!("{version}.2");
    let proxy =
        Proxy { version: &proxy_version, labels: &[("istio", "ingressgateway")], context: "GATEWAY", ports: &ports };
    let istiod = Istiod { base, proxy, place: &place };
    let resources = istiod.resources(&manifests, volumes, mounts);
    assert!(resources.clusters.iter().all(|cluster| !cluster.to_string().contains("composite.v3.ClusterConfig")));
    place.push(&resources);
    let (base, proxy_base) = (istiod.base.clone(), ports.clone());
    let running = place.start(&bootstrap(), &merged);
    let (plain, tls) = (running.place.address(8080), running.place.address(8443));
    let push = |policy: &str| {
        let place = &running.place;
        let manifests = Manifests::read(&render(&place.directory, &simulator, policy, "two", &place.log, &flags));
        let proxy = Proxy {
            version: &proxy_version,
            labels: &[("istio", "ingressgateway")],
            context: "GATEWAY",
            ports: &proxy_base,
        };
        let istiod = Istiod { base: base.clone(), proxy, place };
        place.push(&istiod.resources(&manifests, volumes, mounts));
    };
    let mesh = Mesh { envoy: &running, simulator: &simulator, address: tls, host: HOST, push: &push };
    mesh.check_site(plain);
    mesh.check();
    mesh.check_site(plain);
    mesh.check_site(tls);
    // Only at the port that was asked for.
    assert_eq!(Call::new("GET", "/v1/models").header("host", HOST).send(plain).status, 404);
}
