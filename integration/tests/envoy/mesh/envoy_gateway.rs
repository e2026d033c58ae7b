//! Envoy Gateway: at an HTTP and at an HTTPS listener.

use super::traffic::Mesh;
use super::{POLICY, minor, render, site};
use pointsman_integration::environment;
use pointsman_integration::gateway::OPENAI_SECRET;
use pointsman_integration::mesh::envoy::Place;
use pointsman_integration::mesh::json_patch::apply;
use pointsman_integration::mesh::manifests::{Manifests, in_test};
use pointsman_integration::mesh::resources::Resources;
use pointsman_integration::simulator::Simulator;
use serde_json::{Value, json};

const BASE: &str = include_str!("envoy-gateway.yaml");
const HOST: &str = "llm.example.com";

/// What Envoy Gateway serves with these manifests, in the paths of the test. `listener`: the one that they are for.
fn resources(place: &Place, simulator: &Simulator, manifests: &Manifests, listener: &str) -> Resources {
    let mut resources = Resources::from_yaml(BASE);
    resources.clusters.push(site("httproute/shop/shop/rule/0", simulator.address("vllm")));
    traffic_policy(&mut resources, &manifests.only("ClientTrafficPolicy"));
    http_route(&mut resources, manifests, listener);
    let policy = manifests.only("EnvoyPatchPolicy");
    assert_eq!(policy["spec"]["targetRef"]["name"], "eg");
    apply(&mut resources, &policy);
    let proxy = &manifests.only("EnvoyProxy")["spec"]["provider"]["kubernetes"]["envoyDeployment"];
    let (volumes, mounts) = (&proxy["pod"]["volumes"], &proxy["container"]["volumeMounts"]);
    let (secrets, module) = ([("openai", OPENAI_SECRET)], environment::wasm());
    let mounted = manifests.mount(volumes, mounts, &secrets, &module, &place.directory.join("mounted"));
    let here = |all: Vec<Value>| serde_json::from_str(&in_test(&json!(all).to_string(), &mounted)).unwrap();
    Resources { clusters: here(resources.clusters), listeners: here(resources.listeners), ..resources }
}

/// Does what a ClientTrafficPolicy says to the listener that it names.
fn traffic_policy(resources: &mut Resources, policy: &Value) {
    let spec = &policy["spec"];
    let target = &spec["targetRefs"][0];
    let name = format!("ai/{}/{}", target["name"].as_str().unwrap(), target["sectionName"].as_str().unwrap());
    let listener = resources.listeners.iter_mut().find(|listener| listener["name"] == name).expect("is a listener");
    let bytes = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
    listener["per_connection_buffer_limit_bytes"] = bytes(&spec["connection"]["bufferLimit"]).into();
    let is_plain = listener.get("default_filter_chain").is_some();
    let chain = if is_plain { &mut listener["default_filter_chain"] } else { &mut listener["filter_chains"][0] };
    let manager = &mut chain["filters"][0]["typed_config"];
    // The rules of the listener's other hosts depend on it.
    assert!(spec["path"].is_null());
    assert_eq!(manager["path_with_escaped_slashes_action"], "UNESCAPE_AND_REDIRECT");
    let window = &spec["http2"]["initialStreamWindowSize"];
    if !window.is_null() {
        manager["http2_protocol_options"]["initial_stream_window_size"] = bytes(window).into();
    }
}

/// Gives the host of the HTTPRoute its virtual host, which answers as the HTTPRouteFilter says.
fn http_route(resources: &mut Resources, manifests: &Manifests, listener: &str) {
    let (route, filter) = (manifests.only("HTTPRoute"), manifests.only("HTTPRouteFilter"));
    assert_eq!(route["spec"]["parentRefs"][0]["sectionName"], listener);
    assert_eq!(route["spec"]["rules"][0]["filters"][0]["extensionRef"]["name"], filter["metadata"]["name"]);
    let host = route["spec"]["hostnames"][0].as_str().unwrap();
    let name = format!("ai/eg/{listener}");
    let under = host.replace('.', "_");
    let virtual_host = json!({
        "name": format!("{name}/{under}"),
        "domains": [host],
        "routes": [{
            "name": format!("httproute/ai/pointsman/rule/0/match/0/{under}"),
            "match": {"prefix": "/"},
            "direct_response": {"status": filter["spec"]["directResponse"]["statusCode"]},
        }],
    });
    let routes = resources.routes.iter_mut().find(|routes| routes["name"] == name).expect("are routes");
    routes["virtual_hosts"].as_array_mut().unwrap().push(virtual_host);
}

/// Envoy Gateway's own bootstrap, as far as names and metrics depend on it.
fn bootstrap() -> Value {
    let tag = |name: &str, regex: &str| json!({"tag_name": name, "regex": regex});
    json!({
        "node": {"id": "envoy-ai-eg", "cluster": "ai/eg"},
        "stats_config": {"use_all_default_tags": true, "stats_tags": [
            tag("from_zone", r"\.zone(\.(([^\.]+)\.))"),
            tag("socket_match_name", r"^cluster(\..+\.(.+))\.total_match_count$"),
            tag("priority", r"circuit_breakers\.((.+?)\.).+"),
        ]},
    })
}

fn check(listener: &str, port: u64, other: u64) {
    let version = format!("1.{}", minor(6));
    let (simulator, place) = (Simulator::start(), Place::new(&[port, other]));
    let flags = [
        "--target",
        "envoy-gateway",
        "--target-version",
        &version,
        "--namespace",
        "ai",
        "--gateway",
        "eg",
        "--listener",
        listener,
        "--host",
        HOST,
    ];
    let written = |place: &Place, policy: &str, name: &str| {
        let policy = &policy.replace("env: OPENAI_API_KEY", "file: /run/keys/openai");
        Manifests::read(&render(&place.directory, &simulator, policy, name, &place.log, &flags))
    };
    let manifests = written(&place, POLICY, "one");
    let proxy = manifests.only("EnvoyProxy");
    assert_eq!(proxy["spec"]["bootstrap"]["type"], "Merge");
    place.push(&resources(&place, &simulator, &manifests, listener));
    let running = place.start(&bootstrap(), proxy["spec"]["bootstrap"]["value"].as_str().unwrap());
    let push = |policy: &str| {
        let manifests = written(&running.place, policy, "two");
        running.place.push(&resources(&running.place, &simulator, &manifests, listener));
    };
    let (address, site) = (running.place.address(port), running.place.address(other));
    let mesh = Mesh { envoy: &running, simulator: &simulator, address, host: HOST, push: &push };
    mesh.check_site(address, 404);
    mesh.check();
    mesh.check_site(address, 404);
    // The other listener of the Gateway has nothing of it.
    mesh.check_site(site, 404);
    let elsewhere = pointsman_integration::call::Call::new("GET", "/v1/models").header("host", HOST).send(site);
    assert_eq!(elsewhere.status, 404);
    // As if the patch with the filter had been refused.
    let mut resources = resources(&running.place, &simulator, &manifests, listener);
    resources.listeners.iter_mut().for_each(without_filter);
    running.place.push(&resources);
    mesh.check_without_filter();
}

/// Takes the gateway stage from all lists of filters.
fn without_filter(value: &mut Value) {
    match value {
        Value::Array(items) => {
            items.retain(|item| item["name"] != "pointsman.gateway");
            items.iter_mut().for_each(without_filter);
        }
        Value::Object(members) => members.values_mut().for_each(without_filter),
        _ => {}
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_http_listener() {
    check("http", 10080, 10443);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_https_listener() {
    check("https", 10443, 10080);
}
