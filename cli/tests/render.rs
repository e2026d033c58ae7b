//! `pointsman render`: what it writes and refuses, and whether a real Envoy accepts the result.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Scratch, cluster, envoy, envoy_version, pointsman, policy, root, text, wasm};

/// Returns every file below a directory, by relative path.
fn tree(directory: &Path) -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap_or_else(|e| panic!("{}: {e}", next.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                files.insert(path.strip_prefix(directory).unwrap().to_owned(), std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    files
}

#[test]
fn the_renderings_in_the_repository_are_current() {
    let scratch = Scratch::new("current");
    for name in ["minimal", "hybrid"] {
        let policy = format!("policies/{name}.yaml");
        let (out, fresh) = (format!("envoy/rendered/{name}"), scratch.path(name));
        let arguments =
            ["render", "--policy", &policy, "--providers", "envoy/providers", "--prefix", "/etc/pointsman", "--out"];
        let output = pointsman().current_dir(root()).args(arguments).arg(&fresh).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert!(
            tree(&root().join(&out)) == tree(&fresh),
            "{out} is not what {policy} gives; refresh it: cargo run -q -p pointsman -- {} {out}",
            arguments.join(" ")
        );
    }
}

/// Renders `policy` with these provider files. Returns the exit status and standard error, with the paths hidden.
fn refused(name: &str, policy: &str, files: &[(&str, &str)]) -> (Option<i32>, String) {
    let scratch = Scratch::new(name);
    let policy = scratch.write("policy.yaml", policy);
    std::fs::create_dir_all(scratch.path("providers")).unwrap();
    for (file, content) in files {
        scratch.write(&format!("providers/{file}"), content);
    }
    let mut command = pointsman();
    command.arg("render").arg("--policy").arg(policy).arg("--providers").arg(scratch.path("providers"));
    let output = command.args(["--wasm", "/m.wasm", "--out"]).arg(scratch.path("out")).output().unwrap();
    assert!(output.stdout.is_empty());
    if !output.status.success() {
        assert!(!scratch.path("out").exists(), "nothing is written if anything is refused");
    }
    (output.status.code(), scratch.hide(&text(&output)))
}

#[test]
fn a_mistake_in_a_providers_file_is_named_with_the_file() {
    let (a, b) = (cluster("a", 1), cluster("b", 2));
    let policy = policy("KEY");
    let one = |name, files: &[(&str, &str)]| {
        let (status, message) = refused(name, &policy, files);
        assert_eq!(status, Some(1), "{message}");
        message
    };
    assert_eq!(
        one("missing", &[("a.yaml", &a)]),
        "HERE/providers: error: no cluster for provider \"b\"; add a *.yaml file that begins with `name: b`\n"
    );
    assert_eq!(
        one("twice", &[("a.yaml", &a), ("b.yaml", &b), ("c.yaml", &a)]),
        "HERE/providers/c.yaml:1:7: error: name: HERE/providers/a.yaml also has a cluster named \"a\"\n"
    );
    assert_eq!(
        one("eds", &[("a.yaml", "name: a\ntype: EDS\n"), ("b.yaml", &b)]),
        "HERE/providers/a.yaml: error: the cluster \"a\" has no endpoints in load_assignment; \
         EDS endpoints cannot be \
         marked with a provider\n"
    );
    assert_eq!(
        one("nameless", &[("a.yaml", &a), ("b.yaml", "type: STATIC\n")]).lines().next(),
        Some("HERE/providers/b.yaml: error: expected an Envoy cluster whose `name` is the provider's name")
    );
    assert_eq!(
        one("syntax", &[("a.yaml", &a), ("b.yaml", "name: b\nname: b\n")]).lines().next(),
        Some("HERE/providers/b.yaml:2:1: error: duplicate name \"name\"")
    );
    let options = "typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
        {http_filters: []}}\n";
    assert_eq!(
        one("filters", &[("a.yaml", &format!("{a}{options}")), ("b.yaml", &b)]),
        "HERE/providers/a.yaml:9:93: error: typed_extension_protocol_options.envoy.extensions.upstreams.http.v3.\
         HttpProtocolOptions.http_filters: filters of a provider cluster never run: requests go through a plan \
         cluster\n"
    );
    // Envoy ignores them beside the HTTP options, which hold the filter for requests without a plan.
    assert_eq!(
        one("old-options", &[("a.yaml", &format!("{a}http2_protocol_options: {{}}\n")), ("b.yaml", &b)]),
        "HERE/providers/a.yaml:9:1: error: http2_protocol_options: set it in typed_extension_protocol_options, under \
         envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n"
    );
    // A directory can serve many policies.
    assert_eq!(
        refused("library", &policy, &[("a.yaml", &a), ("b.yaml", &b), ("z.yaml", &cluster("z", 3))]),
        (Some(0), String::new())
    );
}

#[test]
fn the_bridge_to_redis_is_a_cluster_of_the_operators_own() {
    let policy = format!("redis: {{cluster: store}}\n{}", policy("KEY"));
    let (a, b) = (cluster("a", 1), cluster("b", 2));
    assert_eq!(
        refused("no-bridge", &policy, &[("a.yaml", &a), ("b.yaml", &b)]).1,
        "HERE/providers: error: no cluster for the Redis bridge; add a *.yaml file that begins with `name: store`\n"
    );
    let files = [("a.yaml", &*a), ("b.yaml", &*b), ("store.yaml", &*cluster("store", 3))];
    assert_eq!(refused("bridge", &policy, &files), (Some(0), String::new()));
}

#[test]
fn the_clusters_of_an_earlier_rendering_stay_if_they_are_asked_for() {
    let scratch = Scratch::new("keep");
    std::fs::create_dir_all(scratch.path("providers")).unwrap();
    scratch.write("providers/a.yaml", &cluster("a", 1));
    scratch.write("providers/b.yaml", &cluster("b", 2));
    let render = |policy: &str, out: &str, more: &[&str]| {
        let policy = scratch.write("policy.yaml", policy);
        let mut command = pointsman();
        command.arg("render").arg("--policy").arg(policy).arg("--providers").arg(scratch.path("providers"));
        command.args(["--wasm", "/m.wasm", "--prefix", "/p"]).args(more).arg("--out").arg(scratch.path(out));
        let output = command.output().unwrap();
        (output.status.code(), scratch.hide(&text(&output)))
    };
    let names = |out: &str| -> Vec<String> {
        let text = std::fs::read_to_string(scratch.path(out).join("cds.yaml")).unwrap();
        text.lines().filter_map(|line| line.strip_prefix("- name: ")).map(str::to_owned).collect()
    };
    let before = policy("KEY");
    assert_eq!(render(&before, "before", &[]), (Some(0), String::new()));
    // Without a key and without a fallback, it has fewer clusters and no secret.
    let after = before
        .replace(", fallback: [far]", "")
        .replace(", credential: {header: authorization, prefix: \"Bearer \", env: KEY}", "");
    let kept = scratch.path("before").display().to_string();
    assert_eq!(render(&after, "after", &[]), (Some(0), String::new()));
    assert_eq!(render(&after, "both", &["--keep", &kept]), (Some(0), String::new()));
    let is_only_before = |name: &String| !names("after").contains(name);
    let dropped: Vec<String> = names("before").into_iter().filter(is_only_before).collect();
    assert!(!dropped.is_empty() && names("both").iter().filter(|name| dropped.contains(name)).count() == dropped.len());
    assert!(names("after").iter().all(|name| names("both").contains(name)));
    let secret = |out: &str| scratch.path(out).join("sds-b.yaml").exists();
    assert_eq!((secret("before"), secret("after"), secret("both")), (true, false, true));
    // Not a rendering.
    let (status, message) = render(&after, "none", &["--keep", &scratch.path("providers").display().to_string()]);
    assert!(status == Some(2) && message.contains("providers/cds.yaml: No such file"), "{message}");
}

/// Metrics for others come from a listener of their own, so that the admin interface stays local.
#[test]
fn metrics_have_a_listener_of_their_own_or_none() {
    let scratch = Scratch::new("metrics");
    let policy = scratch.write("policy.yaml", &policy("KEY"));
    scratch.write("providers/a.yaml", &cluster("a", 1));
    scratch.write("providers/b.yaml", &cluster("b", 2));
    let render = |flags: &str| {
        let mut command = pointsman();
        command.args(["render", "--prefix", "/p", "--policy"]).arg(&policy).args(flags.split_whitespace());
        command.arg("--providers").arg(scratch.path("providers")).arg("--out").arg(scratch.path("out"));
        let output = command.output().unwrap();
        if !output.status.success() {
            return Err(text(&output));
        }
        let tree = |name: &str| -> serde_json::Value {
            serde_saphyr::from_str(&std::fs::read_to_string(scratch.path("out").join(name)).unwrap()).unwrap()
        };
        let names = |file: &str, list: &str| -> Vec<String> {
            let items = tree(file)["static_resources"][list].as_array().cloned().unwrap_or_default();
            items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
        };
        let admin = tree("bootstrap.yaml")["admin"]["address"]["socket_address"]["address"].clone();
        assert_eq!(admin, "127.0.0.1");
        let in_one = names("validate.yaml", "clusters").into_iter().filter(|name| name.contains("metrics")).count();
        Ok((names("bootstrap.yaml", "listeners"), names("bootstrap.yaml", "clusters"), in_one))
    };
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(render(""), Ok((own(&["gateway"]), own(&[]), 0)));
    let with = (own(&["gateway", "pointsman.metrics"]), own(&["pointsman.metrics"]), 1);
    assert_eq!(render("--metrics 0.0.0.0:9902"), Ok(with));
    for (flags, said) in [
        ("--metrics 0.0.0.0:9902 --admin 127.0.0.1:0", "--metrics needs an --admin address with a port"),
        ("--metrics 0.0.0.0:9901", "--metrics 0.0.0.0:9901: --admin has the same port"),
        ("--metrics 0.0.0.0:8080", "--metrics 0.0.0.0:8080: --listen has the same port"),
    ] {
        let refused = render(flags).unwrap_err();
        assert!(refused.contains(said), "{refused}");
    }
}

#[test]
fn an_invalid_policy_is_refused_like_by_check() {
    let (status, message) = refused("policy", &policy("KEY").replace("primary: near", "primary: nearr"), &[]);
    assert_eq!(status, Some(1));
    assert_eq!(
        message,
        "HERE/policy.yaml:9:19: error: tasks.chat.primary: unknown model \"nearr\"; did you mean \"near\"?\n\
         9 |   chat: {primary: nearr, fallback: [far]}\n  |                   ^^^^^\n"
    );
}

/// Renders for one version and returns the clusters by name.
fn clusters(name: &str, version: &str, policy: &str) -> BTreeMap<String, serde_json::Value> {
    let scratch = Scratch::new(name);
    let policy = scratch.write("policy.yaml", policy);
    scratch.write("providers/a.yaml", &cluster("a", 1));
    scratch.write("providers/b.yaml", &cluster("b", 2));
    let mut command = pointsman();
    command.args(["render", "--envoy-version", version, "--prefix", "/p", "--policy"]).arg(policy);
    command.arg("--providers").arg(scratch.path("providers")).arg("--out").arg(scratch.path("out"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let cds = std::fs::read_to_string(scratch.path("out/cds.yaml")).unwrap();
    let cds: serde_json::Value = serde_saphyr::from_str(&cds).unwrap();
    cds["resources"].as_array().unwrap().iter().map(|c| (c["name"].as_str().unwrap().to_owned(), c.clone())).collect()
}

/// A provider without a key must never receive another provider's key. Its own plan has no injector, and in a plan of
/// several providers the injector depends on the provider name.
#[test]
fn a_key_is_injected_for_its_provider_alone() {
    for version in ["1.36", "1.40"] {
        let clusters = clusters(&format!("keys-{version}"), version, &policy("KEY"));
        let names: Vec<_> = clusters.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", "b", "direct.b", "plan.a", "plan.a+b", "plan.b"]);
        let filters = |plan: &str| {
            let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
            clusters[plan]["typed_extension_protocol_options"][options]["http_filters"].as_array().unwrap().clone()
        };
        let injects = |filter: &serde_json::Value| filter.to_string().contains("credential_injector");
        assert!(!filters("plan.a").iter().any(injects));
        assert!(filters("plan.b")[1]["typed_config"]["credential"].is_object());
        assert!(filters("direct.b")[1]["typed_config"]["credential"].is_object());
        // Only the model stage may set the headers of the attempt log.
        for unplanned in ["a", "direct.b"] {
            let taken = &filters(unplanned)[0]["typed_config"]["mutations"]["response_mutations"];
            assert_eq!(taken[0]["remove"], "x-pointsman-model", "{unplanned}: {taken}");
            assert_eq!(taken[1]["remove"], "x-pointsman-attempts", "{unplanned}: {taken}");
        }
        let matcher = &filters("plan.a+b")[1]["typed_config"]["xds_matcher"];
        assert_eq!(matcher["matcher_tree"]["input"]["typed_config"]["key"], "wasm.pointsman_provider", "{matcher:#}");
        let map = matcher["matcher_tree"]["exact_match_map"]["map"].as_object().unwrap();
        assert_eq!(map.keys().collect::<Vec<_>>(), ["b"]);
        assert!(matcher.get("on_no_match").is_none());
        assert_eq!(filters("plan.a+b").iter().filter(|f| injects(f)).count(), 1);
        assert_eq!(
            clusters["a"]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["hostname"],
            "127.0.0.1:1"
        );
    }
}

/// At a start, Envoy compiles the module in the thread that also checks health, for longer than a check may take.
#[test]
fn the_first_health_check_waits_until_envoy_has_compiled_the_module() {
    let scratch = Scratch::new("first-check");
    let policy = scratch.write("policy.yaml", &format!("redis: {{cluster: store}}\n{}", policy("KEY")));
    let check = |more: &str| {
        let check = "tcp_health_check: {}, timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1";
        format!("health_checks: [{{{check}{more}}}]\n")
    };
    scratch.write("providers/a.yaml", &format!("{}{}", cluster("a", 1), check("")));
    scratch.write("providers/b.yaml", &format!("{}{}", cluster("b", 2), check(", initial_jitter: 3s")));
    scratch.write("providers/store.yaml", &format!("{}{}", cluster("store", 3), check("")));
    let mut command = pointsman();
    command.args(["render", "--prefix", "/p", "--policy"]).arg(policy);
    command.arg("--providers").arg(scratch.path("providers")).arg("--out").arg(scratch.path("out"));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let cds = std::fs::read_to_string(scratch.path("out/cds.yaml")).unwrap();
    let cds: serde_json::Value = serde_saphyr::from_str(&cds).unwrap();
    let delay = |name: &str| {
        let clusters = cds["resources"].as_array().unwrap();
        clusters.iter().find(|cluster| cluster["name"] == name).unwrap()["health_checks"][0]["initial_jitter"].clone()
    };
    assert_eq!([delay("a"), delay("b"), delay("store")], ["0.001s", "3s", "0.001s"], "an operator's own delay stays");
}

/// The listener's own timer ends requests that are silent for 15 minutes.
#[test]
fn a_request_that_may_take_longer_than_the_listener_waits_has_a_route_that_waits() {
    let waits = |name: &str, resilience: &str| {
        let scratch = Scratch::new(name);
        let policy = scratch.write("policy.yaml", &format!("{}{resilience}", policy("KEY")));
        scratch.write("providers/a.yaml", &cluster("a", 1));
        scratch.write("providers/b.yaml", &cluster("b", 2));
        let mut command = pointsman();
        command.args(["render", "--prefix", "/p", "--policy"]).arg(policy);
        command.arg("--providers").arg(scratch.path("providers")).arg("--out").arg(scratch.path("out"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let rds = std::fs::read_to_string(scratch.path("out/rds.yaml")).unwrap();
        let rds: serde_json::Value = serde_saphyr::from_str(&rds).unwrap();
        let routes = rds["resources"][0]["virtual_hosts"][0]["routes"].as_array().unwrap().clone();
        routes.last().unwrap()["route"].get("idle_timeout").cloned()
    };
    assert_eq!(waits("short", ""), None);
    assert_eq!(waits("attempt-within", "resilience: {attempt_timeout: 20m}\n"), None);
    let long = "resilience: {attempt_timeout: 20m, request_timeout: 1h}\n";
    assert_eq!(waits("long", long), Some("3660.000s".into()));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn envoy_takes_what_is_rendered() {
    let scratch = Scratch::new("validate");
    for name in ["minimal", "hybrid"] {
        let out = scratch.path(name);
        let mut command = pointsman();
        command.current_dir(root()).args([
            "render",
            "--policy",
            &format!("policies/{name}.yaml"),
            "--providers",
            "envoy/providers",
        ]);
        command.args(["--envoy-version", &envoy_version()]).arg("--wasm").arg(wasm()).arg("--out").arg(&out);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        for file in ["validate.yaml", "bootstrap.yaml"] {
            let mut command = Command::new(envoy());
            command.args(["--mode", "validate", "--disable-hot-restart", "-l", "warning", "-c"]).arg(out.join(file));
            let output = command.output().unwrap();
            assert!(output.status.success(), "{name}/{file}: {}", text(&output));
        }
    }
}

/// Covers the provider files that no policy in the repository uses.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn envoy_takes_every_provider_in_the_library() {
    let scratch = Scratch::new("every-provider");
    for entry in std::fs::read_dir(root().join("envoy/providers")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let out = scratch.path(name);
        let policy = scratch.write(
            "policy.yaml",
            &policy("KEY").replace("  b:", &format!("  {name}:")).replace("provider: b", &format!("provider: {name}")),
        );
        scratch.write("providers/a.yaml", &cluster("a", 1));
        std::fs::copy(&path, scratch.path("providers/b.yaml")).unwrap();
        let mut command = pointsman();
        command.args(["render", "--envoy-version", &envoy_version(), "--policy"]).arg(policy).arg("--providers");
        command.arg(scratch.path("providers")).arg("--wasm").arg(wasm()).arg("--out").arg(&out);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let mut command = Command::new(envoy());
        command
            .args(["--mode", "validate", "--disable-hot-restart", "-l", "warning", "-c"])
            .arg(out.join("validate.yaml"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{name}: {}", text(&output));
    }
}
