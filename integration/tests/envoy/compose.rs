//! docker-compose.yml, without containers: Compose reads it, and each service's command, started as the file says,
//! makes a gateway that answers the demo's requests.

use crate::standard::ask;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::environment;
use pointsman_integration::port::Port;
use pointsman_integration::process::{self, Process};
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

const CONTAINERFILE: &str = include_str!("../../../deploy/Containerfile");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Has Compose read the file and fill in what it leaves out.
fn config() -> Value {
    let mut compose = Command::new("docker-compose");
    // The usual project name would be that of the folder, which Compose may not like.
    compose.current_dir(root()).args(["--project-name", "pointsman", "--profile", "ollama", "config"]);
    let output = compose.output().unwrap_or_else(|error| panic!("docker-compose: {error}; run `make test`"));
    assert!(output.status.success(), "{output:?}");
    serde_saphyr::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

/// Returns the program of a stage of deploy/Containerfile; without a name, of the last stage.
fn entrypoint(stage: Option<&str>) -> String {
    let stages: Vec<&str> = CONTAINERFILE.split("\nFROM ").skip(1).collect();
    let is_it = |text: &&&str| stage.is_none_or(|name| text.lines().next().unwrap().ends_with(&format!(" AS {name}")));
    let text = stages.iter().rfind(is_it).unwrap_or_else(|| panic!("no stage {stage:?}"));
    let entrypoint = text.lines().find_map(|line| line.strip_prefix("ENTRYPOINT ")).unwrap();
    let words: Vec<String> = serde_json::from_str(entrypoint).unwrap();
    let [program] = &words[..] else { panic!("{words:?}") };
    Path::new(program).file_name().unwrap().to_str().unwrap().to_owned()
}

/// What stands in the files and commands of the containers, and what stands for it here.
struct Places(Vec<(String, String)>);

impl Places {
    fn here(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }
}

/// Starts a service's command.
fn start(service: &Value, places: &Places, directory: Option<&Path>) -> Process {
    assert_eq!(service["build"]["dockerfile"], "deploy/Containerfile", "{service}");
    let program = entrypoint(service["build"]["target"].as_str());
    let arguments: Vec<String> =
        service["command"].as_array().unwrap().iter().map(|word| places.here(word.as_str().unwrap())).collect();
    let mut variables: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in service["environment"].as_object().into_iter().flatten() {
        variables.insert(name, value.as_str().unwrap().to_owned());
    }
    // What the image has in their places.
    variables.insert("ENVOY", environment::envoy().display().to_string());
    variables.insert("POINTSMAN_WASM", environment::wasm().display().to_string());
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, OsStr::new(value))).collect();
    Process::start(&environment::program(&program), arguments, &variables, directory)
}

/// The gateway of docker-compose.yml and its simulator.
struct Composed {
    gateway: Process,
    _simulator: Process,
    address: SocketAddr,
    /// Where the simulator takes rules.
    control: SocketAddr,
    _ports: Vec<Port>,
}

impl Composed {
    fn start(config: &Value) -> Self {
        let directory = process::directory();
        let services = &config["services"];
        let ports: Vec<_> = (0..4).map(|_| Port::reserve()).collect();
        let mut places = Vec::new();
        for (port, number) in ports.iter().zip([8080, 9901, 8000, 8001]) {
            places.push((format!("0.0.0.0:{number}"), port.address.to_string()));
        }
        // The names that Compose's DNS would resolve.
        let aliases = &services["simulator"]["networks"]["default"]["aliases"];
        for (alias, number, port) in [("vllm.pointsman", 8000, &ports[2]), ("hosted.pointsman", 8001, &ports[3])] {
            assert!(aliases.as_array().unwrap().contains(&alias.into()), "{aliases}");
            let here = format!("address: 127.0.0.1, port_value: {}", port.number());
            places.push((format!("address: {alias}, port_value: {number}"), here));
        }
        let mut places = Places(places);
        for volume in services["gateway"]["volumes"].as_array().unwrap() {
            let [from, to, mode] = volume.as_str().unwrap().split(':').collect::<Vec<_>>()[..] else {
                panic!("{volume}")
            };
            assert_eq!(mode, "ro");
            let copy = directory.join(to.trim_start_matches('/'));
            copied(Path::new(from), &copy, &places);
            places.0.push((to.to_owned(), copy.display().to_string()));
        }
        let simulator = start(&services["simulator"], &places, None);
        for _ in 0..2 {
            simulator.await_line("its address", |line| line.strip_prefix("listening on ").map(drop));
        }
        let gateway = start(&services["gateway"], &places, Some(&directory));
        gateway.await_line("its address", |line| line.strip_prefix("listening on http://").map(drop));
        let (address, control) = (ports[0].address, ports[2].address);
        Self { gateway, _simulator: simulator, address, control, _ports: ports }
    }

