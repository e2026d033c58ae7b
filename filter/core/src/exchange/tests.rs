//! The gateway stage event by event, as the glue calls it.

use super::*;
use crate::fixture::{self, context};
use crate::memory::WorkerMemory;
use crate::outcome::outcome::Outcome;
use crate::quota::rate::{Pace, Rate};
use crate::request::head::RequestHead;
use crate::routing::begun::Begun;
use crate::telemetry::metrics::Metric;
use crate::tokens::Correction;
use serde_json::{Value, json};

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn open(policy: &Policy, headers: Pairs) -> (Exchange, RequestStep) {
    let mut exchange = Exchange::new(1000);
    let head = RequestHead::read(policy, headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    let verdict = exchange.on_request_headers(context!(policy), &head, &mut Idle);
    (exchange, verdict)
}

/// No model is busy.
struct Idle;

impl Load for Idle {
    fn acquire(
        &mut self,
        _: &str,
        _: crate::routing::in_flight::Places,
    ) -> Result<(), crate::routing::in_flight::Full> {
        Ok(())
    }
    fn check(&mut self, _: &str, _: crate::routing::in_flight::Places) -> Result<(), crate::routing::in_flight::Full> {
        Ok(())
    }
}

/// Nothing is counted.
impl crate::quota::store::Store for Idle {
    fn update(&mut self, _: &str, _: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool {
        false
    }
    fn read(&mut self, _: &str) -> Vec<u8> {
        Vec::new()
    }
    fn users(&mut self) -> std::rc::Rc<crate::quota::users::UserTable> {
        std::rc::Rc::default()
    }
    fn now_ms(&mut self) -> u64 {
        1000
    }
    fn correction(&mut self, _: &str) -> Correction {
        Correction::default()
    }
    fn learn(&mut self, _: &str, _: u64, _: u64) {}
    fn rate(&mut self, _: &str) -> Rate {
        Rate::default()
    }
    fn learn_rate(&mut self, _: &str, _: &Pace) {}
    fn unique(&mut self) -> u128 {
        1
    }
}

/// Nothing is kept.
impl SharedData for Idle {
    fn get(&mut self, _: &str) -> (Vec<u8>, u32) {
        (Vec::new(), crate::store::shared_data::NEW)
    }
    fn set(&mut self, _: &str, _: &[u8], _: u32) -> bool {
        false
    }
}

const CHAT: [(&str, &str); 4] = [
    (":method", "POST"),
    (":path", "/v1/chat/completions?x=1"),
    ("authorization", "Bearer sk-acme"),
    ("x-request-id", "r-1"),
];

fn sent(policy: &Policy, body: &str) -> (Exchange, Outgoing) {
    let (mut exchange, verdict) = open(policy, &CHAT);
    assert!(matches!(verdict, RequestStep::AwaitBody));
    match exchange.on_request(context!(policy), body.as_bytes(), &mut Idle) {
        RequestStep::Send(outgoing) => (exchange, *outgoing),
        other => panic!("{other:?}"),
    }
}

fn reply(verdict: RequestStep) -> (u16, Option<&'static str>) {
    match verdict {
        RequestStep::Reply(reply) => (reply.status, reply.code.map(Outcome::code)),
        _ => (0, None),
    }
}

fn audit(exchange: &Exchange, policy: &Policy, failed: &[(usize, Outcome)]) -> Value {
    serde_json::from_slice(&exchange.audit(policy, failed, 1500)).unwrap()
}

#[test]
fn paths_methods_and_keys() {
    let policy = fixture::policy();
    let get = |path, key| reply(open(&policy, &[(":method", "GET"), (":path", path), ("api-key", key)]).1);
    assert_eq!(get("/healthz", ""), (200, None));
    assert_eq!(get("/v1/models", "sk-acme"), (200, None));
    assert_eq!(get("/v1/models", "sk-nobody"), (401, Some("invalid_api_key")));
    assert_eq!(get("/v1/models", ""), (401, Some("invalid_api_key")));
    assert_eq!(get("/v1/chat/completions", "sk-acme"), (405, Some("method_not_allowed")));
    assert_eq!(get("/v1/chat/completions/", "sk-acme"), (404, Some("unknown_url")));
    assert_eq!(get("", ""), (404, Some("unknown_url")));
}

#[test]
fn models_are_those_of_the_tier() {
    let policy = fixture::policy();
    let list = |key| match open(&policy, &[(":method", "GET"), (":path", "/v1/models"), ("x-api-key", key)]).1 {
        RequestStep::Reply(reply) => {
            let list: Value = serde_json::from_slice(&reply.body).unwrap();
            list["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        }
        _ => Vec::new(),
    };
    assert_eq!(list("sk-guest"), ["chat", "code", "small"]);
    assert_eq!(list("sk-acme"), ["chat", "code", "big", "small", "strict"]);
}

#[test]
fn the_caller_leaves_no_trace_upstream() {
    use crate::request::head::request_header_passes;
    for stays in ["cookie", "authorization", "x-pointsman-x", "x-envoy-y", "x-api-key", "cache-control", "x-jwt-sub"] {
        assert!(!request_header_passes(stays.as_bytes(), false), "{stays}");
    }
    for goes in [":path", "accept", "content-type", "x-request-id", "traceparent"] {
        assert!(request_header_passes(goes.as_bytes(), false), "{goes}");
    }
}

#[test]
fn a_whole_answer_is_metered_and_audited() {
    let policy = fixture::policy();
    let (mut exchange, outgoing) =
        sent(&policy, r#"{"model":"code","messages":[{"role":"user","content":"x"}],"user":"u"}"#);
    assert_eq!(outgoing.cluster, "plan.hosted+local");
    assert!(outgoing.headers.contains(&("x-envoy-max-retries", "1".into())));
    let head = ResponseHead {
        status: 200,
        model: b"big",
        attempts: b"1",
        content_type: b"application/json",
        ..Default::default()
    };
    assert!(matches!(exchange.response_head(context!(&policy), &head), OnResponseHead::Hold));
    let body = br#"{"choices":[{}],"usage":{"prompt_tokens":1000,"completion_tokens":100,"prompt_tokens_details":{"cached_tokens":400}}}"#;
    let whole = exchange.on_full_body(&policy, body);
    assert!(whole.replace.is_none());
    assert!(whole.headers.contains(&("x-pointsman-cost-usd", "0.002200".into())));
    let line = audit(&exchange, &policy, &[]);
    assert_eq!(line["tenant_id"], "acme");
    assert_eq!(line["task"], "code");
    assert_eq!(line["model"], "big");
    assert_eq!(line["estimated_cost_usd"], 0.0022);
    assert_eq!(line["latency_ms"], 500);
    assert_eq!(line["error_code"], Value::Null);
    assert_ne!(line["user_id_hash"], Value::Null);
    let metrics = exchange.metrics(&policy, &[], 1500);
    let names: Vec<_> = metrics.iter().map(|(m, v)| (m.name(&policy), *v)).collect();
    let requests = "llm_requests_total|tenant_tier=pro|task=code|provider=hosted|model=big|status=200";
    assert!(names.contains(&(requests.to_owned(), 1)));
    assert!(names.contains(&("llm_estimated_cost_microusd_total|tenant_id=acme|task=code|model=big".to_owned(), 2200)));
}

#[test]
fn a_report_of_more_than_a_model_can_use_is_bounded_and_marked() {
    let policy = fixture::policy();
    let usage = |input: u64, output: u64| {
        let (mut exchange, _) = sent(&policy, r#"{"model":"big","messages":[{"role":"user","content":"x"}],"n":2}"#);
        let head = ResponseHead { status: 200, content_type: b"application/json", ..Default::default() };
        assert!(matches!(exchange.response_head(context!(&policy), &head), OnResponseHead::Hold));
        let usage = serde_json::json!({"prompt_tokens": input, "completion_tokens": output});
        let body = serde_json::json!({"choices": [{}], "usage": usage}).to_string();
        exchange.on_full_body(&policy, body.as_bytes());
        exchange.usage().map(|(usage, is_estimated)| (usage.input, usage.output, is_estimated)).unwrap()
    };
    let big = policy.models.iter().find(|model| &*model.name == "big").unwrap();
    let most = big.context + 2 * big.max_output_tokens;
    assert_eq!(usage(most, most), (most, most, false));
    assert_eq!(usage(9, 1 << 63), (9, most, true));
    assert_eq!(usage(1 << 63, 9), (most, 9, true));
}

#[test]
fn a_fallback_is_said_and_the_failed_attempt_named() {
    let policy = fixture::policy();
    let (mut exchange, _) = sent(&policy, r#"{"messages":[{"role":"user","content":"x"}]}"#);
    let head = ResponseHead {
        status: 200,
        model: b"big",
        attempts: b"2",
        content_type: b"application/json",
        ..Default::default()
    };
    exchange.response_head(context!(&policy), &head);
    let whole =
        exchange.on_full_body(&policy, br#"{"choices":[{}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#);
    assert!(whole.headers.contains(&("x-pointsman-fallback", "true".into())));
    assert!(exchange.has_failed_attempts());
    let line = audit(&exchange, &policy, &[(0, Outcome::Status(503))]);
    assert_eq!((&line["retry_count"], &line["fallback_used"]), (&1.into(), &true.into()));
    assert_eq!(line["failed_attempts"], serde_json::json!([{"model": "small", "reason": "status_503"}]));
}

/// What Envoy knows of a request that ended before it was answered.
struct Unanswered(&'static str);

impl Observer for Unanswered {
    fn code_details(&self) -> String {
        self.0.to_owned()
    }
    fn response_code(&self) -> u16 {
        0
    }
    fn last_attempt(&self) -> Option<(usize, u32)> {
        Some((0, 1))
    }
    fn failed_attempts(&self) -> Vec<(usize, Outcome)> {
        Vec::new()
    }
    fn attempts(&self) -> Vec<Begun> {
        vec![Begun { index: 0, number: 1, began_ms: 0, end: None }]
    }
    fn has_connection(&self) -> bool {
        true
    }
    fn now_ms(&self) -> u64 {
        1500
    }
}

#[test]
fn a_caller_that_does_not_wait_is_charged_and_no_provider_is_blamed() {
    let mut document = fixture::document();
    for setting in ["prompt", "elapsed"] {
        document["quota"] = serde_json::json!({"abandoned": setting});
        let policy = crate::policy::parse::from_value(&document).unwrap().1;
        let body = r#"{"model":"big","messages":[{"role":"user","content":"eight by"}]}"#;
        let is_charged = |line: &Value| {
            let output = if setting == "elapsed" { 50 } else { 0 };
            assert_eq!((&line["usage_estimated"], &line["output_tokens"]), (&true.into(), &output.into()), "{line}");
            assert!(line["input_tokens"].as_u64() > Some(0) && line["estimated_cost_usd"].as_f64() > Some(0.0));
            assert_eq!(line["model"], "big");
        };
        let end = |exchange: Exchange, details| -> Value {
            let finished = exchange.finish(context!(&policy), &mut Idle, &Unanswered(details));
            serde_json::from_slice(&finished.audit).unwrap()
        };
        let (left, _) = sent(&policy, body);
        let line = end(left, "downstream_remote_disconnect");
        is_charged(&line);
        let said = (&line["error_code"], &line["failed_attempts"]);
        assert_eq!(said, (&"client_disconnected".into(), &Value::Array(vec![])));
        // A caller's own deadline ends it in the same way; the policy's is charged for its time.
        for (own, extra) in [(true, &[("x-pointsman-deadline-ms", "500")][..]), (false, &[])] {
            let headers: Vec<_> = CHAT.iter().chain(extra).copied().collect();
            let (mut late, _) = open(&policy, &headers);
            assert!(matches!(late.on_request(context!(&policy), body.as_bytes(), &mut Idle), RequestStep::Send(_)));
            // The first is Envoy's reason for ending an exchange at a deadline.
            let details = if own { "max_duration_timeout" } else { "response_timeout" };
            let head = ResponseHead { status: 504, details, ..Default::default() };
            late.on_response_headers(context!(&policy), &head, &Unanswered(details));
            late.on_full_body(&policy, b"");
            let line = end(late, details);
            assert_eq!(line["error_code"], if own { "deadline_exceeded" } else { "attempt_timeout" });
            match own || setting == "elapsed" {
                true => is_charged(&line),
                false => assert_eq!((&line["input_tokens"], &line["estimated_cost_usd"]), (&Value::Null, &Value::Null)),
            }
        }
    }
}

#[test]
fn a_failure_costs_nothing_and_tells_nothing_of_the_provider() {
    let policy = fixture::policy();
    let (mut exchange, _) = sent(&policy, r#"{"messages":[{"role":"user","content":"x"}]}"#);
    // With a short body, the end is awaited so the provider's connection can be reused.
    let known = ResponseHead {
        status: 401,
        model: b"big",
        attempts: b"2",
        content_length: Some(48),
        details: "via_upstream",
        ..Default::default()
    };
    assert!(matches!(exchange.response_head(context!(&policy), &known), OnResponseHead::Hold));
    let whole = exchange.on_full_body(&policy, br#"{"error":{"message":"Incorrect API key sk-abc"}}"#);
    let (status, body) = whole.replace.unwrap();
    assert_eq!(status, 502);
    assert!(!String::from_utf8(body).unwrap().contains("sk-"));
    let line = audit(&exchange, &policy, &[]);
    assert_eq!((&line["status"], &line["estimated_cost_usd"]), (&502.into(), &Value::Null));
    assert_eq!(line["error_code"], "provider_refused_gateway");
}

#[test]
fn of_a_failure_no_more_is_waited_for_than_its_words_need() {
    let policy = fixture::policy();
    let judged = |status, content_length, retry_after| {
        let (mut exchange, _) = sent(&policy, r#"{"model":"big","messages":[{"role":"user","content":"x"}]}"#);
        let head = ResponseHead {
            status,
            content_type: b"text/html",
            content_length,
            retry_after,
            details: if status < 300 { "" } else { "via_upstream" },
            ..Default::default()
        };
        let verdict = exchange.response_head(context!(&policy), &head);
        (exchange, verdict)
    };
    for (status, length, code) in [
        (500, None, "provider_error"),
        (401, None, "provider_refused_gateway"),
        (503, Some(1 << 30), "provider_unavailable"),
        (200, None, "provider_error"),
        (400, Some(0), "provider_rejected_request"),
    ] {
        let (exchange, verdict) = judged(status, length, b"");
        assert!(matches!(verdict, OnResponseHead::Replace(_)), "{status}: {verdict:?}");
        assert_eq!(audit(&exchange, &policy, &[])["error_code"], code);
    }
    let OnResponseHead::Replace(reply) = judged(429, None, b"7").1 else { panic!("is answered at once") };
    assert!(reply.status == 429 && reply.headers.contains(&("retry-after", "7".into())), "{reply:?}");
    // Errors the caller can fix are quoted, if they arrive and are not too long.
    for (bytes, status) in [(1, 400), (1 << 30, 400), (1 << 30, 413)] {
        let (mut exchange, verdict) = judged(status, Some(bytes).filter(|n| *n > 1), b"");
        assert!(matches!(verdict, OnResponseHead::Hold), "{verdict:?}");
        let reply = exchange.release(&policy, b"x").expect_err("is not passed on");
        assert_eq!(
            (reply.status, audit(&exchange, &policy, &[])["status"].as_u64()),
            (status, Some(u64::from(status)))
        );
    }
    // If it breaks off before the caller has been told, the caller is told that instead.
    let (mut broken, _) = judged(500, Some(500), b"");
    assert!(broken.is_cut_off());
    broken.cut_off("upstream_reset_after_response_started{connection_termination}", 503, None);
    let line = audit(&broken, &policy, &[]);
    assert_eq!((&line["status"], &line["error_code"]), (&503.into(), &"provider_unreachable".into()));
    assert_eq!(line["failed_attempts"], serde_json::json!([{"model": "big", "reason": "status_500"}]));
}

#[test]
fn envoys_own_failure_is_answered_in_the_callers_dialect() {
    let policy = fixture::policy();
    let (mut exchange, _) = sent(&policy, r#"{"messages":[{"role":"user","content":"x"}]}"#);
    let head = ResponseHead { status: 503, end_of_stream: true, ..Default::default() };
    match exchange.response_head(context!(&policy), &head) {
        OnResponseHead::Replace(reply) => assert_eq!(reply.status, 503),
        other => panic!("{other:?}"),
    }
    assert_eq!(audit(&exchange, &policy, &[])["model"], Value::Null);
}

#[test]
fn a_refusal_after_the_plan_was_made_is_audited_with_it() {
    let policy = fixture::policy();
    for (started_ms, is_late) in [(0, true), (950, false)] {
        let mut exchange = Exchange::new(started_ms);
        let headers = CHAT.iter().chain(&[("x-pointsman-deadline-ms", "500")]);
        let head = RequestHead::read(&policy, headers.map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        assert!(matches!(exchange.on_request_headers(context!(&policy), &head, &mut Idle), RequestStep::AwaitBody));
        let body = br#"{"model":"code","messages":[{"role":"user","content":"x"}]}"#;
        match exchange.on_request(context!(&policy), body, &mut Idle) {
            RequestStep::Reply(reply) => assert!(is_late && reply.status == 504, "{reply:?}"),
            other => assert!(!is_late, "{other:?}"),
        }
        let line = audit(&exchange, &policy, &[]);
        assert_eq!((&line["task"], &line["plan"]), (&Value::from("code"), &Value::from(vec!["big", "small"])));
    }
}

#[test]
fn a_body_that_is_too_large_is_refused_while_it_comes() {
    let policy = fixture::policy();
    let (mut exchange, _) = open(&policy, &CHAT);
    let mut memory = WorkerMemory::new(&policy);
    assert!(exchange.on_request_size(&mut memory.under(&policy), 32 << 20, false).is_none());
    assert_eq!(exchange.on_request_size(&mut memory.under(&policy), (32 << 20) + 1, false).unwrap().status, 413);
    let mut headers = CHAT.to_vec();
    headers.push(("content-length", "33554433"));
    assert_eq!(reply(open(&policy, &headers).1), (413, Some("request_too_large")));
}

#[test]
fn a_tenants_unfinished_uploads_are_bounded_and_end_with_their_requests() {
    let mut document = fixture::document();
    document["request"] = json!({"tenant_uploads": 1});
    let policy = crate::policy::parse::from_value(&document).unwrap().1;
    let mut memory = WorkerMemory::new(&policy);
    let mut grow = |exchange: &mut Exchange, is_whole| {
        exchange.on_request_size(&mut memory.under(&policy), 1000, is_whole).map(|reply| reply.status)
    };
    let [(mut one, _), (mut other, _)] = [open(&policy, &CHAT), open(&policy, &CHAT)];
    assert_eq!(grow(&mut other, true), None, "a body that arrives in one piece does not count");
    assert_eq!([grow(&mut one, false), grow(&mut one, false), grow(&mut other, false)], [None, None, Some(429)]);
    one.end_upload(&mut memory.under(&policy));
    let mut grow = |exchange: &mut Exchange| {
        exchange.on_request_size(&mut memory.under(&policy), 1000, false).map(|reply| reply.status)
    };
    assert_eq!(grow(&mut open(&policy, &CHAT).0), None);
}

/// A hedged request whose second attempt had begun when `model` answered as attempt number `count`.
fn hedged(model: &str, count: &str, failed: &[(usize, Outcome)]) -> Value {
    let mut document = fixture::document();
    document["tasks"]["chat"]["resilience"] = serde_json::json!({"hedge": true});
    let policy = crate::policy::parse::from_value(&document).unwrap().1;
    let (mut exchange, _) = sent(&policy, r#"{"messages":[{"role":"user","content":"x"}]}"#);
    assert!(exchange.is_hedged(&policy));
    let head = ResponseHead {
        status: 200,
        content_type: b"application/json",
        model: model.as_bytes(),
        attempts: count.as_bytes(),
        ..ResponseHead::default()
    };
    assert!(matches!(exchange.response_head(context!(&policy), &head), OnResponseHead::Hold));
    let made = exchange.hedge_won_by_other(Some((1, 2)));
    assert_eq!(made, (count == "1").then(|| ("x-pointsman-attempts", "2".into())));
    exchange.on_full_body(&policy, br#"{"choices":[{"message":{"content":"a"}}]}"#);
    let errors = exchange.metrics(&policy, failed, 1500).into_iter();
    let errors =
        errors.filter(|(metric, _)| matches!(metric, crate::telemetry::metrics::Metric::ProviderErrors { .. })).count();
    let audit = audit(&exchange, &policy, failed);
    assert_eq!((&audit["model"], &audit["retry_count"]), (&Value::from(model), &Value::from(1)));
    serde_json::json!([audit["failed_attempts"], errors])
}

#[test]
fn of_hedged_attempts_the_one_that_answers_is_the_one_that_is_recorded() {
    let attempt = |model, reason| serde_json::json!({"model": model, "reason": reason});
    let silent: &[(usize, Outcome)] = &[(0, Outcome::NoResponse)];
    assert_eq!(hedged("big", "2", silent), serde_json::json!([[attempt("small", "hedged")], 1]));
    assert_eq!(hedged("small", "1", silent), serde_json::json!([[attempt("big", "cancelled")], 0]));
    let late: &[(usize, Outcome)] = &[(0, Outcome::NoResponse), (0, Outcome::Status(503))];
    assert_eq!(hedged("big", "2", late), serde_json::json!([[attempt("small", "status_503")], 1]));
}

#[test]
fn what_envoy_answers_before_anything_was_decided_is_recorded_as_that() {
    let policy = fixture::policy();
    let record =
        |exchange: &Exchange| -> Value { serde_json::from_slice(&exchange.audit(&policy, &[], 1500)).unwrap() };
    for (details, status, code) in [
        ("request_overall_timeout", 408, "request_timeout"),
        ("path_normalization_failed", 400, "bad_request"),
        ("http1.codec_error", 400, "bad_request"),
        ("wasm_fail_stream", 503, "gateway_error"),
    ] {
        let (mut exchange, verdict) = open(&policy, &CHAT);
        assert!(matches!(verdict, RequestStep::AwaitBody) && exchange.is_cut_off());
        exchange.cut_off(details, status, None);
        let record = record(&exchange);
        assert_eq!((&record["status"], &record["error_code"]), (&status.into(), &code.into()), "{details}");
        assert_eq!(record["policy_decision"], "none", "{record}");
        assert!(
            exchange
                .metrics(&policy, &[], 1500)
                .iter()
                .any(|(metric, _)| matches!(metric, Metric::Requests { status: counted, .. } if *counted == status))
        );
    }
    // Envoy sent nothing, but the record and the metric have a status all the same.
    let (mut exchange, _) = open(&policy, &CHAT);
    exchange.cut_off("downstream_remote_disconnect", 0, None);
    let left = record(&exchange);
    assert_eq!((&left["status"], &left["error_code"]), (&499.into(), &"client_disconnected".into()));
    let counted = exchange.metrics(&policy, &[], 1500);
    assert!(counted.iter().any(|(metric, _)| matches!(metric, Metric::Requests { status: 499, .. })), "{counted:?}");
    // What was answered here was decided here.
    let (exchange, _) = open(&policy, &[(":method", "GET"), (":path", "/v1/models"), CHAT[2]]);
    assert!(!exchange.is_cut_off());
    assert_eq!(record(&exchange)["policy_decision"], "allow");
}
