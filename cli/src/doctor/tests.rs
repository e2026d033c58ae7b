//! Everything that `render` writes is found, and each thing is missed when it alone is removed.

use super::dump::{Dump, Logging};
use super::examine;
use crate::document::from_yaml;
use crate::policy_file::Origin;
use crate::render::inputs::Inputs;
use crate::render::rendering::Rendering;
use crate::render::settings::{LogTarget, Settings};
use serde_json::{Value, json};
use std::path::Path;

/// What `pointsman render` writes for policies/hybrid.yaml, as trees.
struct Rendered {
    bootstrap: Value,
    cds: Value,
    rds: Value,
    ecds: Value,
}

fn rendered(version: &str, shared: bool) -> Rendered {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let inputs = Inputs::load(&root.join("policies/hybrid.yaml"), Origin::Any, &root.join("envoy/providers")).unwrap();
    let settings = Settings {
        command: "test".to_owned(),
        version: version.parse().unwrap(),
        prefix: "/etc/pointsman".to_owned(),
        wasm: "/etc/pointsman/pointsman.wasm".to_owned(),
        listen: ([127, 0, 0, 1], 8080).into(),
        admin: ([127, 0, 0, 1], 9901).into(),
        metrics: None,
        full_admin: false,
        max_heap: 0,
        access_log: LogTarget::Stdout,
        watches_directory: true,
        shared,
        mesh: None,
    };
    let files = Rendering::new(&settings, &inputs).files();
    let tree = |name: &str| from_yaml(files.get(name).unwrap()).unwrap();
    Rendered {
        bootstrap: tree("bootstrap.yaml"),
        cds: tree("cds.yaml"),
        rds: tree("rds.yaml"),
        ecds: tree("ecds.yaml"),
    }
}

impl Rendered {
    /// Returns the dump of an Envoy that has loaded it.
    fn dump(&self, version: &str) -> Dump {
        let each = |tree: &Value, member: &str| -> Vec<Value> {
            tree["resources"].as_array().unwrap().iter().map(|resource| json!({member: resource})).collect()
        };
        let configs = json!([
            {"bootstrap": self.bootstrap},
            {"static_listeners": [{"listener": self.bootstrap["static_resources"]["listeners"][0]}]},
            {"dynamic_active_clusters": each(&self.cds, "cluster")},
            {"dynamic_route_configs": each(&self.rds, "route_config")},
            {"ecds_filters": each(&self.ecds, "ecds_filter")},
        ]);
        let text = json!({"configs": configs}).to_string();
        Dump::read(&text, Some(version.parse().unwrap())).unwrap()
    }

    fn manager(&mut self) -> &mut Value {
        &mut self.listener()["filter_chains"][0]["filters"][0]["typed_config"]
    }

    fn listener(&mut self) -> &mut Value {
        &mut self.bootstrap["static_resources"]["listeners"][0]
    }

    fn router(&mut self) -> &mut Value {
        &mut self.manager()["http_filters"][1]["typed_config"]
    }

    fn gateway(&mut self) -> &mut Value {
        &mut self.ecds["resources"][0]["typed_config"]["config"]
    }

    fn cluster(&mut self, name: &str) -> &mut Value {
        let all = self.cds["resources"].as_array_mut().unwrap();
        all.iter_mut().find(|cluster| cluster["name"] == name).unwrap_or_else(|| panic!("no {name}"))
    }

    fn filters(&mut self, cluster: &str) -> &mut Vec<Value> {
        const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let options = &mut self.cluster(cluster)["typed_extension_protocol_options"][OPTIONS];
        options["http_filters"].as_array_mut().unwrap()
    }

