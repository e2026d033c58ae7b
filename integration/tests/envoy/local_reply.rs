//! Envoy's own local replies are in the caller's dialect, and recorded correctly.

use crate::standard::{ask, gateway};
use pointsman_integration::call::Call;
use pointsman_integration::raw::{Connection, RawResponse};
use serde_json::{Value, json};

#[track_caller]
fn check(answer: &RawResponse, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    let document: Value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("no JSON: {answer:?}"));
    assert_eq!(document["error"]["code"], code, "{document}");
    for text in ["message", "type"] {
        assert!(document["error"][text].as_str().is_some_and(|text| !text.is_empty()), "{document}");
    }
    assert!(document["error"].as_object().unwrap().contains_key("param"), "{document}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_request_that_envoy_refuses_is_answered_in_openais_shape() {
    let gateway = gateway();
    let send = |request: String| Connection::to(gateway.address).send(request).response();
    let long = "a".repeat(100_000);
    for (request, status, code) in [
        ("GET /v1/models HTTP/1.1\r\n\r\n".to_owned(), 400, "bad_request"),
        ("nonsense\r\n\r\n".to_owned(), 400, "bad_request"),
        (format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"), 431, "request_headers_too_large"),
    ] {
        check(&send(request), status, code);
    }
    // The module's own messages are kept.
    gateway.send(Call::new("GET", "/v1/models")).assert_refusal(401, "invalid_api_key");
    gateway.send(Call::chat("{").key("sk-acme")).assert_refusal(400, "invalid_json");
    gateway.chat("sk-acme", &ask("nothing", "a")).assert_refusal(404, "model_not_found");
}

/// Envoy waits ten seconds for the headers of a request.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_request_that_does_not_end_in_time_is_answered_in_openais_shape() {
    let answer = Connection::to(gateway().address).send("GET /v1/models HTTP/1.1\r\nhost: x\r\nx-half: ").response();
    check(&answer, 408, "request_timeout");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_request_that_envoy_refuses_is_recorded_with_its_status_and_no_decision() {
    let gateway = gateway();
    Connection::to(gateway.address).send("GET /v1/models HTTP/1.1\r\n\r\n").response();
    // Envoy refuses the request before assigning an id to it.
    let refused = |line: &Value| {
        json!([line["status"], line["endpoint"], line["policy_decision"], line["error_code"]])
            == json!([400, "unknown", "none", "bad_request"])
    };
    pointsman_integration::deadline::await_true("its record", || gateway.access_log().lines().iter().any(refused));
    let counted = |line: &String| line.starts_with("llm_requests_total{") && line.contains("status=\"400\"");
    assert!(gateway.metrics().iter().any(counted), "{:#?}", gateway.metrics());
}
