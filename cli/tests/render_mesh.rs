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
    let egress = ["destinationrule.yaml", "gateway.yaml", "service.yaml", "virtualservice.yaml"];
    assert_eq!(render("egress", &format!("{istio} --at egress --host {SERVICE}")), with(&egress));
    let sidecar = format!("{istio} --at sidecar --selector app=caller --host {SERVICE}");
    assert_eq!(render("sidecar", &sidecar), with(&["service.yaml"]));
    let gateway = format!(
        "--target envoy-gateway --target-version 1.9 --namespace ai --gateway eg --listener https --host a.b {}",
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
        ("of_envoy", "--target-version 1.30".to_owned(), "with --target envoy, use --envoy-version"),
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
        ("at", format!("{gateway} --gateway eg --listener http --at egress"), "no --at egress or sidecar"),
        ("listener", format!("{gateway} --gateway eg"), "--listener is required"),
    ] {
        let (status, message) = render(name, &flags).unwrap_err();
        assert_eq!(status, Some(2), "{name}: {message}");
        assert!(message.contains(said), "{name}: {message}");
    }
}

/// The module may also be in the pods' own image, or in a volume of the operator's.
#[test]
fn envoy_gateway_needs_no_image_if_the_pods_have_the_module() {
    let flags = "--target envoy-gateway --target-version 1.8 --namespace ai --host a.b --gateway eg --listener http";
    assert!(render("own_module", &format!("{flags} --wasm /opt/pointsman.wasm")).is_ok());
    assert!(render("no_module", flags).is_err());
}
