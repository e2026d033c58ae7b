//! What `pointsman render` writes can be mounted from a ConfigMap, and the keys from a Secret. A change of either
//! reaches a running Envoy under load, and no request fails.

use crate::standard::ask;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::environment;
use pointsman_integration::gateway::{cluster, key_hash};
use pointsman_integration::mounted::{Mounted, files_of};
use pointsman_integration::plain_envoy::PlainEnvoy;
use pointsman_integration::port::Port;
use pointsman_integration::process;
use pointsman_integration::simulator::{Seen, Simulator};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// One provider without a key, one whose key is a file, and one whose key is in an SDS file of the operator's.
const POLICY: &str = r#"
providers:
  vllm: {dialect: openai, local: true, data: regulated}
  openai: {dialect: openai, data: internal, credential: {header: authorization, prefix: "Bearer ", file: KEYS/openai}}
  azure: {dialect: openai, data: internal, credential: {header: api-key, sds: KEYS/azure.yaml}}
models:
  near: {provider: vllm, model: near-1, context: 10000, max_output_tokens: 10}
  far: {provider: openai, model: far-1, context: 10000, max_output_tokens: 10}
  farther: {provider: azure, model: farther-1, context: 10000, max_output_tokens: 10}
tasks:
  local: {primary: near, fallback: [far]}
  hosted: {primary: far, fallback: [near]}
  other: {primary: farther}
tiers:
  pro: {models: [near, far, farther]}
tenants:
  acme: {tier: pro, keys: [HASH]}
"#;

/// Where the volumes are mounted, and what is mounted.
struct Volumes {
    directory: PathBuf,
    config: Mounted,
    keys: Mounted,
    gateway: Port,
    admin: Port,
}

impl Volumes {
    fn new(simulator: &Simulator) -> Self {
        let directory = process::directory();
        let (gateway, admin) = (Port::reserve(), Port::reserve());
        let addresses = ["vllm", "openai", "azure"].map(|provider| (provider, simulator.address(provider)));
        let rendered = render(&directory, &gateway, &admin, POLICY, &addresses, None);
        Self {
            config: Mounted::at(directory.join("config"), rendered),
            keys: Mounted::at(directory.join("keys"), keys("sk-first")),
            directory,
            gateway,
            admin,
        }
    }

    /// Renders another policy, with the clusters that are mounted.
    fn rendered_keeping(&self, policy: &str, providers: &[(&str, SocketAddr)]) -> BTreeMap<String, String> {
        let mounted = self.directory.join("config");
        render(&self.directory, &self.gateway, &self.admin, policy, providers, Some(&mounted))
    }

    /// Applies another policy and other addresses, as `kubectl apply` of a new ConfigMap does.
    fn apply(&mut self, policy: &str, providers: &[(&str, SocketAddr)]) {
        let rendered = render(&self.directory, &self.gateway, &self.admin, policy, providers, None);
        assert_ne!(rendered, self.config.files());
        self.config.replace(rendered);
    }
}

/// Returns the volume with the providers' keys.
fn keys(key: &str) -> BTreeMap<String, String> {
    let secret = format!(
        "resources:\n- \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret\n  \
         name: azure\n  generic_secret: {{secret: {{inline_string: {key}}}}}\n"
    );
    BTreeMap::from([("openai".to_owned(), key.to_owned()), ("azure.yaml".to_owned(), secret)])
}

/// Renders a policy as an operator does before making a ConfigMap of the result.
fn render(
    directory: &Path,
    gateway: &Port,
    admin: &Port,
    policy: &str,
    providers: &[(&str, SocketAddr)],
    keep: Option<&Path>,
) -> BTreeMap<String, String> {
    let scratch = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(scratch.path().join(name), text).unwrap();
    let policy = policy.replace("KEYS", &directory.join("keys").display().to_string());
    write("policy.yaml", &policy.replace("HASH", &format!("\"{}\"", key_hash("sk-acme"))));
    fs::create_dir(scratch.path().join("providers")).unwrap();
    for (name, address) in providers {
        write(&format!("providers/{name}.yaml"), &cluster(name, *address, ""));
    }
    let (major, minor) = environment::envoy_version();
    let mut render = Command::new(environment::program("pointsman"));
    render.current_dir(scratch.path());
    render.args(["render", "--policy", "policy.yaml", "--providers", "providers", "--out", "out"]);
    render.args(["--envoy-version", &format!("{major}.{minor}"), "--access-log", "/dev/null"]);
    render.args(["--listen", &gateway.address.to_string(), "--admin", &admin.address.to_string()]);
    render.arg("--wasm").arg(environment::wasm()).arg("--prefix").arg(directory.join("config"));
    if let Some(earlier) = keep {
        render.arg("--keep").arg(earlier);
    }
    let output = render.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    files_of(&scratch.path().join("out"))
}

/// Sends a request with this prompt along a task. It must not fail.
fn served(gateway: SocketAddr, task: &str, prompt: &str) {
    let answer = Call::chat_json(&ask(task, prompt)).key("sk-acme").send(gateway);
    assert_eq!(answer.status, 200, "{task}, {prompt}: {}", answer.text());
}

