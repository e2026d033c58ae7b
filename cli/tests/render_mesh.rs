//! `pointsman render --target istio|envoy-gateway`: which files it writes, and what it refuses. The real-Envoy tests
//! have what the files do.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use support::{Scratch, cluster, pointsman, policy, text};

const DIGEST: &str = "sha256:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const SERVICE: &str = "llm.ai.svc.cluster.local";

/// Renders with these flags. Returns the names of the files, or the exit status and what was said.
fn render(name: &str, flags: &str) -> Result<Vec<String>, (Option<i32>, String)> {
    let scratch = Scratch::new(name);
    let policy = scratch.write("policy.yaml", &policy("KEY"));
    std::fs::create_dir_all(scratch.path("providers")).unwrap();
    for (i, provider) in ["a", "b"].into_iter().enumerate() {
        scratch.write(&format!("providers/{provider}.yaml"), &cluster(provider, i as u16 + 1));
    }
    let mut command = pointsman();
    command.arg("render").arg("--policy").arg(policy).arg("--providers").arg(scratch.path("providers"));
    let output = command.args(flags.split_whitespace()).arg("--out").arg(scratch.path("out")).output().unwrap();
    if !output.status.success() {
        assert!(!scratch.path("out").exists(), "nothing is written if anything is refused");
        return Err((output.status.code(), text(&output)));
    }
    let mut files = Vec::new();
    for directory in ["out", "out/patch"] {
        for entry in std::fs::read_dir(scratch.path(directory)).into_iter().flatten() {
            files.push(entry.unwrap().file_name().to_string_lossy().into_owned());
        }
    }
    files.retain(|file| file != "patch");
    files.sort();
    Ok(files)
}

fn image() -> String {
    format!("--image registry.example.com/pointsman --image-digest {DIGEST}")
}

#[test]
fn a_target_gets_the_files_of_its_place() {
    let always = [
        "configmap-bootstrap.yaml",
        "configmap-sds.yaml",
        "deployment.yaml",
        "envoyfilter-clusters.yaml",
        "envoyfilter.yaml",
    ];
    let with = |more: &[&str]| {
        let mut all: Vec<_> = always.iter().chain(more).map(|name| (*name).to_owned()).collect();
        all.sort();
        Ok(all)
    };
    let istio = format!("--target istio --target-version 1.31 --namespace ai {}", image());
    assert_eq!(render("ingress", &format!("{istio} --host llm.example.com")), with(&[]));
    let made_from_gateway = render("made", &format!("{istio} --host llm.example.com --gateway eg.example"));
    let mut expected = with(&["configmap-gateway.yaml", "gateway.yaml"]).unwrap();
    expected.retain(|file| file != "deployment.yaml");
    assert_eq!(made_from_gateway, Ok(expected));
    let egress = ["destinationrule.yaml", "gateway.yaml", "service.yaml", "virtualservice.yaml"];
    assert_eq!(render("egress", &format!("{istio} --at egress --host {SERVICE}")), with(&egress));
    let sidecar = format!("{istio} --at sidecar --selector app=caller --host {SERVICE}");
    assert_eq!(render("sidecar", &sidecar), with(&["service.yaml"]));
    let gateway = format!(
        "--target envoy-gateway --target-version 1.9 --namespace ai --gateway eg.v1 --listener https --host a.b {}",
        image()
    );
    let policies = [
        "clienttrafficpolicy.yaml",
        "configmap-sds.yaml",
        "envoypatchpolicy.yaml",
        "envoyproxy.yaml",
        "httproute.yaml",
        "httproutefilter.yaml",
    ];
    assert_eq!(render("gateway", &gateway), Ok(policies.map(str::to_owned).into()));
}