    fn endpoint(&mut self, cluster: &str) -> &mut Value {
        &mut self.cluster(cluster)["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    }

    fn routes(&mut self) -> &mut Vec<Value> {
        self.rds["resources"][0]["virtual_hosts"][0]["routes"].as_array_mut().unwrap()
    }

    /// Does something to the action of every route.
    fn actions(&mut self, change: impl Fn(&mut Value)) {
        self.routes().iter_mut().for_each(|route| change(&mut route["route"]));
    }
}

fn remove(tree: &mut Value, member: &str) {
    tree.as_object_mut().unwrap().remove(member).unwrap_or_else(|| panic!("no {member}"));
}

/// Returns the findings in a dump: the first line of each, and the last.
fn found(dump: &Dump) -> Vec<(String, String)> {
    let lines = |text: String| {
        let lines: Vec<&str> = text.lines().collect();
        let [what, _, add] = lines[..] else { panic!("{text}") };
        (what.to_owned(), add.trim().to_owned())
    };
    examine(dump).findings.iter().map(|finding| lines(finding.to_string())).collect()
}

/// Asserts that exactly this is found once something has been done to a rendering.
#[track_caller]
fn misses(change: impl FnOnce(&mut Rendered), what: &str, add: &str) {
    let mut rendered = rendered("1.40", false);
    change(&mut rendered);
    let found = found(&rendered.dump("1.40"));
    let [(first, last)] = &found[..] else { panic!("{found:#?}") };
    assert_eq!(first, what);
    assert!(last.contains(add), "{last}");
}

#[test]
fn nothing_is_missing_in_what_render_writes() {
    for version in ["1.36", "1.37", "1.38", "1.39", "1.40"] {
        for shared in [false, true] {
            let rendered = rendered(version, shared);
            assert_eq!(found(&rendered.dump(version)), [], "{version}, shared: {shared}");
            // Envoy's dump has 64-bit numbers as text.
            let text = json!({"configs": [{"bootstrap": rendered.bootstrap}]}).to_string();
            assert!(!examine(&Dump::read(&text, None).unwrap()).findings.is_empty());
        }
    }
    let report = examine(&rendered("1.40", false).dump("1.40"));
    assert_eq!(report.seen, "Envoy 1.40, 1 listener with the gateway stage, 13 plans");
}

#[test]
fn what_is_missing_at_the_listener() {
    misses(
        |r| remove(r.gateway(), "allow_on_headers_stop_iteration"),
        "listener gateway: pointsman.gateway: no `allow_on_headers_stop_iteration`",
        "allow_on_headers_stop_iteration: true",
    );
    misses(
        |r| r.gateway()["failure_policy"] = "FAIL_OPEN".into(),
        "listener gateway: pointsman.gateway: `failure_policy` is not FAIL_RELOAD",
        "failure_policy: FAIL_RELOAD",
    );
    misses(
        |r| remove(r.manager(), "access_log"),
        "listener gateway: no access log has the audit record",
        "%FILTER_STATE(wasm.pointsman_audit:PLAIN)%",
    );
    misses(
        |r| remove(r.router(), "upstream_log"),
        "listener gateway: the router's `upstream_log` has no `attempt_provider`",
        "%UPSTREAM_METADATA(pointsman:provider)%",
    );
    misses(
        |r| remove(r.router(), "suppress_envoy_headers"),
        "listener gateway: the router has no `suppress_envoy_headers`",
        "suppress_envoy_headers: true",
    );
    misses(
        |r| remove(r.manager(), "local_reply_config"),
        "listener gateway: no `local_reply_config` of Pointsman's",
        "local_reply_config",
    );
    misses(
        |r| remove(r.listener(), "per_connection_buffer_high_watermark_timeout"),
        "listener gateway: no `per_connection_buffer_high_watermark_timeout`",
        "per_connection_buffer_high_watermark_timeout: 30s",
    );
    misses(
        |r| r.ecds["resources"] = json!([]),
        "listener gateway: the filter pointsman.gateway has not been received",
        "ecds.yaml",
    );
    misses(
        |r| drop(r.manager()["http_filters"].as_array_mut().unwrap().remove(0)),
        "listeners: no listener has the gateway stage",
        "pointsman.gateway",
    );
    misses(
        |r| r.gateway()["configuration"]["value"] = r#"{"role": "gateway", "policy": {"providers": 1}}"#.into(),
        "listener gateway: the gateway stage has no valid policy: providers: expected a mapping of names to fields, \
         found 1; write `NAME:` for each provider, and its fields below it, indented",
        "configuration",
    );
}

#[test]
fn filters_in_the_wrong_place() {
    let filter = |kind: &str| json!({"name": kind, "typed_config": {"@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}")}});
    let insert = |r: &mut Rendered, at: usize, kind: &str| {
        r.manager()["http_filters"].as_array_mut().unwrap().insert(at, filter(kind));
    };
    for (kind, name) in [("lua.v3.Lua", "lua"), ("ext_authz.v3.ExtAuthz", "ext_authz")] {
        misses(
            |r| insert(r, 1, kind),
            &format!("listener gateway: the filter {name} comes after pointsman.gateway"),
            "pointsman.gateway below it",
        );
    }
    // Before it, or without a hand in bodies and callers, they may stay.
    for (at, kind) in [(0, "lua.v3.Lua"), (0, "jwt_authn.v3.JwtAuthentication"), (1, "cors.v3.Cors")] {
        let mut good = rendered("1.40", false);
        insert(&mut good, at, kind);
        // The router is no longer the second filter.
        assert_eq!(found(&good.dump("1.40")), [], "{kind}");
    }
    // After it too, if only routes of others switch them on: what istiod adds for an InferencePool.
    let skip = json!({"request_header_mode": "SKIP", "response_header_mode": "SKIP"});
    let reads = json!({"request_header_mode": "SKIP", "response_header_mode": "SKIP", "request_body_mode": "BUFFERED"});
    for (mode, disabled, expected) in [(&skip, false, 0), (&json!({}), false, 1), (&reads, false, 1), (&reads, true, 0)]
    {
        let mut pool = rendered("1.40", false);
        insert(&mut pool, 1, "ext_proc.v3.ExternalProcessor");
        let filter = &mut pool.manager()["http_filters"][1];
        filter["typed_config"]["processing_mode"] = mode.clone();
        filter["disabled"] = disabled.into();
        assert_eq!(found(&pool.dump("1.40")).len(), expected, "{mode}, disabled: {disabled}");
    }
}

#[test]
fn what_is_missing_at_the_clusters() {
    misses(
        |r| r.cds["resources"].as_array_mut().unwrap().retain(|cluster| cluster["name"] != "plan.openai+vllm"),
        "cluster plan.openai+vllm: there is no such cluster",
        "cds.yaml",
    );
    misses(
        |r| r.cds["resources"].as_array_mut().unwrap().retain(|cluster| cluster["name"] != "direct.openai"),
        "cluster direct.openai: there is no such cluster",
        "cds.yaml",
    );
    misses(|r| drop(r.filters("plan.vllm").remove(0)), "cluster plan.vllm: no model stage", "pointsman.model");
    misses(
        |r| remove(&mut r.filters("plan.vllm")[0]["typed_config"]["config"], "allow_on_headers_stop_iteration"),
        "cluster plan.vllm: pointsman.model: no `allow_on_headers_stop_iteration`",
        "allow_on_headers_stop_iteration: true",
    );
    misses(
        |r| r.filters("plan.vllm")[0]["typed_config"]["config"]["vm_config"]["vm_id"] = "other".into(),
        "cluster plan.vllm: pointsman.model: `vm_config` differs from the gateway stage's",
        "\"vm_id\":\"pointsman\"",
    );
    misses(
        |r| drop(r.filters("plan.openai").remove(1)),
        "cluster plan.openai: no credential injector",
        "pointsman.credential",
    );
    misses(
        |r| drop(r.filters("plan.vllm").pop()),
        "cluster plan.vllm: the last of `http_filters` is not the codec",
        "upstream_codec",
    );
    misses(
        |r| remove(r.cluster("plan.openai+vllm"), "circuit_breakers"),
        "cluster plan.openai+vllm: `max_retries` is 3, Envoy's default",
        "max_retries: 1000000",
    );
    misses(
        |r| r.cluster("plan.openai+vllm")["cluster_type"]["typed_config"]["clusters"] = json!([{"name": "vllm"}]),
        "cluster plan.openai+vllm: its members are [vllm]",
        "clusters: [openai, vllm]",
    );
    misses(
        |r| remove(r.endpoint("vllm"), "metadata"),
        "cluster vllm: an endpoint does not name its provider",
        "metadata: {filter_metadata: {pointsman: {provider: vllm}}}",
    );
    misses(
        |r| remove(&mut r.endpoint("openai")["endpoint"], "hostname"),
        "cluster openai: an endpoint has no `hostname`",
        "hostname",
    );
    misses(
        |r| r.cds["resources"].as_array_mut().unwrap().retain(|cluster| cluster["name"] != "ollama"),
        "cluster ollama: there is no such cluster",
        "cluster ollama of cds.yaml",
    );
}

#[test]
fn what_is_missing_on_the_routes() {
    misses(
        |r| r.actions(|action| remove(action, "auto_host_rewrite")),
        "listener gateway: routes: no `auto_host_rewrite`",
        "auto_host_rewrite: true",
    );
    misses(
        |r| r.actions(|action| remove(action, "max_stream_duration")),
        "listener gateway: routes: no `grpc_timeout_header_max`",
        "grpc_timeout_header_max: 0s",
    );
    for change in [
        |action: &mut Value| remove(action, "retry_policy"),
        |action: &mut Value| action["retry_policy"]["num_retries"] = 1.into(),
        |action: &mut Value| remove(&mut action["retry_policy"], "retriable_headers"),
    ] {
        misses(
            |r| r.actions(change),
            "listener gateway: routes: `num_retries` is below 2, or `retriable_headers` lacks x-pointsman-next",
            "num_retries: 2",
        );
    }
    misses(
        |r| drop(r.routes().remove(0)),
        "listener gateway: routes: no route for streams that may be idle for 60000 ms",
        "x-pointsman-idle-ms",
    );
    misses(
        |r| r.actions(|action| remove(action, "cluster_header")),
        "listener gateway: routes: no route has `cluster_header: x-pointsman-cluster`",
        "cluster_header: x-pointsman-cluster",
    );
    misses(
        |r| remove(&mut r.rds["resources"][0], "request_headers_to_remove"),
        "listener gateway: routes: `request_headers_to_remove` does not have x-pointsman-cluster",
        "request_headers_to_remove",
    );
    misses(
        |r| r.routes().iter_mut().for_each(|route| route["request_body_buffer_limit"] = "32768".into()),
        "listener gateway: routes: `request_body_buffer_limit` is too low",
        "request_body_buffer_limit: 71303168",
    );
    misses(
        |r| r.rds["resources"] = json!([]),
        "listener gateway: no route configuration has been received",
        "rds.yaml",
    );
}

#[test]
fn before_1_37_the_listener_has_the_limit() {
    let mut old = rendered("1.36", false);
    remove(old.listener(), "per_connection_buffer_limit_bytes");
    let found = found(&old.dump("1.36"));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].0, "listener gateway: `per_connection_buffer_limit_bytes` is too low");
}

