//! What the Helm chart gives Kubernetes serves: the container's arguments, its environment and its volumes, taken from
//! the rendered Deployment, ConfigMaps and Secret, run `pointsman up`.

use crate::standard::ask;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::environment;
use pointsman_integration::gateway::{cluster, key_hash};
use pointsman_integration::mounted::Mounted;
use pointsman_integration::port::Port;
use pointsman_integration::process::{self, Process};
use pointsman_integration::simulator::Simulator;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the chart mounts what an operator writes.
const MOUNTS: &str = "/etc/pointsman";

/// One provider whose key is in the environment, and one whose key is a file of the Secret.
const POLICY: &str = r#"
providers:
  openai: {dialect: openai, data: internal, credential: {header: authorization, prefix: "Bearer ", env: OPENAI_API_KEY}}
  azure: {dialect: openai, data: internal, credential: {header: api-key, file: /etc/pointsman/keys/azure}}
models:
  far: {provider: openai, model: far-1, context: 10000, max_output_tokens: 10}
  farther: {provider: azure, model: farther-1, context: 10000, max_output_tokens: 10}
tasks:
  one: {primary: far}
  two: {primary: farther, fallback: [far]}
tiers:
  pro: {models: [far, farther]}
tenants:
  acme: {tier: pro, keys: [HASH]}
"#;

/// Has Helm render the chart, and returns the resources.
fn rendered(values: &Value) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/chart.py");
    let mut command = Command::new(environment::path("POINTSMAN_MANIFESTS"));
    let mut helm = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    write!(helm.stdin.take().unwrap(), "{values}").unwrap();
    let output = helm.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the only resource of a kind with this name.
