//! The official clients take the simulator for the provider that it poses as: they call it directly, without a gateway.

use pointsman_integration::environment;
use pointsman_integration::simulator::{PROVIDERS, Simulator};
use std::path::Path;
use std::process::Command;

/// Runs a client's program against a simulator, and checks that each of its `cases` passed.
fn run(script: &str, cases: &[&str]) {
    let simulator = Simulator::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python").join(script);
    let mut command = Command::new(environment::path("POINTSMAN_PYTHON"));
    command.arg(&script).env("POINTSMAN_URL", format!("http://{}", simulator.address(PROVIDERS[0])));
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    let output = command.output().expect("runs the Python of the clients");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    let passed: Vec<_> = said.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
    assert_eq!(passed, cases, "{said}");
}

#[test]
#[ignore = "needs the clients: make test"]
fn anthropics_client_reads_messages() {
    let cases = [
        "whole",
        "stream",
        "stream_of_every_block",
        "redacted_thinking",
        "tools_round_trip",
        "thinking_round_trip",
        "stop_reasons",
        "count_tokens",
        "models",
        "errors",
        "error_first",
        "error_in_mid_stream",
        "stream_without_end_looks_whole",
        "stream_cut",
        "stream_without_event_lines",
        "stream_framed_otherwise",
        "pings_after_a_chunk",
    ];
    run("simulated_messages.py", &cases);
}

#[test]
#[ignore = "needs the clients: make test"]
fn openais_client_reads_responses() {
    let cases = [
        "whole",
        "stream",
        "stream_of_every_item",
        "tools_round_trip",
        "json_schema",
        "reasoning_round_trip",
        "conversation",
        "input_tokens",
        "incomplete",
        "failed",
        "error_in_the_stream",
        "stream_without_end",
        "stream_cut",
        "stream_framed_otherwise",
        "errors",
    ];
    run("simulated_responses.py", &cases);
}

#[test]
#[ignore = "needs the clients: make test"]
fn openais_client_reads_the_smaller_endpoints() {
    let cases = [
        "embeddings",
        "completions",
        "completions_streamed",
        "moderations",
        "images",
        "speech",
        "transcriptions",
        "errors",
    ];
    run("simulated_endpoints.py", &cases);
}