#[test]
fn a_shared_listeners_routes_must_enable_the_filter() {
    let mut shared = rendered("1.40", true);
    shared.routes().iter_mut().for_each(|route| remove(route, "typed_per_filter_config"));
    let found = found(&shared.dump("1.40"));
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].0, "listener gateway: routes: they do not enable pointsman.gateway, which is disabled");
}

#[test]
fn a_shared_listeners_routes_must_not_obey_callers() {
    let obeys = "listener gateway: routes: a route with `cluster_header` does not ask for the filter state \
                 wasm.pointsman_routed";
    let mut shared = rendered("1.40", true);
    shared.routes().iter_mut().for_each(|route| {
        route["match"].as_object_mut().unwrap().remove("filter_state");
    });
    let places: Vec<_> = found(&shared.dump("1.40")).into_iter().map(|found| found.0).collect();
    assert_eq!(places, [obeys]);
    // The refusal must come before the route that does not ask.
    let mut shared = rendered("1.40", true);
    let routes = shared.routes();
    let refusal = routes.iter().position(|route| route.get("direct_response").is_some()).unwrap();
    routes.swap(refusal, refusal + 1);
    let places: Vec<_> = found(&shared.dump("1.40")).into_iter().map(|found| found.0).collect();
    assert_eq!(places, [obeys]);
}