fn find<'a>(resources: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let is_it = |resource: &&Value| resource["kind"] == kind && resource["metadata"]["name"] == name;
    resources.iter().find(is_it).unwrap_or_else(|| panic!("no {kind} {name}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// Returns the files of a ConfigMap or a Secret.
fn data(resources: &[Value], kind: &str, name: &str) -> BTreeMap<String, String> {
    let members = find(resources, kind, name)["data"].as_object().unwrap();
    let value = |value: &Value| match kind {
        "Secret" => String::from_utf8(STANDARD.decode(text(value)).unwrap()).unwrap(),
        _ => text(value).to_owned(),
    };
    members.iter().map(|(name, content)| (name.clone(), value(content))).collect()
}

/// The pod of the Deployment, without Kubernetes: its volumes below `directory`, and its one container.
struct Pod {
    directory: PathBuf,
    address: SocketAddr,
    process: Process,
    volumes: BTreeMap<String, Mounted>,
    metrics: SocketAddr,
    _ports: [Port; 2],
}

impl Pod {
    fn start(resources: &[Value]) -> Self {
        let directory = process::directory();
        let pod = &find(resources, "Deployment", "pointsman")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let mut volumes = BTreeMap::new();
        let mut variables = Vec::new();
        for mount in container["volumeMounts"].as_array().unwrap() {
            let volume = pod["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == mount["name"]);
            let (volume, at) = (volume.unwrap(), text(&mount["mountPath"]));
            assert!(mount.get("subPath").is_none(), "a subPath is never updated");
            let path = directory.join(at.trim_start_matches('/'));
            let files = match (volume.get("configMap"), volume.get("secret")) {
                (Some(map), _) => data(resources, "ConfigMap", text(&map["name"])),
                (_, Some(secret)) => data(resources, "Secret", text(&secret["secretName"])),
                _ => {
                    std::fs::create_dir_all(&path).unwrap();
                    assert_eq!((at, volume.get("emptyDir").is_some()), ("/tmp", true));
                    variables.push(("TMPDIR".to_owned(), path.display().to_string()));
                    continue;
                }
            };
            let files = placed(&directory, files);
            volumes.insert(text(&mount["name"]).to_owned(), Mounted::at(path, files));
        }
        for source in container["envFrom"].as_array().into_iter().flatten() {
            variables.extend(data(resources, "Secret", text(&source["secretRef"]["name"])));
        }
        let (admin, metrics) = (Port::reserve(), Port::reserve());
        let argument = |argument: &Value| match text(argument) {
            "--listen=0.0.0.0:8080" => "--listen=127.0.0.1:0".to_owned(),
            "--admin=127.0.0.1:9901" => format!("--admin={}", admin.address),
            "--metrics=0.0.0.0:9902" => format!("--metrics={}", metrics.address),
            other => placed_text(&directory, other),
        };
        let arguments: Vec<String> = container["args"].as_array().unwrap().iter().map(argument).collect();
        // What deploy/Containerfile puts in their places.
        variables.push(("ENVOY".to_owned(), environment::envoy().display().to_string()));
        variables.push(("POINTSMAN_WASM".to_owned(), environment::wasm().display().to_string()));
        let variables: Vec<_> = variables.iter().map(|(name, value)| (&**name, OsStr::new(value))).collect();
        let process = Process::start(&environment::program("pointsman"), arguments, &variables, Some(&directory));
        let address = process.await_line("its address", |line| {
            line.strip_prefix("listening on http://")?.trim_end_matches('/').parse().ok()
        });
        Self { directory, address, process, volumes, metrics: metrics.address, _ports: [admin, metrics] }
    }

    /// Changes one file of a volume, as the kubelet does.
    fn change(&mut self, volume: &str, file: &str, content: &str) {
        let content = placed_text(&self.directory, content);
        let volume = self.volumes.get_mut(volume).unwrap();
        let mut files = volume.files();
        files.insert(file.to_owned(), content).unwrap();
        volume.replace(files);
    }

    fn chat(&self, task: &str) {
        let answer = Call::chat_json(&ask(task, "hello")).key("sk-acme").send(self.address);
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.process.show_log();
        }
    }
}

/// Files as they must be where the volumes are below `directory`.
fn placed(directory: &Path, files: BTreeMap<String, String>) -> BTreeMap<String, String> {
    files.into_iter().map(|(name, content)| (name, placed_text(directory, &content))).collect()
}

fn placed_text(directory: &Path, text: &str) -> String {
    text.replace(MOUNTS, &format!("{}{MOUNTS}", directory.display()))
}

#[test]
#[ignore = "needs a real Envoy, and Helm: make test"]
fn the_charts_pod_serves_takes_changes_and_drains() {
    let simulator = Simulator::start();
    let policy = POLICY.replace("HASH", &format!("\"{}\"", key_hash("sk-acme")));
    let providers = ["openai", "azure"].map(|name| (name.to_owned(), cluster(name, simulator.address(name), "")));
    let values = json!({
        "policy": policy,
        "providers": BTreeMap::from(providers),
        "keys": {"data": {"OPENAI_API_KEY": "sk-of-openai", "azure": "of-azure"}, "environment": true},
        "drainSeconds": 30,
        "metrics": {"enabled": true, "from": [{"podSelector": {}}]},
    });
    let mut pod = Pod::start(&rendered(&values));
    assert_eq!(Call::new("GET", "/healthz").send(pod.address).status, 200, "what the probes ask");
    let header = |task: &str, name: &str| {
        simulator.forget();
        pod.chat(task);
        simulator.with("hello").pop().unwrap().header(name).map(str::to_owned)
    };
    assert_eq!(header("one", "authorization").as_deref(), Some("Bearer sk-of-openai"));
    assert_eq!(header("two", "api-key").as_deref(), Some("of-azure"));

    // What Prometheus reaches has the metrics and nothing else of the admin interface.
    let at_metrics = |method: &str, path: &str| Call::new(method, path).send(pod.metrics);
    let metrics = at_metrics("GET", "/stats/prometheus");
    assert!(metrics.status == 200 && metrics.text().contains("llm_requests_total{"), "{metrics:?}");
    assert_eq!(at_metrics("GET", "/stats/prometheus?usedonly").status, 200);
    for path in ["/", "/config_dump", "/stats", "/stats/prometheus/../../config_dump", "/ready", "/v1/models"] {
        assert_eq!(at_metrics("GET", path).status, 404, "{path}");
    }
    for path in ["/healthcheck/fail", "/drain_listeners", "/stats/prometheus", "/stats/prometheus/../../quitquitquit"] {
        assert_eq!(at_metrics("POST", path).status, 404, "{path}");
    }

    // A new Secret: no restart, and no word of `up`, which has no part in it.
    pod.change("keys", "azure", "next-of-azure");
    await_true("the new key", || {
        simulator.forget();
        (0..8).for_each(|_| pod.chat("two"));
        simulator.with("hello").iter().all(|seen| seen.header("api-key") == Some("next-of-azure"))
    });
    // A new policy, and one that is refused.
    let applied = |pod: &Pod, word: &str, seen: usize| {
        pod.process.await_line_after(seen, word, |line| line.starts_with(word).then_some(())).0
    };
    let seen = pod.process.lines().len();
    pod.change("policy", "policy.yaml", &policy.replace("far-1", "far-2"));
    let seen = applied(&pod, "policy applied", seen);
    simulator.forget();
    pod.chat("one");
    assert_eq!(simulator.with("hello").pop().unwrap().json()["model"], "far-2");
    pod.change("policy", "policy.yaml", &policy.replace("tier: pro", "tier: gold"));
    applied(&pod, "policy rejected", seen);
    pod.chat("one");

    // What the kubelet sends after the `preStop` hook.
    pod.process.signal("TERM");
    await_true("it to end", || !pod.process.is_running());
    assert_eq!(pod.process.end(), Some(0));
}