#[test]
fn a_flag_that_is_missing_or_of_another_target_is_named() {
    let istio = "--target istio --target-version 1.30 --namespace ai";
    let gateway = format!("--target envoy-gateway --target-version 1.8 --namespace ai --host a.b {}", image());
    for (name, flags, said) in [
        ("version", "--target istio".to_owned(), "expected --target-version 1.28 to 1.31 for istio"),
        ("old", "--target istio --target-version 1.27".to_owned(), "1.28 to 1.31"),
        (
            "of_envoy",
            "--target-version 1.30".to_owned(),
            "--target-version has no effect with --target envoy: use --envoy-version",
        ),
        ("host", format!("{istio} {}", image()), "--host is required with this target"),
        ("no_image", format!("{istio} --host a.b"), "push it to your registry"),
        (
            "namespace",
            format!("--target istio --target-version 1.30 --host a.b {}", image()),
            "--namespace is required",
        ),
        ("wildcard", format!("{istio} --host *.b {}", image()), "expected a host name"),
        ("digest", format!("{istio} --host a.b --image a.b/c --image-digest latest"), "expected sha256:"),
        ("no_service", format!("{istio} --at egress --host a.b {}", image()), "SERVICE.NAMESPACE.svc.cluster.local"),
        ("labels", format!("{istio} --at sidecar --host {SERVICE} {}", image()), "--selector is required"),
        (
            "at",
            format!("{gateway} --gateway eg --listener http --at egress"),
            "--at has no effect with --target envoy-gateway",
        ),
        ("listener", format!("{gateway} --gateway eg"), "--listener is required"),
        ("twice", format!("{istio} --host a.b --host c.d --host a.b {}", image()), "--host a.b is given twice"),
        ("domain", format!("{istio} --at egress --host l.a.svc.x {}", image()), "set --cluster-domain"),
        ("long_name", format!("{istio} --host a.b --name {} {}", "n".repeat(54), image()), "at most 53 characters"),
        ("label", format!("{istio} --host a.b --selector a=b,c=d {}", image()), "KEY=VALUE of one label"),
        ("label_twice", format!("{istio} --host a.b --selector a=b --selector a=c {}", image()), "same label twice"),
    ] {
        let (status, message) = render(name, &flags).unwrap_err();
        assert_eq!(status, Some(2), "{name}: {message}");
        assert!(message.contains(said), "{name}: {message}");
    }
}

/// Each of these would leave its author with another gateway than the one that was asked for.
#[test]
fn a_flag_without_effect_is_refused_by_its_name() {
    let istio = format!("--target istio --target-version 1.30 --namespace ai --host {SERVICE} {}", image());
    let of = |targets: &str, flags: &[&str]| {
        for flag in flags {
            let (status, message) = render("flag", &format!("{targets} {flag}")).unwrap_err();
            let name = flag.split(' ').next().unwrap();
            assert_eq!(status, Some(2), "{flag}: {message}");
            assert!(message.starts_with(&format!("error: {name} has no effect with")), "{flag}: {message}");
            assert_eq!(message.lines().count(), 1, "{flag}: {message}");
        }
    };
    let of_envoy = [
        "--listen 127.0.0.1:1",
        "--admin 127.0.0.1:1",
        "--metrics 127.0.0.1:1",
        "--full-admin",
        "--max-heap 1GiB",
        "--prefix /p",
        "--keep .",
        "--envoy-version 1.36",
        "--shared-listener",
    ];
    of(&istio, &of_envoy);
    of(&istio, &["--wasm /m.wasm", "--listener http", "--proxy-namespace p", "--cluster-domain c.d"]);
    of(&format!("{istio} --at egress"), &["--gateway eg"]);
    of(&format!("{istio} --gateway eg"), &["--selector a=b"]);
    let gateway = "--target envoy-gateway --target-version 1.8 --namespace ai --host a.b --gateway eg --listener http";
    let with_image = format!("{gateway} {}", image());
    of(&with_image, &of_envoy);
    of(&with_image, &["--at ingress", "--selector a=b", "--port 80", "--egress-service a.b", "--cluster-domain c.d"]);
    let of_meshes =
        ["--host a.b", "--namespace ai", "--name n", "--before f", "--gateway eg", "--listener l", "--at sidecar"];
    of("", &of_meshes);
    of("", &["--selector a=b", "--port 80", "--egress-service a.b", "--cluster-domain c.d", "--proxy-namespace p"]);
    // All at once.
    let (_, message) = render("flags", "--host a.b --port 80").unwrap_err();
    assert_eq!(message.lines().count(), 2, "{message}");
    // Each has an effect at its own target.
    assert!(render("own", &format!("{istio} --at egress --port 81 --egress-service a.b --selector a=b")).is_ok());
    assert!(render("own", &format!("{gateway} --wasm /m.wasm --proxy-namespace p --before f --name n")).is_ok());
}

