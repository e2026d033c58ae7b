//! The page for operators with their own Envoy: its YAML, merged into a plain configuration with a web site, adds a
//! gateway, and leaves the site as it was.

use crate::standard::ask;
use pointsman_integration::access_log::AccessLog;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::environment;
use pointsman_integration::gateway::{OPENAI_SECRET, cluster, key_hash};
use pointsman_integration::port::Port;
use pointsman_integration::process::{self, Process};
use pointsman_integration::raw::Connection;
use pointsman_integration::simulator::Simulator;
use pointsman_integration::turn;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

const PAGE: &str = include_str!("../../../docs/src/operate/own-envoy.md");

/// Two models: the first has a key and a host name, the second is its fallback.
const POLICY: &str = r#"
default_task: chat
providers:
  openai: {dialect: openai, data: internal, credential: {header: authorization, prefix: "Bearer ", env: OPENAI_API_KEY}}
  vllm: {dialect: openai, local: true, data: regulated}
models:
  far: {provider: openai, model: far-1, level: mid, context: 10000, max_output_tokens: 10, price: {input: 1, output: 1}}
  near: {provider: vllm, model: near-1, level: local, context: 10000, max_output_tokens: 10}
tasks:
  chat: {primary: far, fallback: [near]}
tiers:
  pro: {models: [far, near]}
tenants:
  acme: {tier: pro, keys: [HASH]}
"#;

/// Returns the YAML blocks of the page below each heading.
fn blocks(heading: &str) -> Vec<Value> {
    let section = PAGE.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no heading {heading}")).1;
    let section = section.split("\n## ").next().unwrap();
    let block = |rest: &str| {
        let text = rest.split("\n```").next().unwrap();
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{heading}: {error}\n{text}"))
    };
    section.split("```yaml\n").skip(1).map(block).collect()
}

/// What `pointsman render` has written to a directory.
struct Rendered(PathBuf);

impl Rendered {
    /// Returns the value of the shallowest occurrence of `key` in `file`, which must be the only one at its depth.
    fn value(&self, key: &str, file: &str) -> Value {
        let text = fs::read_to_string(self.0.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let mut level: Vec<Value> = vec![serde_saphyr::from_str(&text).expect("is YAML")];
        while !level.is_empty() {
            let found: Vec<_> = level.iter().filter_map(|value| value.get(key)).collect();
            if let [value] = found[..] {
                return value.clone();
            }
            assert!(found.is_empty(), "{file} has {key} more than once: {found:?}");
            let children = |value: Value| match value {
                Value::Array(items) => items,
                Value::Object(members) => members.into_iter().map(|(_, value)| value).collect(),
                _ => Vec::new(),
            };
            level = level.into_iter().flat_map(children).collect();
        }
        panic!("{file} has no {key}");
    }

    /// Puts what was rendered in place of every `<KEY of FILE>`. In a list, its items take the place.
    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                match text.strip_prefix('<').and_then(|text| text.strip_suffix('>')?.split_once(" of ")) {
                    Some((key, file)) => self.value(key, file),
                    // The page uses this directory.
                    None => text.replace("/etc/pointsman", &self.0.display().to_string()).into(),
                }
            }
            Value::Array(items) => {
                let fill = |item: &Value| match (item, self.fill(item)) {
                    (Value::String(_), Value::Array(items)) => items,
                    (_, filled) => vec![filled],
                };
                items.iter().flat_map(fill).collect()
            }
            Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), self.fill(value))).collect(),
            other => other.clone(),
        }
    }
}

/// Merges a block into a configuration as a reader would. Items of a list that have the same name, or no name, are the
/// same item; new ones come first.
fn merge(into: &mut Value, block: Value) {
    match (into, block) {
        (Value::Object(members), Value::Object(more)) => {
            for (key, value) in more {
                match members.get_mut(&key) {
                    Some(old) => merge(old, value),
                    None => {
                        members.insert(key, value);
                    }
                }
            }
        }
        (Value::Array(items), Value::Array(more)) => {
            let mut new = Vec::new();
            for item in more {
                // Only what leads to a place has no name. A route, say, is a whole item.
                let leads = item.get("name").is_none() && item.get("match").is_none();
                let same =
                    |old: &&mut Value| leads || old.get("name").is_some_and(|name| Some(name) == item.get("name"));
                match items.iter_mut().find(same) {
                    Some(old) => merge(old, item),
                    None => new.push(item),
                }
            }
            items.splice(0..0, new);
        }
        (old, new) => *old = new,
    }
}