/// As in a gateway of Istio's, in all of whose listeners istiod puts the filter.
#[test]
fn a_listener_whose_routes_do_not_use_the_filter_lacks_nothing() {
    let shared = rendered("1.40", true);
    let mut other = shared.bootstrap["static_resources"]["listeners"][0].clone();
    other["name"] = "site".into();
    let manager = &mut other["filter_chains"][0]["filters"][0]["typed_config"];
    remove(manager, "rds");
    let site = json!([{"domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "site"}}]}]);
    manager["route_config"] = json!({"virtual_hosts": site});
    let mut dump = shared.dump("1.40");
    dump.listeners.insert(0, other.clone());
    let report = examine(&dump);
    assert!(report.findings.is_empty() && report.seen.contains(" 1 listener with"), "{}", report.seen);
    dump.listeners = vec![other];
    let found = found(&dump);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].0, "listener site: routes: no route has `cluster_header: x-pointsman-cluster`");
}

#[test]
fn what_is_missing_in_the_bootstrap() {
    misses(
        |r| drop(r.bootstrap["stats_config"]["stats_tags"].as_array_mut().unwrap().remove(0)),
        "bootstrap: stats_config.stats_tags: no tag \"tenant_tier\"",
        r"- {tag_name: tenant_tier, regex: '^wasmcustom\.llm_.*?(\|tenant_tier=([^|]*))'}",
    );
    misses(|r| remove(&mut r.bootstrap, "node"), "bootstrap: node: no `id`", "node: {id: envoy, cluster: envoy}");
    let rendered = rendered("1.40", false);
    for (logging, expected) in [(Logging::Offered, 1), (Logging::Refused, 0), (Logging::Unknown, 0)] {
        let mut dump = rendered.dump("1.40");
        dump.logging = logging;
        assert_eq!(found(&dump).len(), expected);
    }
    // A control plane's admin interface is its own affair.
    let mut mesh = self::rendered("1.40", false);
    mesh.bootstrap["dynamic_resources"]["lds_config"] = json!({"ads": {}});
    let mut dump = mesh.dump("1.40");
    dump.logging = Logging::Offered;
    assert_eq!(found(&dump), []);
    // There, nothing can limit it.
    let mut dump = self::rendered("1.36", false).dump("1.36");
    dump.logging = Logging::Offered;
    assert_eq!(found(&dump), []);
}

#[test]
fn an_update_that_envoy_has_rejected_is_told() {
    let rendered = rendered("1.40", false);
    let mut text = json!({"configs": [{"bootstrap": rendered.bootstrap}]});
    text["configs"].as_array_mut().unwrap().push(json!({"dynamic_active_clusters": [
        {"cluster": {"name": "vllm"}, "error_state": {"details": "no such field\n"}},
    ]}));
    let findings = found(&Dump::read(&text.to_string(), None).unwrap());
    assert_eq!(findings[0].0, "vllm: Envoy rejected the last update: no such field");
}

#[test]
fn what_is_no_dump_is_refused() {
    for (text, message) in [
        ("<html>", "not a config dump: expected value at line 1 column 1"),
        ("{}", "not a config dump: no `configs`"),
        (r#"{"configs": []}"#, "not a whole config dump: it has no bootstrap"),
    ] {
        assert_eq!(Dump::read(text, None).unwrap_err(), message);
    }
}

/// Istio's agent sends a filter that Envoy Gateway or istiod could not decode in this form.
#[test]
fn a_typed_struct_is_what_it_wraps() {
    let mut good = rendered("1.40", false);
    let filter = &mut good.ecds["resources"][0]["typed_config"];
    *filter = json!({
        "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
        "type_url": filter["@type"],
        "value": {"config": filter["config"]},
    });
    assert_eq!(found(&good.dump("1.40")), []);
}
