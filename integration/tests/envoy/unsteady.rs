//! The gateway for tests of outages, overload, timers and health: providers that fail, die, are full or unhealthy.

use crate::standard::ask;
use pointsman_integration::call::Call;
use pointsman_integration::environment::program;
use pointsman_integration::gateway::{Gateway, Shared, cluster};
use pointsman_integration::port::Port;
use pointsman_integration::process::Process;
use pointsman_integration::response::{Open, Response};
use pointsman_integration::simulator::Simulator;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// The policy of these tests.
pub const POLICY: &str = include_str!("unsteady.yaml");

/// The simulator behind the provider `limited`.
pub static LIMITED: LazyLock<Simulator> = LazyLock::new(Simulator::start);

/// The port of the provider `mortal`.
pub static MORTAL: LazyLock<Port> = LazyLock::new(Port::reserve);

/// The options of a cluster that uses HTTP/2.
const HTTP2: &str = "typed_extension_protocol_options:\n  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n    \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n    explicit_http_config: {http2_protocol_options: {}}\n";

/// Returns the gateway with [`POLICY`] that these tests share.
pub fn gateway() -> Shared {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| {
        Gateway::start_over(POLICY, &[], |simulator| {
            let health = "health_checks: [{http_health_check: {path: /health}, timeout: 1s, interval: 0.1s, \
                no_traffic_interval: 0.1s, unhealthy_threshold: 2, healthy_threshold: 1}]\n";
            let outliers = "outlier_detection: {consecutive_5xx: 2, interval: 0.2s, base_ejection_time: 2s, \
                max_ejection_percent: 100}\n";
            let no_panic = "common_lb_config: {healthy_panic_threshold: {value: 0}}\n";
            let one = "circuit_breakers: {thresholds: [{max_requests: 1, max_pending_requests: 1}]}\n";
            let azure = simulator.address("azure");
            vec![
                ("mortal", cluster("mortal", MORTAL.address, "")),
                ("limited", cluster("limited", LIMITED.address("vllm"), "")),
                ("narrow", cluster("narrow", simulator.address("ollama"), one)),
                ("h2", cluster("h2", azure, HTTP2)),
                ("checked", cluster("checked", azure, &format!("{health}{no_panic}"))),
                ("judged", cluster("judged", azure, &format!("{outliers}{no_panic}"))),
            ]
        })
    });
    Shared::of(&GATEWAY)
}

/// Starts the provider `mortal`.
pub fn revive() -> Process {
    let address = MORTAL.address.to_string();
    let process = Process::start(&program("simulator"), ["--listen", &address, "--no-record"], &[], None);
    process.await_line("its address", |line| line.starts_with("listening on ").then_some(()));
    process
}

/// Returns a request for `model`, streamed or not.
pub fn request(model: &str, prompt: &str, stream: bool) -> Value {
    let mut request = ask(model, prompt);
    request["stream"] = stream.into();
    request
}

/// Returns a prompt that makes a provider answer like this.
pub fn script(behavior: &Value) -> String {
    format!("[[sim:{behavior}]]")
}

/// Returns the prompt of a stream that takes some time.
pub fn slow(chunks: u32, chunk_ms: u32) -> String {
    script(&json!({"chunks": chunks, "chunk_ms": chunk_ms}))
}

/// Creates a call with the key of the tests' tenant.
pub fn call(request: &Value) -> Call {
    Call::chat_json(request).key("sk-acme")
}

/// Opens a stream of `model`.
pub fn open(gateway: &Gateway, model: &str, prompt: &str) -> Open {
    call(&request(model, prompt, true)).open(gateway.address)
}

/// Makes `count` calls at the same time. `make` gets the number of the call.
pub fn at_once<T: Send>(count: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let make = &make;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || make(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("ends well")).collect()
    })
}

/// Returns whether a complete answer of a model arrived, streamed or not.
pub fn is_served(answer: &Response, stream: bool) -> bool {
    let ended =
        if stream { answer.text().ends_with("data: [DONE]\n\n") } else { answer.text().contains("\"choices\"") };
    answer.status == 200 && answer.complete && ended
}