/// Returns what the last provider saw of a request along a task.
fn seen(simulator: &Simulator, gateway: SocketAddr, task: &str) -> Seen {
    served(gateway, task, "probe");
    simulator.with("probe").pop().unwrap()
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_swap_of_the_volume_reloads_policy_clusters_and_keys_and_no_request_fails() {
    let simulator = Simulator::start();
    let mut volumes = Volumes::new(&simulator);
    let (gateway, admin) = (volumes.gateway.address, volumes.admin.address);
    let bootstrap = volumes.directory.join("config/bootstrap.yaml");
    let _envoy = PlainEnvoy::start(&bootstrap, admin, &[], &volumes.directory);
    let addresses = ["vllm", "openai", "azure"].map(|provider| (provider, simulator.address(provider)));

    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = ["local", "hosted", "other", "local"].map(|task| {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    served(gateway, task, "load");
                }
            })
        });
        // Ends the load even if an expectation below fails.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let over = Over(&is_over);
        // Each worker takes a change by itself, so a change is there when several requests in a row show it.
        let all = |what: &str, task: &str, holds: &dyn Fn(&Seen) -> bool| {
            await_true(what, || (0..8).all(|_| holds(&seen(&simulator, gateway, task))));
            simulator.forget();
        };

        // Keys: one in a file by itself, one in an SDS file.
        let has = |key: &'static str| {
            move |seen: &Seen| seen.header("authorization").or(seen.header("api-key")).unwrap().ends_with(key)
        };
        for key in ["sk-first", "sk-second", "sk-third"] {
            volumes.keys.replace(keys(key));
            all("the key in a file", "hosted", &has(key));
            all("the key in an SDS file", "other", &has(key));
        }
        // Clusters: the provider vllm moves to where ollama was.
        let mut moved = addresses;
        moved[0].1 = simulator.address("ollama");
        volumes.apply(POLICY, &moved);
        all("the cluster", "local", &|seen| seen.provider == "ollama");
        // The policy: another model of the same provider.
        let policy = POLICY.replace("near-1", "near-2");
        volumes.apply(&policy, &moved);
        all("the policy", "local", &|seen| seen.json()["model"] == "near-2");
        // All at once, and back.
        volumes.apply(POLICY, &addresses);
        all("all of it", "local", &|seen| seen.provider == "vllm" && seen.json()["model"] == "near-1");
        drop(over);
        for thread in load {
            thread.join().expect("no request failed");
        }
    });
}

/// Clusters first, then what uses them: one swap would replace all files at once, and Envoy would load each by itself.
/// The old clusters stay (`--keep`), because requests of the old policy need them.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_provider_with_a_key_is_added_in_steps_and_no_request_fails() {
    let simulator = Simulator::start();
    let mut volumes = Volumes::new(&simulator);
    let (gateway, admin) = (volumes.gateway.address, volumes.admin.address);
    let bootstrap = volumes.directory.join("config/bootstrap.yaml");
    let _envoy = PlainEnvoy::start(&bootstrap, admin, &[], &volumes.directory);
    let provider = "  ollama: {dialect: openai, data: regulated, credential: {header: x-key, file: KEYS/openai}}";
    let model = "  new: {provider: ollama, model: new-1, context: 10000, max_output_tokens: 10}";
    let policy = POLICY
        .replace("models:\n", &format!("{provider}\nmodels:\n{model}\n"))
        .replace("{primary: near, fallback: [far]}", "{primary: new, fallback: [near]}")
        .replace("[near, far, farther]", "[near, far, farther, new]");
    let providers = ["vllm", "openai", "azure", "ollama"].map(|name| (name, simulator.address(name)));
    let old = volumes.config.files();
    let new = volumes.rendered_keeping(&policy, &providers);
    // The plan of the old policy is one that the new policy does not have.
    assert!(new["cds.yaml"].contains("name: plan.vllm+openai\n"), "{}", new["cds.yaml"]);

    // What the cluster refers to must be there when Envoy reads the cluster.
    let mut secrets = new.clone();
    secrets.extend(old.clone());
    assert_eq!(secrets.len(), old.len() + 1);
    volumes.config.replace(secrets);
    let mut clusters = new.clone();
    clusters.extend(["rds.yaml", "ecds.yaml"].map(|name| (name.to_owned(), old[name].clone())));
    volumes.config.replace(clusters);
    await_true("the clusters", || {
        served(gateway, "local", "meanwhile");
        Call::new("GET", "/clusters").send(admin).text().contains("plan.ollama+vllm::")
    });
    volumes.config.replace(new);
    await_true("the policy", || (0..8).all(|_| seen(&simulator, gateway, "local").provider == "ollama"));
    assert_eq!(seen(&simulator, gateway, "local").header("x-key"), Some("sk-first"));
}

/// A ConfigMap has no directories, so a file in one could not be mounted with the rest.
#[test]
#[ignore = "needs the programs: make test"]
fn every_rendered_file_can_be_a_key_of_a_config_map() {
    let simulator = Simulator::start();
    let volumes = Volumes::new(&simulator);
    let names: Vec<String> = volumes.config.files().into_keys().collect();
    assert_eq!(names, ["bootstrap.yaml", "cds.yaml", "ecds.yaml", "rds.yaml", "sds-openai.yaml", "validate.yaml"]);
    fs::remove_dir_all(&volumes.directory).unwrap();
}