/// A mesh's Envoys would keep their own cluster of that name, and send it the prompts.
#[test]
fn a_provider_with_the_name_of_a_meshs_own_cluster_is_refused() {
    let scratch = Scratch::new("taken");
    let policy =
        scratch.write("policy.yaml", &policy("KEY").replace("b:", "agent:").replace("provider: b", "provider: agent"));
    for provider in ["a", "agent"] {
        scratch.write(&format!("providers/{provider}.yaml"), &cluster(provider, 1));
    }
    let istio = format!("--target istio --target-version 1.31 --namespace ai --host a.b {}", image());
    let gateway = "--target envoy-gateway --target-version 1.9 --namespace ai --gateway eg --listener http --host a.b";
    for (flags, status) in [(istio, 2), (format!("{gateway} {}", image()), 0), ("--prefix /p".to_owned(), 0)] {
        let mut command = pointsman();
        command.arg("render").arg("--policy").arg(&policy).arg("--providers").arg(scratch.path("providers"));
        let output = command.args(flags.split_whitespace()).arg("--out").arg(scratch.path("out")).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{flags}: {}", text(&output));
        let said = text(&output).contains("the Envoys of istio have a cluster \"agent\" of their own");
        assert_eq!((said, scratch.path("out").exists()), (status == 2, status == 0), "{}", text(&output));
    }
}

/// Nothing that an earlier rendering wrote is applied again by accident, and nothing else is touched.
#[test]
fn files_of_an_earlier_rendering_are_removed() {
    let scratch = Scratch::new("stale");
    std::fs::create_dir_all(scratch.path("providers")).unwrap();
    for provider in ["a", "b"] {
        scratch.write(&format!("providers/{provider}.yaml"), &cluster(provider, 1));
    }
    let out = scratch.path("out");
    let render = |policy: &str, flags: &str| {
        let policy = scratch.write("policy.yaml", policy);
        let mut command = pointsman();
        command.arg("render").arg("--policy").arg(policy).arg("--providers").arg(scratch.path("providers"));
        let output = command.args(flags.split_whitespace()).arg("--out").arg(&out).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
            .lines()
            .filter(|line| line.starts_with("removed "))
            .map(|line| scratch.hide(line))
            .collect::<Vec<_>>()
    };
    let removed = |name: &str| format!("removed HERE/out/{name}, which an earlier rendering wrote");
    let (with_key, prefix) = (policy("KEY"), "--prefix /p");
    let without_key = with_key.replace(", credential: {header: authorization, prefix: \"Bearer \", env: KEY}", "");
    let none: Vec<String> = Vec::new();
    assert_eq!(render(&with_key, prefix), none);
    assert_eq!(render(&with_key, prefix), none, "a file that is still rendered stays");
    for (name, content) in [("sds-mine.yaml", "mine: 1\n"), ("notes.yaml", "mine: 2\n"), ("gateway.yaml", "mine: 3\n")]
    {
        scratch.write(&format!("out/{name}"), content);
    }
    let generated = std::fs::read_to_string(out.join("cds.yaml")).unwrap();
    scratch.write("out/cds-before.yaml", &generated);
    assert_eq!(render(&without_key, prefix), [removed("sds-b.yaml")]);
    // Another target, and another place.
    let istio = format!("--target istio --target-version 1.31 --namespace ai {} --host {SERVICE}", image());
    let of_envoy = ["bootstrap.yaml", "cds.yaml", "ecds.yaml", "rds.yaml", "validate.yaml"].map(removed);
    assert_eq!(render(&without_key, &format!("{istio} --at sidecar --selector a=b")), of_envoy);
    let service = format!("{}; if it was applied: kubectl -n ai delete service llm", removed("service.yaml"));
    assert_eq!(render(&without_key, &istio), [service]);
    assert_eq!(render(&without_key, &format!("{istio} --gateway eg")), [removed("patch/deployment.yaml")]);
    let gateway = format!(
        "--target envoy-gateway --target-version 1.9 --namespace ai --gateway eg --listener http --host a.b {}",
        image()
    );
    assert_eq!(render(&without_key, &gateway).len(), 5);
    let back = render(&with_key, prefix);
    assert_eq!(back.len(), 5, "{back:?}");
    let mut left: Vec<_> =
        std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    let of_operator = ["cds-before.yaml", "gateway.yaml", "notes.yaml", "sds-mine.yaml"];
    let of_render = ["bootstrap.yaml", "cds.yaml", "ecds.yaml", "rds.yaml", "sds-b.yaml", "validate.yaml"];
    let mut expected: Vec<_> = of_operator.into_iter().chain(of_render).collect();
    expected.sort_unstable();
    assert_eq!(left, expected);
}