/// An operator's Envoy with a site.
struct Own {
    envoy: Process,
    simulator: Simulator,
    site: SocketAddr,
    gateway: SocketAddr,
    admin: SocketAddr,
    log: AccessLog,
    _ports: [Port; 3],
}

impl Own {
    /// Starts one with the blocks below these headings, and of those with alternatives the one of this number.
    fn start(flags: &[&str], headings: &[(&str, usize)]) -> Self {
        Self::start_changed(flags, headings, |_| ())
    }

    fn start_changed(flags: &[&str], headings: &[(&str, usize)], change: fn(&mut Value)) -> Self {
        let directory = process::directory();
        let simulator = Simulator::start();
        let ports = [Port::reserve(), Port::reserve(), Port::reserve()];
        let [site, own, admin] = [&ports[0], &ports[1], &ports[2]].map(|port| port.address);
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        let policy = write("policy.yaml", &POLICY.replace("HASH", &format!("\"{}\"", key_hash("sk-acme"))));
        let openai = cluster("openai", simulator.address("openai"), "");
        write(
            "providers/openai.yaml",
            &openai.replace("endpoint:\n", "endpoint:\n        hostname: api.openai.example\n"),
        );
        write("providers/vllm.yaml", &cluster("vllm", simulator.address("vllm"), ""));
        let (log, rendered) = (directory.join("access.log"), directory.join("rendered"));
        let mut render = Command::new(environment::program("pointsman"));
        let (major, minor) = environment::envoy_version();
        render
            .args(["render", "--envoy-version", &format!("{major}.{minor}"), "--listen", &own.to_string()])
            .args(flags);
        for (flag, path) in [
            ("--policy", policy),
            ("--providers", directory.join("providers")),
            ("--wasm", environment::wasm()),
            ("--access-log", log.clone()),
            ("--out", rendered.clone()),
        ] {
            render.arg(flag).arg(path);
        }
        let output = render.output().unwrap();
        assert!(output.status.success(), "{output:?}");

        let mut configuration = plain(site, admin, simulator.address("azure"));
        let rendered = Rendered(rendered);
        for (heading, alternative) in headings {
            merge(&mut configuration, rendered.fill(&blocks(heading)[*alternative]));
        }
        change(&mut configuration);
        // JSON is YAML.
        let bootstrap = write("bootstrap.yaml", &configuration.to_string());
        let key = [("OPENAI_API_KEY", OsStr::new(OPENAI_SECRET))];
        let _turn = turn::take();
        for file in [&bootstrap, &rendered.0.join("validate.yaml")] {
            let mut validate = Command::new(environment::envoy());
            validate.args(["--mode", "validate", "--disable-hot-restart", "-l", "error", "-c"]).arg(file).envs(key);
            let output = validate.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}\n{configuration:#}");
        }
        let mut arguments = ["--disable-hot-restart", "-l", "warning", "--concurrency", "1"].map(OsStr::new).to_vec();
        arguments.extend(["--file-flush-interval-msec", "20", "-c"].map(OsStr::new));
        arguments.push(bootstrap.as_os_str());
        let envoy = Process::start(&environment::envoy(), arguments, &key, Some(&directory));
        await_true("the Envoy to be ready", || {
            assert!(envoy.is_running(), "{:#?}", envoy.lines());
            std::net::TcpStream::connect(admin).is_ok() && Call::new("GET", "/ready").send(admin).status == 200
        });
        let gateway = if flags.contains(&"--shared-listener") { site } else { own };
        Self { envoy, simulator, site, gateway, admin, log: AccessLog::at(log), _ports: ports }
    }

