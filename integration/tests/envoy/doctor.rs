//! `pointsman doctor` reads a real Envoy: nothing is missing in what `pointsman up` runs, and each thing that was taken
//! out of the rendered files is named.

use crate::standard::gateway;
use pointsman_integration::environment;
use pointsman_integration::gateway::{OPENAI_SECRET, cluster, key_hash};
use pointsman_integration::plain_envoy::PlainEnvoy;
use pointsman_integration::port::Port;
use pointsman_integration::process;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

const POLICY: &str = r#"
default_task: chat
providers:
  vllm: {dialect: openai, local: true, data: regulated}
  openai: {dialect: openai, data: internal, credential: {header: authorization, prefix: "Bearer ", env: OPENAI_API_KEY}}
models:
  near: {provider: vllm, model: near-1, context: 10000, max_output_tokens: 10}
  far: {provider: openai, model: far-1, context: 10000, max_output_tokens: 10}
tasks:
  chat: {primary: far, fallback: [near]}
tiers:
  pro: {models: [far, near]}
tenants:
  acme: {tier: pro, keys: [HASH]}
"#;

/// Runs `doctor`. Returns its exit status and the first line of each finding, and the last line.
pub fn doctor(arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let mut command = Command::new(environment::program("pointsman"));
    let output = command.arg("doctor").args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with(' ')).map(str::to_owned);
    (output.status.code(), lines.collect())
}

/// The rendered files as trees, to take something out.
struct Files {
    directory: PathBuf,
    admin: Port,
    trees: Vec<(&'static str, Value)>,
}

impl Files {
    fn render() -> Self {
        let (directory, admin) = (process::directory(), Port::reserve());
        let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
        write("policy.yaml", &POLICY.replace("HASH", &format!("\"{}\"", key_hash("sk-acme"))));
        fs::create_dir(directory.join("providers")).unwrap();
        for provider in ["vllm", "openai"] {
            let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
            write(&format!("providers/{provider}.yaml"), &cluster(provider, nowhere, ""));
        }
        let (major, minor) = environment::envoy_version();
        let mut render = Command::new(environment::program("pointsman"));
        render.current_dir(&directory).args(["render", "--policy", "policy.yaml", "--providers", "providers"]);
        render.args(["--envoy-version", &format!("{major}.{minor}"), "--listen", "127.0.0.1:0", "--out", "out"]);
        render.args(["--admin", &admin.address.to_string(), "--access-log", "/dev/null", "--wasm"]);
        let output = render.arg(environment::wasm()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let trees = ["bootstrap", "cds", "rds", "ecds"];
        let tree = |name: &'static str| {
            let text = fs::read_to_string(directory.join(format!("out/{name}.yaml"))).unwrap();
            (name, serde_saphyr::from_str(&text).unwrap())
        };
        let trees = trees.map(tree).into();
        Self { directory, admin, trees }
    }

    fn tree(&mut self, name: &str) -> &mut Value {
        &mut self.trees.iter_mut().find(|(known, _)| *known == name).unwrap().1
    }

    /// Takes out the member at a JSON pointer. `NAME` in it is the item of a list with this name.
    fn take(&mut self, file: &str, pointer: &str) {
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        match self.at(file, parent) {
            Value::Object(members) => drop(members.remove(member).unwrap_or_else(|| panic!("no {pointer}"))),
            Value::Array(items) => items.retain(|item| item["name"] != member && item["tag_name"] != member),
            other => panic!("{pointer}: {other}"),
        }
    }

    fn at(&mut self, file: &str, pointer: &str) -> &mut Value {
        let mut value = self.tree(file);
        for part in pointer.split('/').skip(1) {
            value = match value {
                Value::Array(items) => match part.parse::<usize>() {
                    Ok(at) => &mut items[at],
                    Err(_) => items.iter_mut().find(|item| item["name"] == part).unwrap(),
                },
                other => other.get_mut(part).unwrap_or_else(|| panic!("no {pointer}")),
            };
        }
        value
    }