/// An object that goes by another name now is not applied again, and stays in the cluster until it is deleted.
#[test]
fn objects_of_an_earlier_rendering_are_named_when_the_new_ones_have_other_names() {
    let scratch = Scratch::new("renamed");
    let policy = scratch.write("policy.yaml", &policy("KEY"));
    for provider in ["a", "b"] {
        scratch.write(&format!("providers/{provider}.yaml"), &cluster(provider, 1));
    }
    let render = |flags: &str| {
        let mut command = pointsman();
        command.arg("render").arg("--policy").arg(&policy).arg("--providers").arg(scratch.path("providers"));
        let output = command.args(flags.split_whitespace()).arg("--out").arg(scratch.path("out")).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        let said = text(&output);
        let deletions = said.lines().filter_map(|line| line.split_once("if that was applied: "));
        deletions.map(|(_, deletion)| deletion.to_owned()).collect::<Vec<_>>()
    };
    let istio = |version: &str, name: &str, host: &str| {
        let at = format!("--namespace ai --name {name} --at sidecar --selector a=b --host {host}");
        format!("--target istio --target-version {version} {at} {}", image())
    };
    let none: Vec<String> = Vec::new();
    assert_eq!(render(&istio("1.30", "llm", SERVICE)), none);
    assert_eq!(render(&istio("1.30", "llm", SERVICE)), none, "the same objects");
    let deletes = |objects: &[&str]| -> Vec<String> {
        objects.iter().map(|object| format!("kubectl -n ai delete {object}")).collect()
    };
    let filters = ["envoyfilter llm-clusters-1.30", "envoyfilter llm-1.30"];
    assert_eq!(render(&istio("1.31", "llm", SERVICE)), deletes(&filters));
    assert_eq!(render(&istio("1.31", "llm", "ai.ai.svc.cluster.local")), deletes(&["service llm"]));
    let named =
        ["configmap llm-bootstrap", "configmap llm-sds", "envoyfilter llm-clusters-1.31", "envoyfilter llm-1.31"];
    assert_eq!(render(&istio("1.31", "other", "ai.ai.svc.cluster.local")), deletes(&named));
}

