//! Attempts that are abandoned before anything of their answer is seen: each is charged once, to its own model, by the
//! time that passed, by its worst case, or by its prompt.

use crate::quota_gateways::window;
use crate::standard::ask;
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{Gateway, Shared, cluster};
use pointsman_integration::raw::Connection;
use pointsman_integration::redis::Redis;
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// One case of a test has a tenant of its own, so that it finds no charge of another.
const CASES: [&str; 9] = ["left", "many", "deadline", "timeout", "fallback", "stream", "hedged", "early", "refused"];

/// A gateway, and how it charges abandoned attempts.
struct Setting {
    gateway: Shared,
    name: &'static str,
}

fn start(name: &str, redis: Option<&Redis>) -> Gateway {
    let tenants: String =
        CASES.iter().map(|case| format!("  {case}: {{tier: metered, keys: [<sk-{case}>]}}\n")).collect();
    let policy = include_str!("abandoned.yaml").replace("TENANTS\n", &tenants);
    let (store, section) = match redis {
        Some(_) => ("redis", "redis: {timeout: 5s}\n"),
        None => ("local", ""),
    };
    let policy = format!("quota: {{abandoned: {name}, store: {store}}}\n{section}{policy}");
    Gateway::start_over(&policy, &[], |_| {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let bridge = redis.map(|redis| ("redis", cluster("redis", redis.bridge, "")));
        [("dead", cluster("dead", nowhere, ""))].into_iter().chain(bridge).collect()
    })
}

/// Returns the tokens of a request or an attempt.
fn tokens(of: &Value) -> u64 {
    ["input_tokens", "output_tokens"].iter().filter_map(|name| of[*name].as_u64()).sum()
}

/// Returns a gateway for each setting, and one whose counters are in Redis.
fn settings() -> [Setting; 4] {
    static REDIS: LazyLock<Redis> = LazyLock::new(Redis::start);
    static ELAPSED: LazyLock<Gateway> = LazyLock::new(|| start("elapsed", None));
    static WORST: LazyLock<Gateway> = LazyLock::new(|| start("worst_case", None));
    static PROMPT: LazyLock<Gateway> = LazyLock::new(|| start("prompt", None));
    static SHARED: LazyLock<Gateway> = LazyLock::new(|| start("elapsed", Some(&REDIS)));
    [(&ELAPSED, "elapsed"), (&WORST, "worst_case"), (&PROMPT, "prompt"), (&SHARED, "elapsed")]
        .map(|(gateway, name)| Setting { gateway: Shared::of(gateway), name })
}

/// Returns the most output tokens of one choice, at a hundred per second, for an attempt that began after `start` and
/// has been charged.
fn most_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).expect("fits").div_ceil(10)
}

impl Setting {
    /// Makes the first model answer requests with this mark like this, and returns such a request.
    fn request(&self, task: &str, mark: &str, behavior: &Value) -> Value {
        self.gateway.simulator.rule("openai", mark, behavior);
        let mut request = ask(task, mark);
        request["max_tokens"] = json!(4000);
        request
    }

    fn send(&self, case: &str, request: &Value) -> Response {
        self.gateway.send(Call::chat_json(request).key(&format!("sk-{case}")))
    }

    /// Checks that the windows and the metrics say what the record says. Returns the record.
    fn charged(&self, case: &str, trace_id: &str) -> Value {
        let audit = self.gateway.audit(trace_id);
        let others = audit["abandoned_attempts"].as_array().cloned().unwrap_or_default();
        let all: u64 = tokens(&audit) + others.iter().map(tokens).sum::<u64>();
        let usd = |value: &Value| (value.as_f64().unwrap_or(0.0) * 1e6).round() as u64;
        let cost = usd(&audit["estimated_cost_usd"]) + usd(&audit["abandoned_cost_usd"]);
        let key = format!("sk-{case}");
        await_true(&format!("the charge of {audit}"), || {
            let used = |name| window(&self.gateway, &key, name);
            let (day, budget) = (used("tokens_per_day"), used("budget_usd_per_day"));
            assert!(day["used"].as_u64() <= Some(all), "more was charged: {day}, {audit}");
            day["used"] == all && usd(&budget["used"]) == cost && day["reserved"] == 0
        });
        audit
    }