    /// Starts an Envoy on them, and has `doctor` read it.
    fn found(self) -> Vec<String> {
        for (name, tree) in &self.trees {
            // JSON is YAML.
            fs::write(self.directory.join(format!("out/{name}.yaml")), tree.to_string()).unwrap();
        }
        let key = [("OPENAI_API_KEY", OsStr::new(OPENAI_SECRET))];
        let bootstrap = self.directory.join("out/bootstrap.yaml");
        let envoy = PlainEnvoy::start(&bootstrap, self.admin.address, &key, &self.directory);
        let (status, mut lines) = doctor(&["--admin", &envoy.admin.to_string()]);
        let last = lines.pop().unwrap();
        let (major, minor) = environment::envoy_version();
        assert!(last.starts_with(&format!("Envoy {major}.{minor}, ")), "{last}");
        assert_eq!(status, Some(i32::from(!lines.is_empty())), "{last}");
        lines
    }
}

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const GATEWAY: &str = "/resources/0/typed_config/config";

/// Returns the pointer to a member of a cluster's HTTP options.
fn options(cluster: &str, rest: &str) -> String {
    const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    format!("/resources/{cluster}/typed_extension_protocol_options/{OPTIONS}{rest}")
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn nothing_is_missing_in_what_up_runs() {
    let gateway = gateway();
    let (status, lines) = doctor(&["--admin", &format!("http://{}/", gateway.admin)]);
    assert_eq!(status, Some(0), "{lines:#?}");
    let [line] = &lines[..] else { panic!("{lines:#?}") };
    assert!(line.ends_with(": nothing is missing") && line.contains(" 1 listener with the gateway stage"), "{line}");
    // The address of callers is no admin interface, and nothing listens at port 1.
    let (status, lines) = doctor(&["--admin", &gateway.address.to_string()]);
    assert!(status == Some(2) && lines[0].contains("is this Envoy's admin interface?"), "{lines:?}");
    assert_eq!(doctor(&["--admin", "127.0.0.1:1"]).0, Some(2));
    assert_eq!(doctor(&["--dump", &Path::new("/nonexistent").display().to_string()]).0, Some(2));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_was_taken_from_the_listener_and_the_bootstrap() {
    let mut files = Files::render();
    files.take("ecds", &format!("{GATEWAY}/allow_on_headers_stop_iteration"));
    files.take("ecds", &format!("{GATEWAY}/failure_policy"));
    files.take("bootstrap", &format!("{MANAGER}/access_log"));
    files.take("bootstrap", &format!("{MANAGER}/local_reply_config"));
    files.take("bootstrap", &format!("{MANAGER}/http_filters/1/typed_config/upstream_log"));
    files.take("bootstrap", &format!("{MANAGER}/http_filters/1/typed_config/suppress_envoy_headers"));
    files.take("bootstrap", "/stats_config/stats_tags/tenant_id");
    let is_limited = files.tree("bootstrap")["admin"].get("allow_paths").is_some();
    if is_limited {
        files.take("bootstrap", "/admin/allow_paths");
    }
    let lua = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";
    let filter = json!({"name": "edits", "typed_config": {"@type": lua,
        "default_source_code": {"inline_string": "function envoy_on_request(handle) end"}}});
    files.at("bootstrap", &format!("{MANAGER}/http_filters")).as_array_mut().unwrap().insert(1, filter);
    let mut expected = vec![
        "listener gateway: pointsman.gateway: no `allow_on_headers_stop_iteration`",
        "listener gateway: pointsman.gateway: `failure_policy` is not FAIL_RELOAD",
        "listener gateway: the filter lua comes after pointsman.gateway",
        "listener gateway: no access log has the audit record",
        "listener gateway: the router's `upstream_log` has no `attempt_provider`",
        "listener gateway: the router has no `suppress_envoy_headers`",
        "listener gateway: no `local_reply_config` of Pointsman's",
        "bootstrap: stats_config.stats_tags: no tag \"tenant_id\"",
    ];
    expected.extend(is_limited.then_some("bootstrap: admin: `/logging` is offered"));
    assert_eq!(files.found(), expected);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_was_taken_from_the_clusters_and_the_routes() {
    let mut files = Files::render();
    *files.at("cds", &options("plan.vllm", "/http_filters/0/typed_config/config/vm_config/vm_id")) = "other".into();
    files.take("cds", &options("plan.openai", "/http_filters/0/typed_config/config/allow_on_headers_stop_iteration"));
    files.take("cds", &options("plan.openai", "/http_filters/pointsman.credential"));
    files.take("cds", "/resources/plan.openai+vllm");
    files.take("cds", "/resources/vllm/load_assignment/endpoints/0/lb_endpoints/0/metadata");
    files.take("cds", "/resources/openai/load_assignment/endpoints/0/lb_endpoints/0/endpoint/hostname");
    let routes = files.at("rds", "/resources/0/virtual_hosts/0/routes").as_array_mut().unwrap();
    for route in routes {
        let action = route["route"].as_object_mut().unwrap();
        for member in ["auto_host_rewrite", "max_stream_duration", "retry_policy"] {
            action.remove(member).unwrap();
        }
        route.as_object_mut().unwrap().remove("request_body_buffer_limit");
    }
    if environment::envoy_version() < (1, 37) {
        files.take("bootstrap", "/static_resources/listeners/0/per_connection_buffer_limit_bytes");
    }
    let found = files.found();
    let limit = match environment::envoy_version() < (1, 37) {
        true => "listener gateway: `per_connection_buffer_limit_bytes` is too low",
        false => "listener gateway: routes: `request_body_buffer_limit` is too low",
    };
    assert_eq!(
        found,
        [
            "listener gateway: routes: no `auto_host_rewrite`",
            "listener gateway: routes: no `grpc_timeout_header_max`",
            "listener gateway: routes: `num_retries` is below 1, or `retriable_headers` lacks x-pointsman-next",
            limit,
            "cluster plan.openai: no credential injector",
            "cluster plan.openai: pointsman.model: no `allow_on_headers_stop_iteration`",
            "cluster plan.openai+vllm: there is no such cluster",
            "cluster plan.vllm: pointsman.model: `vm_config` differs from the gateway stage's",
            "cluster openai: an endpoint has no `hostname`",
            "cluster vllm: an endpoint does not name its provider",
        ]
    );
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_policy_that_envoy_rejected_at_its_start() {
    let mut files = Files::render();
    *files.at("ecds", &format!("{GATEWAY}/configuration/value")) = r#"{"role": "gateway"}"#.into();
    let found = files.found();
    let what = "listener gateway: the gateway stage has no valid policy: no member \"policy\"";
    assert_eq!(found, [what]);
}
