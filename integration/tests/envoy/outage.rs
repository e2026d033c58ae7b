//! An outage of one model is not an outage of the product: nothing is lost that a healthy model could serve.

use crate::standard::{POLICY, ask};
use crate::unsteady::{at_once, call, gateway, is_served, request, revive, script, slow};
use pointsman_integration::deadline::await_true;
use pointsman_integration::environment;
use pointsman_integration::gateway::{Gateway, Shared, cluster};
use pointsman_integration::port::Port;
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
#[ignore = "needs a real Envoy: make test"]
fn two_hundred_at_once_are_all_served_by_the_fallback() {
    let gateway = gateway();
    gateway.simulator.rule("openai", "two-hundred", &json!({"status": 503}));
    for task in ["refusing", "failing"] {
        let answers = at_once(200, |number| {
            let stream = number.is_multiple_of(2);
            (stream, gateway.send(call(&request(task, "two-hundred", stream))))
        });
        let lost: Vec<_> = answers.iter().filter(|(stream, answer)| !is_served(answer, *stream)).collect();
        assert!(lost.is_empty(), "{task}: {} of 200 lost, such as {:?}", lost.len(), lost[0]);
        for (_, answer) in &answers {
            let said = ["x-pointsman-model", "x-pointsman-attempts"].map(|name| answer.header(name));
            assert_eq!(said, [Some("local"), Some("2")]);
        }
        let asked: BTreeSet<&str> = answers.iter().map(|(_, answer)| answer.trace_id()).collect();
        assert_eq!(asked.len(), 200);
        await_true("200 audit records", || {
            let lines = gateway.access_log().lines();
            let records = lines.iter().filter(|line| line["fallback_used"] == true && line["error_code"].is_null());
            records.filter(|line| line["trace_id"].as_str().is_some_and(|id| asked.contains(id))).count() == 200
        });
    }
}

/// What happened to the requests of a caller.
#[derive(Default, Debug)]
struct Fared {
    asked: usize,
    by_primary: usize,
    by_fallback: usize,
    /// Streams that had begun when their provider died. No other model can continue them.
    cut: usize,
    lost: Vec<String>,
}

impl Fared {
    fn note(&mut self, answer: &Response, stream: bool) {
        self.asked += 1;
        if is_served(answer, stream) {
            match answer.header("x-pointsman-model") {
                Some("local") => self.by_fallback += 1,
                _ => self.by_primary += 1,
            }
        } else if stream && answer.status == 200 && answer.text().contains("\"choices\"") {
            self.cut += 1;
        } else {
            self.lost.push(format!("{} complete: {} {}", answer.status, answer.complete, answer.text()));
        }
    }

    fn add(mut self, other: Self) -> Self {
        self.asked += other.asked;
        self.by_primary += other.by_primary;
        self.by_fallback += other.by_fallback;
        self.cut += other.cut;
        self.lost.extend(other.lost);
        self
    }
}

/// Keeps sending requests from a few concurrent callers until `stop` is set.
fn keep_asking(gateway: &Gateway, callers: usize, document: impl Fn(bool) -> Value + Sync, stop: &AtomicBool) -> Fared {
    let ask = |caller: usize| {
        let mut fared = Fared::default();
        let mut stream = caller.is_multiple_of(2);
        while !stop.load(Ordering::Relaxed) {
            fared.note(&gateway.send(call(&document(stream))), stream);
            stream = !stream;
        }
        fared
    };
    at_once(callers, ask).into_iter().fold(Fared::default(), Fared::add)
}