/// What cannot be replaced is refused before anything is written.
#[test]
fn an_output_that_is_no_file_is_refused_before_anything_is_written() {
    let scratch = Scratch::new("occupied");
    let policy = scratch.write("policy.yaml", &policy("KEY"));
    for provider in ["a", "b"] {
        scratch.write(&format!("providers/{provider}.yaml"), &cluster(provider, 1));
    }
    let out = scratch.path("out");
    let occupied = out.join("rds.yaml");
    std::fs::create_dir_all(&occupied).unwrap();
    let render = || {
        let mut command = pointsman();
        command.arg("render").arg("--policy").arg(&policy).arg("--providers").arg(scratch.path("providers"));
        let output = command.args(["--prefix", "/p", "--out"]).arg(&out).output().unwrap();
        (output.status.code(), text(&output))
    };
    let fifo = || assert!(std::process::Command::new("mkfifo").arg(&occupied).status().unwrap().success());
    for occupy in [None, Some(fifo)] {
        if let Some(occupy) = occupy {
            occupy();
        }
        let (status, said) = render();
        assert!(status == Some(2) && said.contains("rds.yaml is not a regular file"), "{said}");
        assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1);
        let _ = std::fs::remove_dir(&occupied);
        let _ = std::fs::remove_file(&occupied);
    }
    std::os::unix::fs::symlink(scratch.write("mine", "mine\n"), &occupied).unwrap();
    assert_eq!(render().0, Some(0));
    assert_eq!(std::fs::read_to_string(scratch.path("mine")).unwrap(), "mine\n");
}