    /// Checks the output tokens charged for an attempt of one choice that began after `start` and was abandoned after
    /// `ms`, or later.
    #[track_caller]
    fn assert_charged(&self, output: &Value, ms: u64, start: Instant, audit: &Value) {
        let output = output.as_u64();
        match self.name {
            "elapsed" => assert!(output >= Some(ms / 10 - 2) && output <= Some(most_since(start)), "{audit}"),
            "worst_case" => assert_eq!(output, Some(4000), "{audit}"),
            _ => assert_eq!(output.unwrap_or(0), 0, "{audit}"),
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_caller_that_leaves_pays_for_what_the_provider_may_have_made() {
    for setting in settings() {
        for (case, choices) in [("left", 1), ("many", 100)] {
            let mut request = setting.request("alone", case, &json!({"fault": "hang_before_headers"}));
            request["n"] = json!(choices);
            let body = request.to_string();
            let start = Instant::now();
            let mut connection = Connection::to(setting.gateway.address);
            connection.send(format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: sk-{case}\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            ));
            setting.gateway.simulator.await_request(case, "the request to arrive", |_| true);
            // As long as ten tokens take.
            std::thread::sleep(Duration::from_millis(100));
            drop(connection);
            let seen = setting.gateway.simulator.await_request(case, "it to be cancelled", |seen| seen.aborted);
            let audit = setting.charged(case, seen.header("x-request-id").expect("a trace id"));
            assert_eq!(audit["error_code"], "client_disconnected", "{audit}");
            assert!(audit["input_tokens"].as_u64() > Some(0) && audit["usage_estimated"] == true, "{audit}");
            let output = audit["output_tokens"].as_u64();
            match setting.name {
                "elapsed" => {
                    assert!(output <= Some(choices * most_since(start)) && output > Some(0), "{audit}")
                }
                "worst_case" => assert_eq!(output, Some(choices * 4000), "{audit}"),
                _ => assert_eq!(output, Some(0), "{audit}"),
            }
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_timer_that_passes_does_not_make_a_request_free() {
    for setting in settings() {
        let request = setting.request("alone", "late", &json!({"fault": "hang_after_headers"}));
        let start = Instant::now();
        let call = Call::chat_json(&request).key("sk-deadline").header("x-pointsman-deadline-ms", "700");
        let answer = setting.gateway.send(call);
        answer.assert_refusal(504, "deadline_exceeded");
        let audit = setting.charged("deadline", answer.trace_id());
        // The deadline counts from the request, which is older than its attempt.
        let attempts = setting.gateway.attempts(answer.trace_id());
        let ms = attempts[0]["duration_ms"].as_u64().expect("a number");
        setting.assert_charged(&audit["output_tokens"], ms, start, &audit);
        assert!(audit["input_tokens"].as_u64() > Some(0), "{audit}");

        let start = Instant::now();
        let answer = setting.send("timeout", &request);
        answer.assert_refusal(504, "attempt_timeout");
        let audit = setting.charged("timeout", answer.trace_id());
        setting.assert_charged(&audit["output_tokens"], 1000, start, &audit);
        assert_eq!(audit["input_tokens"].is_null(), setting.name == "prompt", "{audit}");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_attempt_that_times_out_is_charged_beside_the_answer_of_the_next() {
    for setting in settings() {
        for (case, task, stream) in [("fallback", "both", false), ("stream", "both", true), ("hedged", "hedged", false)]
        {
            let mark = format!("silent-{case}");
            let mut request = setting.request(task, &mark, &json!({"fault": "hang_before_headers"}));
            request["stream"] = json!(stream);
            let start = Instant::now();
            let answer = setting.send(case, &request);
            assert_eq!((answer.status, answer.header("x-pointsman-model")), (200, Some("second")), "{answer:?}");
            let audit = setting.charged(case, answer.trace_id());
            assert_eq!((&audit["model"], &audit["usage_estimated"]), (&json!("second"), &json!(false)), "{audit}");
            let first = &audit["abandoned_attempts"][0];
            setting.assert_charged(&first["output_tokens"], 1000, start, &audit);
            assert_eq!(first.is_null(), setting.name == "prompt", "{audit}");
            assert!(first.is_null() || first["model"] == "first", "{audit}");
            // Each model's own window has its own tokens.
            let usage = setting.gateway.send(Call::new("GET", "/v1/usage").key(&format!("sk-{case}"))).json();
            let own = |model: &str| {
                let all = usage["windows"].as_array().expect("a list").clone();
                all.into_iter().find(|window| window["model"] == model).expect("its window")["used"].as_u64().unwrap()
            };
            assert_eq!((own("first"), own("second")), (tokens(first), tokens(&audit)), "{audit}");
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_stream_of_headers_alone_is_charged_and_a_refused_attempt_is_not() {
    for setting in settings() {
        let mut request = setting.request("early", "headers alone", &json!({"fault": "hang_after_headers"}));
        request["stream"] = json!(true);
        let start = Instant::now();
        let answer = setting.send("early", &request);
        assert_eq!(answer.status, 200, "{answer:?}");
        let audit = setting.charged("early", answer.trace_id());
        assert_eq!(audit["error_code"], "deadline_exceeded", "{audit}");
        setting.assert_charged(&audit["output_tokens"], 1000, start, &audit);

        let answer = setting.send("refused", &ask("refused", "a connection that is refused"));
        assert_eq!((answer.status, answer.header("x-pointsman-attempts")), (200, Some("2")), "{answer:?}");
        let audit = setting.charged("refused", answer.trace_id());
        assert!(audit["abandoned_attempts"].is_null() && audit["usage_estimated"] == false, "{audit}");
    }
}
