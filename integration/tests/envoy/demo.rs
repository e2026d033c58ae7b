//! What `make demo` prints is true: every command works as stated, the audit line is where it should be, and it ends
//! cleanly.

use pointsman_integration::deadline::{await_some, await_true};
use pointsman_integration::environment;
use pointsman_integration::port::Port;
use pointsman_integration::process::{self, Process};
use serde_json::Value;
use std::ffi::OsStr;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Starts the demo on these ports: callers, admin, three providers.
fn start(ports: &[u16], log: &Path, directory: Option<&Path>) -> Process {
    let [port, admin, providers @ ..] = ports else { panic!("five ports") };
    let providers = providers.iter().map(u16::to_string).collect::<Vec<_>>().join(" ");
    let (port, admin) = (port.to_string(), admin.to_string());
    let variables = [
        ("DEMO_PORT", OsStr::new(&port)),
        ("DEMO_ADMIN_PORT", OsStr::new(&admin)),
        ("DEMO_PROVIDER_PORTS", OsStr::new(&providers)),
        ("DEMO_LOG", log.as_os_str()),
    ];
    let (programs, wasm) = (environment::path("POINTSMAN_BIN"), environment::wasm());
    // The test runner may ignore SIGINT, as a background job of a shell does. A shell cannot undo that, so `env` does.
    let demo = script("demo.sh");
    let arguments = [OsStr::new("--default-signal=INT"), demo.as_os_str(), programs.as_os_str(), wasm.as_os_str()];
    Process::start(Path::new("env"), arguments, &variables, directory)
}

/// Runs a command line as a person would paste it.
fn paste(line: &str) -> String {
    let output = Command::new("bash").args(["-c", line]).env("no_proxy", "127.0.0.1").output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_demo_does_what_it_prints() {
    let reserved: Vec<_> = (0..5).map(|_| Port::reserve()).collect();
    let ports: Vec<u16> = reserved.iter().map(Port::number).collect();
    let directory = process::directory();
    let log = directory.join("access.log");
    let mut demo = start(&ports, &log, Some(&directory));
    demo.await_line("the end of its greeting", |line| line.contains("Ctrl-C stops everything").then_some(()));
    let lines = demo.lines();
    let commands: Vec<&str> = lines.iter().map(|line| line.trim()).filter(|line| line.starts_with("curl ")).collect();
    let [whole, streamed, refused, models, usage] = commands[..] else { panic!("{commands:?}") };

    let answer = paste(whole);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-pointsman-model: local-small"), "{answer}");
    let trace_id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().trim().to_owned();
    let answer = paste(streamed);
    assert!(answer.starts_with("data: ") && answer.trim_end().ends_with("data: [DONE]"), "{answer}");
    let answer = paste(refused);
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("model_not_allowed"), "{answer}");
    let list: Value = serde_json::from_str(&paste(models)).unwrap();
    assert!(list["data"].as_array().is_some_and(|models| !models.is_empty()));

    let hurried = lines.iter().map(|line| line.trim()).find(|line| line.starts_with("for i in ")).unwrap();
    let answers: Vec<String> = paste(hurried).lines().map(str::to_owned).collect();
    let (passed, last) = answers.split_at(6);
    assert!(passed.iter().all(|line| line.starts_with("HTTP/1.1 200")), "{answers:?}");
    let [status, wait] = last else { panic!("{answers:?}") };
    let seconds = wait.strip_prefix("retry-after: ").and_then(|seconds| seconds.trim().parse::<u32>().ok());
    assert!(status.starts_with("HTTP/1.1 429") && seconds.is_some_and(|s| (1..=10).contains(&s)), "{answers:?}");
    assert!(paste(usage).contains("\"window\":\"requests_per_minute\""));

    let python: Vec<&str> =
        lines.iter().skip_while(|line| !line.contains("from openai")).take(4).map(|l| l.trim()).collect();
    let mut client = Command::new(environment::path("POINTSMAN_PYTHON"));
    let output = client.args(["-c", &python.join("\n")]).env("NO_PROXY", "127.0.0.1").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("Pointsman simulator, not a model"), "{output:?}");

    let tail = lines.iter().find_map(|line| line.trim().strip_prefix("tail -f ")).unwrap();
    let audit: Value = await_some("the audit line", || {
        let text = std::fs::read_to_string(tail).unwrap_or_default();
        let line =
            text.lines().find(|line| line.contains(&trace_id) && line.contains("tenant_id")).map(str::to_owned)?;
        serde_json::from_str(&line).ok()
    });
    assert_eq!((&audit["tenant_id"], &audit["model"]), (&"demo-pro".into(), &"local-small".into()));

    // A second demo says why it cannot start, and does not disturb the first.
    let second = start(&ports, &directory.join("second.log"), None);
    let why = second.await_line("why it does not start", |line| line.contains("is in use").then(|| line.to_owned()));
    assert!(why.contains(&ports[0].to_string()) && why.contains("DEMO_PORT="), "{why}");
    drop(second);
    assert!(paste(whole).starts_with("HTTP/1.1 200"));

    demo.signal("INT");
    await_true("the demo to end", || !demo.is_running());
    assert_eq!(demo.end(), Some(130), "{:?}", demo.lines());
    for port in ports {
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "something still listens at {port}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn envoy_accepts_every_policy_of_the_project() {
    let (programs, wasm) = (environment::path("POINTSMAN_BIN"), environment::wasm());
    let output = Command::new(script("validate.sh")).args([programs, wasm]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("accepts the configuration of"), "{output:?}");
}