/// The primary's process is killed and restarted every second, for a minute with `make test-long`.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_primary_that_dies_and_comes_back_every_second_costs_no_request() {
    let gateway = gateway();
    let seconds = environment::load(12, 60);
    let stop = AtomicBool::new(false);
    let prompt = script(&json!({"chunks": 5, "chunk_ms": 4}));
    let fared = std::thread::scope(|scope| {
        let load = scope.spawn(|| keep_asking(&gateway, 6, |stream| request("flapping", &prompt, stream), &stop));
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            let mut primary = revive();
            std::thread::sleep(Duration::from_secs(1));
            primary.signal("KILL");
            primary.end();
            std::thread::sleep(Duration::from_secs(1));
        }
        stop.store(true, Ordering::Relaxed);
        load.join().expect("ends well")
    });
    let Fared { asked, by_primary, by_fallback, cut, lost } = &fared;
    println!(
        "{seconds} s: {asked} asked, {by_primary} by the primary, {by_fallback} by the fallback, {cut} cut, {} lost",
        lost.len()
    );
    assert!(lost.is_empty(), "{} of {asked} lost, such as {}", lost.len(), lost[0]);
    assert!(*by_primary > 20 && *by_fallback > 20, "{fared:?}");
    assert_eq!(asked - cut, by_primary + by_fallback);
    // At each death, each of the six callers can have one stream in progress.
    assert!(*cut as u64 <= 6 * seconds.div_ceil(2), "{cut} streams cut");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_reload_under_load_drops_neither_requests_nor_open_streams() {
    let gateway = Gateway::start(POLICY);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load = scope.spawn(|| keep_asking(&gateway, 3, |stream| request("chat", "under-load", stream), &stop));
        let streams = scope.spawn(|| at_once(20, |_| gateway.send(call(&request("big", &slow(50, 100), true)))));
        for round in 0..4 {
            let seen = gateway.process.lines().len();
            gateway.replace_policy(&POLICY.replace("max_nesting: 20", &format!("max_nesting: {}", 21 + round)));
            gateway
                .process
                .await_line_after(seen, "policy applied", |line| line.starts_with("policy applied").then_some(()));
            std::thread::sleep(Duration::from_millis(300));
        }
        let dropped: Vec<_> =
            streams.join().expect("ends well").into_iter().filter(|answer| !is_served(answer, true)).collect();
        stop.store(true, Ordering::Relaxed);
        let fared = load.join().expect("ends well");
        assert!(dropped.is_empty(), "{} streams dropped, such as {:?}", dropped.len(), dropped[0]);
        assert!(fared.lost.is_empty() && fared.cut == 0 && fared.asked > 20, "{fared:?}");
    });
}

/// Every task of the shipped policy, while its hosted provider first hangs and then refuses connections.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn offline_every_task_with_a_local_model_goes_on() {
    let hybrid = include_str!("../../../policies/hybrid.yaml");
    let policy = format!("{hybrid}\nresilience: {{first_token_timeout: 1s, attempt_timeout: 1s}}\n");
    // Accepts connections and never answers.
    let port = Port::reserve();
    let network = TcpListener::bind(port.address).expect("binds");
    let gateway = Gateway::start_over(&policy, &[], |_| vec![("openai", cluster("openai", port.address, ""))]);
    let all = || {
        let tasks = ["extract", "classify", "chat", "summarize", "code", "reasoning"];
        at_once(2 * tasks.len(), |number| {
            let (task, stream) = (tasks[number / 2], number.is_multiple_of(2));
            let answer = gateway.send(call_as("sk-demo-enterprise", &request(task, "offline", stream)));
            assert!(is_served(&answer, stream), "{task}, stream: {stream}: {answer:?}");
            assert!(answer.header("x-pointsman-model").is_some_and(|model| model.starts_with("local-")), "{answer:?}");
        });
    };
    all();
    drop(network);
    all();
    let alone = gateway.send(call_as("sk-demo-enterprise", &ask("hosted-mid", "offline")));
    alone.assert_refusal(503, "provider_unreachable");
}

fn call_as(key: &str, document: &Value) -> pointsman_integration::call::Call {
    pointsman_integration::call::Call::chat_json(document).key(key)
}