    fn check_site(&self) {
        let shop = || {
            let call = Call::new("GET", "/shop/models").header("user-agent", "browser").header("accept-encoding", "br");
            call.header("x-pointsman-task", "own").send(self.site)
        };
        let before = self.simulator.mark();
        let answer = shop();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("x-pointsman")), "{answer:?}");
        let seen = self.simulator.requests(before).remove(0);
        assert_eq!((seen.provider, &*seen.path), ("azure", "/shop/models"));
        for (name, value) in [("user-agent", "browser"), ("accept-encoding", "br"), ("x-pointsman-task", "own")] {
            assert_eq!(seen.header(name), Some(value), "{seen:?}");
        }
        assert!(seen.header("x-forwarded-proto").is_some(), "{seen:?}");
        // Its errors are as they were: one of the site, one of its absence, one of Envoy's parser.
        assert_eq!(Call::new("GET", "/shop/nothing").send(self.site).status, 404);
        let down = Call::new("GET", "/down/").send(self.site);
        assert_eq!((down.status, down.header("content-type")), (503, Some("text/plain")), "{down:?}");
        let refused = Connection::to(self.site).send("GET /shop/models HTTP/1.1\r\n\r\n").response();
        assert_eq!((refused.status, refused.text().starts_with('{')), (400, false), "{refused:?}");
    }

    fn check_gateway(&self) {
        let send = |body: &Value| Call::chat_json(body).key("sk-acme").send(self.gateway);
        let answer = send(&ask("chat", "hello"));
        assert_eq!((answer.status, answer.header("x-pointsman-model")), (200, Some("far")), "{answer:?}");
        let seen = self.simulator.with("hello").remove(0);
        assert_eq!(seen.header("host"), Some("api.openai.example"), "{seen:?}");
        assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {OPENAI_SECRET}")), "{seen:?}");
        let strange =
            |name: &&str| name.starts_with("x-envoy") || name.starts_with("x-pointsman") || name.starts_with("x-f");
        assert_eq!(seen.header_names().into_iter().find(strange), None, "{seen:?}");
        // The next model, with its own host and without the key of the first.
        self.simulator.rule("openai", "fail-over", &json!({"status": 503}));
        for stream in [false, true] {
            let mut body = ask("chat", "fail-over");
            body["stream"] = stream.into();
            let answer = send(&body);
            assert_eq!((answer.status, answer.header("x-pointsman-attempts")), (200, Some("2")), "{answer:?}");
            assert_eq!(answer.text().trim_end().ends_with("data: [DONE]"), stream, "{answer:?}");
            let served = self.simulator.with("fail-over").into_iter().rfind(|seen| seen.provider == "vllm").unwrap();
            assert_eq!(served.header("host"), Some(&*self.simulator.address("vllm").to_string()));
            assert_eq!(served.header("authorization"), None);
        }
        Call::chat_json(&ask("chat", "x")).key("sk-nobody").send(self.gateway).assert_refusal(401, "invalid_api_key");
        Call::new("GET", "/v1/nothing").key("sk-acme").send(self.gateway).assert_refusal(404, "unknown_url");
        // Who sends the gateway's own headers gains nothing by it.
        let chosen = Call::chat_json(&ask("chat", "x")).key("sk-nobody").header("x-pointsman-cluster", "web");
        chosen.send(self.gateway).assert_refusal(401, "invalid_api_key");
        // What Envoy itself refuses is in the gateway's format.
        let refused = Connection::to(self.gateway).send("GET /v1/models HTTP/1.1\r\n\r\n").response();
        assert_eq!((refused.status, refused.text().contains("\"code\":\"bad_request\"")), (400, true), "{refused:?}");
    }

    /// The log has the gateway's requests and their attempts, and nothing of the site. The metrics have labels.
    fn check_records(&self) {
        await_true("the records", || self.log.lines().len() >= 12);
        let lines = self.log.lines();
        let (attempts, requests): (Vec<&Value>, Vec<&Value>) =
            lines.iter().partition(|line| line.get("attempt").is_some());
        let providers: Vec<_> = attempts.iter().map(|line| line["attempt_provider"].as_str().unwrap()).collect();
        assert_eq!(providers, ["openai", "openai", "vllm", "openai", "vllm"], "{lines:#?}");
        let statuses: Vec<_> = requests.iter().map(|line| line["status"].as_u64().unwrap()).collect();
        assert_eq!(statuses, [200, 200, 200, 401, 404, 401, 400], "{lines:#?}");
        let metrics = Call::new("GET", "/stats/prometheus").send(self.admin);
        // Earlier versions of Envoy have more labels.
        let labels = ["tenant_tier=\"pro\"", "task=\"chat\"", "provider=\"vllm\"", "model=\"near\"", "status=\"200\""];
        let counted = |line: &str| {
            let has_labels = line.starts_with("llm_requests_total{") && labels.iter().all(|label| line.contains(label));
            has_labels && line.ends_with("} 2")
        };
        assert!(metrics.text().lines().any(counted), "{}", metrics.text());
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.envoy.show_log();
        }
    }
}