/// Istio injects nothing into the pods that it makes from a Gateway: what the annotations do elsewhere is written out.
#[test]
fn pods_that_are_made_from_a_gateway_get_the_bootstrap_and_the_keys() {
    let scratch = Scratch::new("made");
    let policy = scratch.write("policy.yaml", &policy("KEY"));
    for provider in ["a", "b"] {
        scratch.write(&format!("providers/{provider}.yaml"), &cluster(provider, 1));
    }
    let flags = format!(
        "--target istio --target-version 1.30 --namespace ai --host a.b --gateway eg {} --name {}",
        image(),
        "n".repeat(53)
    );
    let mut command = pointsman();
    command.arg("render").arg("--policy").arg(policy).arg("--providers").arg(scratch.path("providers"));
    let output = command.args(flags.split_whitespace()).arg("--out").arg(scratch.path("out")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let read = |name: &str| -> serde_json::Value {
        serde_saphyr::from_str(&std::fs::read_to_string(scratch.path("out").join(name)).unwrap()).unwrap()
    };
    let (config_map, patch) = (read("configmap-gateway.yaml"), read("patch/gateway.yaml"));
    assert_eq!(patch["spec"]["infrastructure"]["parametersRef"]["name"], config_map["metadata"]["name"]);
    let overlay: serde_json::Value =
        serde_saphyr::from_str(config_map["data"]["deployment"].as_str().unwrap()).unwrap();
    let pod = &overlay["spec"]["template"]["spec"];
    let proxy = &pod["containers"][0];
    let names = |list: &serde_json::Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((names(&pod["volumes"]), names(&pod["volumes"]).len()), (names(&proxy["volumeMounts"]), 3));
    assert!(names(&pod["volumes"]).iter().all(|name| name.len() <= 63));
    let (variable, last) = (&proxy["env"][0], &proxy["volumeMounts"][2]);
    assert_eq!(variable["name"], "ISTIO_BOOTSTRAP_OVERRIDE");
    let file = variable["value"].as_str().unwrap().strip_prefix(last["mountPath"].as_str().unwrap()).unwrap();
    assert_eq!(pod["volumes"][2]["configMap"]["name"], read("configmap-bootstrap.yaml")["metadata"]["name"]);
    assert!(read("configmap-bootstrap.yaml")["data"][file.trim_start_matches('/')].is_string(), "{file}");
    let selected = &read("envoyfilter.yaml")["spec"]["workloadSelector"]["labels"];
    assert_eq!(selected["gateway.networking.k8s.io/gateway-name"], "eg");
}

/// The module may also be in the pods' own image, or in a volume of the operator's.
#[test]
fn envoy_gateway_needs_no_image_if_the_pods_have_the_module() {
    let flags = "--target envoy-gateway --target-version 1.8 --namespace ai --host a.b --gateway eg --listener http";
    assert!(render("own_module", &format!("{flags} --wasm /opt/pointsman.wasm")).is_ok());
    assert!(render("no_module", flags).is_err());
}

/// Returns what a rendering of these flags says, and one of its files. `with_key`: whether a provider has a key.
fn said_of(name: &str, flags: &str, with_key: bool, file: &str) -> (String, String) {
    let scratch = Scratch::new(name);
    let text_of = policy("KEY");
    let text_of = if with_key { text_of } else { text_of.replace(CREDENTIAL, "") };
    assert_eq!(text_of.contains("credential"), with_key, "{text_of}");
    let policy = scratch.write("policy.yaml", &text_of);
    for provider in ["a", "b"] {
        scratch.write(&format!("providers/{provider}.yaml"), &cluster(provider, 1));
    }
    let mut command = pointsman();
    command.arg("render").arg("--policy").arg(policy).arg("--providers").arg(scratch.path("providers"));
    let output = command.args(flags.split_whitespace()).arg("--out").arg(scratch.path("out")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    (text(&output), std::fs::read_to_string(scratch.path("out").join(file)).unwrap())
}

const CREDENTIAL: &str = ", credential: {header: authorization, prefix: \"Bearer \", env: KEY}";

/// A proxy refuses clusters whose keys are not mounted yet.
#[test]
fn the_order_of_first_steps_is_said_if_there_are_keys() {
    let istio = format!("--target istio --target-version 1.30 --namespace ai --host a.b {}", image());
    let gateway = format!(
        "--target envoy-gateway --target-version 1.8 --namespace ai --gateway eg --listener https --host a.b {}",
        image()
    );
    for (flags, patch) in [
        (istio.clone(), "that Secret and configmap-*.yaml, then patch/deployment.yaml, and the other files"),
        (
            format!("{istio} --gateway eg"),
            "that Secret and configmap-*.yaml, then patch/gateway.yaml, and the other files",
        ),
        (gateway.clone(), "that Secret and configmap-sds.yaml, then envoyproxy.yaml and the Gateway's parametersRef"),
    ] {
        let file = if flags == gateway { "envoypatchpolicy.yaml" } else { "envoyfilter.yaml" };
        let (said, _) = said_of("order", &flags, true, file);
        assert!(said.contains(patch), "{said}");
        assert!(said.contains("--from-literal=KEY=\"$(cat FILE)\""), "{said}");
        assert_eq!(said.contains("the only one at its port"), flags == gateway, "{said}");
        let (said, _) = said_of("no-order", &flags, false, file);
        assert!(!said.contains("Secret"), "{said}");
    }
}

/// A pod is not ready before it has the module, and the filter comes after those of other EnvoyFilters.
#[test]
fn istio_waits_for_the_module_and_applies_the_patches_last() {
    let flags = format!("--target istio --target-version 1.30 --namespace ai --host a.b {}", image());
    for file in ["envoyfilter.yaml", "envoyfilter-clusters.yaml"] {
        let (_, yaml) = said_of("waits", &flags, true, file);
        let tree: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(tree["spec"]["priority"], 100, "{file}");
        let (sources, timeouts) =
            (yaml.matches("config_discovery:").count(), yaml.matches("initial_fetch_timeout: ").count());
        assert!(sources > 0 && sources == timeouts, "{file}: {sources} {timeouts}");
        assert!(yaml.contains("initial_fetch_timeout: \"0s\"") || yaml.contains("initial_fetch_timeout: 0s"), "{yaml}");
    }
}