/// Makes OpenAI's provider answer the first `times` requests that contain `mark` with `respond`.
fn fail(gateway: &Gateway, mark: &str, times: u32, respond: &Value) {
    // The listener of OpenAI.
    let when = json!({"listener": 2, "body_contains": mark});
    gateway.simulator.add_rule(&json!({"when": when, "times": times, "respond": respond}));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_chain_that_names_a_model_twice_gives_it_a_second_try() {
    let gateway = gateway();
    for stream in [false, true] {
        let mark = format!("second-try-{stream}");
        fail(&gateway, &mark, 1, &json!({"status": 500}));
        let answer = gateway.send(call(&request("again", &mark, stream)));
        assert!(is_served(&answer, stream), "{answer:?}");
        let said =
            ["x-pointsman-model", "x-pointsman-attempts", "x-pointsman-fallback"].map(|name| answer.header(name));
        assert_eq!(said, [Some("first"), Some("2"), Some("false")]);
        assert_eq!(gateway.simulator.of(answer.trace_id()).len(), 2);
        let audit = gateway.audit(answer.trace_id());
        assert_eq!((&audit["retry_count"], &audit["fallback_used"]), (&json!(1), &json!(false)), "{audit}");
        assert_eq!(audit["failed_attempts"], json!([{"model": "first", "reason": "status_500"}]), "{audit}");

        let mark = format!("both-tries-{stream}");
        fail(&gateway, &mark, 2, &json!({"status": 500}));
        let answer = gateway.send(call(&request("again", &mark, stream)));
        answer.assert_refusal(502, "provider_error");
        assert_eq!(answer.header("x-pointsman-attempts"), Some("2"));
    }
}

/// Returns a gateway whose own timeouts are longer than those of the tests.
fn patient() -> Shared {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| {
        let model = |provider: &str| {
            format!("{{provider: {provider}, model: m, level: local, context: 32768, max_output_tokens: 512}}")
        };
        Gateway::start(&format!(
            "resilience: {{max_retry_after: 600s, request_timeout: 600s}}\n\
             providers: {{vllm: {{dialect: openai, data: internal}}, openai: {{dialect: openai, data: internal}}}}\n\
             models: {{first: {}, local: {}}}\n\
             tasks:\n  again: {{primary: first, fallback: [first]}}\n  \
             failing: {{primary: first, fallback: [local]}}\n  \
             unretried: {{primary: first, fallback: [local], resilience: {{retry_on_status: [500]}}}}\n\
             tiers: {{all: {{models: [first, local]}}}}\n\
             tenants: {{acme: {{tier: all, keys: [<sk-acme>]}}}}\n",
            model("openai"),
            model("vllm")
        ))
    });
    Shared::of(&GATEWAY)
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_providers_wait_is_kept_before_that_provider_is_tried_again_and_no_other() {
    let gateway = patient();
    let busy = |wait: &str| json!({"status": 429, "headers": [["retry-after", wait]]});
    fail(&gateway, "wait-again", 1, &busy("2"));
    let start = Instant::now();
    let answer = gateway.send(call(&request("again", "wait-again", true)));
    assert!(start.elapsed() >= Duration::from_millis(1980), "{:?}", start.elapsed());
    assert_eq!(answer.header("x-pointsman-model"), Some("first"), "{answer:?}");
    // In milliseconds. Envoy reads whole seconds, so it waits no less.
    let busy_ms = json!({"status": 429, "headers": [["retry-after-ms", "1500"]]});
    fail(&gateway, "wait-in-ms", 1, &busy_ms);
    let start = Instant::now();
    let answer = gateway.send(call(&request("again", "wait-in-ms", false)));
    assert!(start.elapsed() >= Duration::from_millis(1480), "{:?}", start.elapsed());
    assert_eq!((answer.status, answer.header("x-pointsman-attempts")), (200, Some("2")), "{answer:?}");
    // This wait is longer than the test's patience.
    fail(&gateway, "wait-other", 1, &busy("300"));
    let answer = gateway.send(call(&request("failing", "wait-other", true)));
    assert_eq!(answer.header("x-pointsman-model"), Some("local"), "{answer:?}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_providers_wait_beyond_the_deadline_is_not_kept_and_the_caller_is_told_of_it() {
    let gateway = patient();
    // Both are longer than the test's patience.
    let busy = json!({"status": 429, "headers": [["retry-after", "300"]]});
    for (times, status) in [(1, 200), (2, 429)] {
        let mark = format!("no-time-to-wait-{times}");
        fail(&gateway, &mark, times, &busy);
        let call = call(&request("again", &mark, false)).header("x-pointsman-deadline-ms", "290000");
        let answer = gateway.send(call);
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("x-pointsman-attempts"), Some("2"));
        assert_eq!(answer.header("retry-after"), (status == 429).then_some("300"));
    }
    // The policy does not try another model after this status, so it is up to the caller to wait.
    let mark = "wait-without-a-retry";
    fail(&gateway, mark, 1, &busy);
    let answer = gateway.send(call(&request("unretried", mark, false)));
    answer.assert_refusal(429, "provider_rate_limited");
    assert_eq!((answer.header("retry-after"), answer.header("x-pointsman-attempts")), (Some("300"), Some("1")));
}