/// Returns an Envoy configuration with a site, as an operator may have it.
fn plain(address: SocketAddr, admin: SocketAddr, web: SocketAddr) -> Value {
    let socket = |at: SocketAddr| json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}});
    let cluster = |name: &str, at: SocketAddr| {
        json!({"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(at)}}]}]}})
    };
    let api = "type.googleapis.com/envoy.extensions.filters";
    json!({
        "admin": {"address": socket(admin)},
        "static_resources": {
            "listeners": [{
                "name": "web",
                "address": socket(address),
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": {
                        "@type": format!("{api}.network.http_connection_manager.v3.HttpConnectionManager"),
                        "stat_prefix": "web",
                        "route_config": {"virtual_hosts": [{"name": "site", "domains": ["*"], "routes": [
                            {"match": {"prefix": "/down/"}, "route": {"cluster": "down"}},
                            {"match": {"prefix": "/"}, "route": {"cluster": "web"}},
                        ]}]},
                        "http_filters": [{
                            "name": "envoy.filters.http.router",
                            "typed_config": {"@type": format!("{api}.http.router.v3.Router")},
                        }],
                    },
                }]}],
            }],
            "clusters": [cluster("web", web), cluster("down", SocketAddr::from(([127, 0, 0, 1], 1)))],
        },
    })
}

fn check(flags: &[&str], headings: &[(&str, usize)]) {
    let own = Own::start(flags, headings);
    own.check_site();
    own.check_gateway();
    own.check_site();
    own.check_records();
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_listener_of_its_own_beside_a_site() {
    check(&[], &[("Node and metrics", 0), ("Clusters", 0), ("A listener of its own", 0)]);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_listener_shared_with_a_site() {
    check(&["--shared-listener"], &[("Node and metrics", 0), ("Clusters", 0), ("A shared listener", 0)]);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn static_clusters_in_a_shared_listener() {
    check(&["--shared-listener"], &[("Node and metrics", 0), ("Clusters", 1), ("A shared listener", 0)]);
}

/// An operator who merges the routes and forgets the filter has no gateway, and no caller reaches a provider.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn routes_without_the_filter_reach_no_provider() {
    let blocks = [("Node and metrics", 0), ("Clusters", 1), ("A shared listener", 0)];
    let own = Own::start_changed(&["--shared-listener"], &blocks, |configuration| {
        let pointer = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
        let filters = configuration.pointer_mut(pointer).unwrap().as_array_mut().unwrap();
        assert_eq!(filters.remove(0)["name"], "pointsman.gateway");
    });
    let call = || Call::chat_json(&ask("chat", "hello")).key("sk-acme");
    for name in ["openai", "direct.openai", "plan.openai", "plan.openai+vllm", "web"] {
        let answer = call().header("x-pointsman-cluster", name).send(own.gateway);
        assert_eq!((answer.status, answer.text().contains("gateway_error")), (500, true), "{name}: {answer:?}");
    }
    assert_eq!(call().send(own.gateway).status, 500);
    assert!(own.simulator.with("hello").is_empty());
    own.check_site();
}

/// The tests above merge every block of the page.
#[test]
fn every_block_of_the_page_is_tested() {
    let headings = ["Node and metrics", "Clusters", "A listener of its own", "A shared listener"];
    let tested: usize = headings.iter().map(|heading| blocks(heading).len()).sum();
    assert_eq!((tested, PAGE.matches("```").count()), (5, 10), "{}", Path::new("own-envoy.md").display());
}
