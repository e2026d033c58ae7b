//! OpenAI's own clients for Python and JavaScript work unchanged: chat, stream, tools, schemas, errors, models, cancel.

use crate::standard::gateway;
use pointsman_integration::environment;
use pointsman_integration::gateway::{Gateway, Shared};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The cases that each client must have passed.
const CASES: [&str; 22] = [
    "cancel_in_mid_stream",
    "chat",
    "chat_by_task_and_auto",
    "error_400",
    "error_400_of_the_provider",
    "error_401",
    "error_402_is_the_gateways",
    "error_403",
    "error_404",
    "error_429",
    "error_503",
    "error_in_mid_stream",
    "json_schema",
    "metadata_of_the_callers_own",
    "models_list",
    "models_retrieve",
    "numbers_of_other_servers",
    "stream",
    "stream_with_usage",
    "tools_round_trip",
    "tools_streamed",
    "tools_streamed_with_usage",
];

/// Runs a client's program. Returns whether every case passed, and the program's output.
pub fn say(gateway: &Gateway, program: &Path, script: &str) -> (bool, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = Command::new(program);
    command.arg(&script).env("POINTSMAN_URL", format!("http://{}", gateway.address));
    // A gateway on this machine is never reached through a proxy.
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    let output = command.output().unwrap_or_else(|error| panic!("{}: {error}: run `make test`", program.display()));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    print!("{said}");
    (output.status.success(), said)
}

/// Runs a client's program and checks that every case passed.
fn run(gateway: &Shared, program: &Path, script: &str) {
    let (passed, said) = say(gateway, program, script);
    assert!(passed, "{said}");
    let passed: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
    for case in CASES {
        assert!(passed.contains(&case), "{case} is not among {passed:?}");
    }
}

/// Returns the numbers that the provider got in the requests of `user`, each as it was written.
fn sent_numbers(gateway: &Shared, user: &str) -> Vec<[Option<String>; 4]> {
    let number = |body: &serde_json::Value, name: &str| body.get(name).map(ToString::to_string);
    let of =
        |body: serde_json::Value| ["max_tokens", "max_completion_tokens", "n", "seed"].map(|name| number(&body, name));
    gateway.simulator.with(user).iter().map(|seen| of(seen.json())).collect()
}

fn text(number: Option<&str>) -> Option<String> {
    number.map(str::to_owned)
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_python_client_works() {
    let gateway = gateway();
    run(&gateway, &environment::path("POINTSMAN_PYTHON"), "python/chat.py");
    gateway.simulator.await_request("python-cancel", "the cancelled stream to end", |seen| seen.aborted);
    let sent = sent_numbers(&gateway, "python-numbers");
    assert_eq!(sent, [[None; 4], [None; 4], [Some("100"), None, Some("1"), Some("7")]].map(|all| all.map(text)));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_javascript_client_works() {
    let gateway = gateway();
    run(&gateway, &PathBuf::from("node"), "node/chat.mjs");
    gateway.simulator.await_request("node-cancel", "the cancelled stream to end", |seen| seen.aborted);
    assert_eq!(sent_numbers(&gateway, "node-numbers"), [[None; 4], [None; 4]].map(|all| all.map(text)));
}