    fn chat(&self, key: &str, body: &Value) -> Response {
        Call::chat_json(body).key(key).send(self.address)
    }
}

impl Drop for Composed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.gateway.show_log();
        }
    }
}

/// Copies the files of a directory, with what differs here.
fn copied(from: &Path, to: &Path, places: &Places) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        fs::write(to.join(path.file_name().unwrap()), places.here(&text)).unwrap();
    }
}

#[test]
#[ignore = "needs a real Envoy, and docker-compose: make test"]
fn each_services_command_makes_a_gateway_that_answers_the_demos_requests() {
    let config = config();
    let mut composed = Composed::start(&config);
    let shown = |answer: &Response, name: &str| answer.header(name).map(str::to_owned);
    let of = |model: &str, key: &str| {
        let answer = composed.chat(key, &ask(model, "hello"));
        (answer.status, shown(&answer, "x-pointsman-model"), shown(&answer, "x-pointsman-fallback"))
    };
    let served = |model: &str, fallback: &str| (200, Some(model.to_owned()), Some(fallback.to_owned()));

    assert_eq!(of("summarize", "sk-demo-pro"), served("hosted-mid", "false"));
    let mut stream = ask("summarize", "hello");
    stream["stream"] = true.into();
    assert!(composed.chat("sk-demo-pro", &stream).text().trim_end().ends_with("data: [DONE]"));
    // The second listener is the hosted provider.
    let rule = json!({"when": {"listener": 1}, "times": 1, "respond": {"status": 503}});
    assert_eq!(Call::new("POST", "/_sim/rules").body(rule.to_string()).send(composed.control).status, 200);
    assert_eq!(of("summarize", "sk-demo-pro"), served("local-small", "true"));
    // Without its profile, Ollama has no host.
    assert_eq!(of("local-spare", "sk-demo-pro").0, 503);

    let mut question = ask("classify", "hello");
    question["temperature"] = 0.into();
    let cache = [(), ()].map(|()| shown(&composed.chat("sk-demo-pro", &question), "x-pointsman-cache").unwrap());
    assert_eq!(cache, ["miss", "hit"]);
    let budget = [(); 3].map(|()| of("summarize", "sk-demo-budget").1.unwrap());
    assert_eq!(budget, ["hosted-mid", "hosted-mid", "local-small"]);
    assert_eq!(of("hosted-flagship", "sk-demo-free").0, 403);
    let hurried = [(); 7].map(|()| of("chat", "sk-demo-free").0);
    assert_eq!(hurried, [200, 200, 200, 200, 200, 200, 429]);
    let models = Call::new("GET", "/v1/models").key("sk-demo-free").send(composed.address);
    assert!(models.json()["data"].as_array().is_some_and(|models| !models.is_empty()));

    composed.gateway.signal("TERM");
    await_true("it to end", || !composed.gateway.is_running());
    assert_eq!(composed.gateway.end(), Some(0));
}

/// What a container needs that no command shows: files that are there, room to write, time to drain.
#[test]
#[ignore = "needs docker-compose: make test"]
fn the_file_names_what_is_there() {
    let config = config();
    let services = config["services"].as_object().unwrap();
    assert_eq!(services.keys().collect::<Vec<_>>(), ["gateway", "ollama", "simulator"]);
    let gateway = &services["gateway"];
    for port in gateway["ports"].as_array().unwrap() {
        assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{port} is open to the network");
    }
    assert_eq!((&gateway["read_only"], &gateway["tmpfs"]), (&true.into(), &json!(["/tmp"])));
    assert_eq!(gateway["stop_grace_period"], "90s");
    for stage in CONTAINERFILE.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        let source = stage.trim_start_matches("--from=build ").split(' ').next().unwrap();
        let built = ["/pointsman/target/native/", "/pointsman/target/wasm32-wasip1/release/pointsman.wasm"];
        assert!(source == "." || built.iter().any(|start| source.starts_with(start)), "{stage}");
    }
    for image in CONTAINERFILE.lines().filter_map(|line| line.strip_prefix("ARG ")) {
        let (_, tag) = image.rsplit_once(':').unwrap();
        assert!(tag.chars().any(|c| c.is_ascii_digit()) && tag.matches('.').count() >= 2, "{image} is not pinned");
    }
    let path = PathBuf::from(config["services"]["gateway"]["build"]["context"].as_str().unwrap());
    assert!(path.join("deploy/Containerfile").exists());
}
