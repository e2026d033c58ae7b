//! The control API: rules, the log, health, and a clean stop.

use serde_json::{Value, json};

use crate::process::{Simulator, question};
use crate::raw::{exchange, get, post};

fn chat(sim: &Simulator, listener: usize) -> u16 {
    let body = question(false, &json!({"status": 404})).to_string();
    exchange(sim.addresses[listener], &post("/v1/chat/completions?api-version=1", &body)).status
}

#[test]
fn rules_win_over_directives_and_run_out() {
    let sim = Simulator::with(2, &[]);
    let rules = json!([
        {"when": {"listener": 1}, "respond": {"status": 503}},
        {"when": {"path_suffix": "/chat/completions", "model": "m", "stream": false}, "times": 1,
        "respond": {"status": 429}},
    ]);
    assert_eq!(sim.control("POST", "rules", &rules), json!({"added": 2}));
    assert_eq!([chat(&sim, 0), chat(&sim, 0), chat(&sim, 1)], [429, 404, 503]);
    let rules = sim.control("GET", "rules", &Value::Null);
    assert_eq!((&rules[0]["hits"], &rules[1]["hits"], &rules[1]["left"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(sim.control("DELETE", "rules", &Value::Null), json!({"removed": 2}));
    assert_eq!(chat(&sim, 1), 404);
}

#[test]
fn a_wrong_rule_is_refused_with_its_place() {
    let sim = Simulator::start();
    let answer = exchange(sim.address(), &post("/_sim/rules", r#"{"respond":{"status":1000}}"#));
    assert_eq!(answer.status, 400);
    assert!(answer.json()["error"].as_str().unwrap().starts_with("rule 0: status: 1000 is not between"));
    assert_eq!(exchange(sim.address(), &get("/_sim/nothing")).status, 404);
}

#[test]
fn requests_are_logged_with_where_they_came() {
    let sim = Simulator::with(2, &[]);
    chat(&sim, 1);
    exchange(sim.address(), &get("/health"));
    let requests = sim.requests();
    assert_eq!(requests.len(), 1, "health checks are not requests");
    let request = &requests[0];
    assert_eq!((&request["listener"], &request["local_port"]), (&json!(1), &json!(sim.addresses[1].port())));
    assert_eq!((&request["method"], &request["path"]), (&json!("POST"), &json!("/v1/chat/completions?api-version=1")));
    assert_eq!(request["headers"][1], json!(["authorization", "Bearer sk-test"]));
    assert_eq!((&request["finished"], &request["aborted"]), (&json!(true), &json!(false)));
    assert_eq!(sim.control("GET", "requests?since=1", &Value::Null), json!([]));
    sim.control("DELETE", "requests", &Value::Null);
    assert!(sim.requests().is_empty());
}

#[test]
fn requests_are_found_by_number_header_and_body() {
    let sim = Simulator::start();
    for prompt in ["first", "second"] {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": prompt}]}).to_string();
        let call = String::from_utf8(post("/v1/chat/completions", &body)).unwrap();
        let call = call.replacen("\r\n", &format!("\r\nx-request-id: {prompt}\r\n"), 1);
        assert_eq!(exchange(sim.address(), call.as_bytes()).status, 200);
    }
    let found = |wanted: Value| -> Vec<u64> {
        let listed = sim.control("POST", "requests", &wanted);
        listed.as_array().unwrap().iter().map(|request| request["seq"].as_u64().unwrap()).collect()
    };
    assert_eq!(found(json!({})), [1, 2]);
    assert_eq!(found(json!({"since": 1})), [2]);
    assert_eq!(found(json!({"header": ["X-Request-Id", "first"]})), [1]);
    assert_eq!(found(json!({"header": ["x-request-id", "firs"]})), [0; 0]);
    assert_eq!(found(json!({"body_contains": "second"})), [2]);
    assert_eq!(found(json!({"body_contains": "second", "header": ["x-request-id", "first"]})), [0; 0]);
    let wrong = exchange(sim.address(), &post("/_sim/requests", r#"{"trace": "a"}"#));
    assert_eq!(wrong.status, 400);
    assert!(wrong.json()["error"].as_str().unwrap().starts_with("unknown field `trace`"), "{:?}", wrong.json());
}

#[test]
fn no_record_keeps_nothing_but_counts() {
    let sim = Simulator::with(1, &["--no-record", "--threads", "2"]);
    assert_eq!(chat(&sim, 0), 404);
    assert!(sim.requests().is_empty());
    assert_eq!(sim.control("GET", "requests/count", &Value::Null)["count"], 1);
}

#[test]
fn what_is_held_comes_once_it_is_released() {
    let sim = Simulator::start();
    std::thread::scope(|scope| {
        let ask = |stream| sim.ask(stream, &json!({"hold": "a", "content": "x"}));
        let held = [false, true].map(|stream| scope.spawn(move || ask(stream)));
        sim.last_request_until(|_| sim.requests().len() == 2);
        // Another request is not held, and releasing another name releases none of these.
        assert_eq!(sim.ask(false, &json!({"content": "y"})).status, 200);
        sim.control("POST", "release", &json!({"hold": "b"}));
        assert!(!held.iter().any(|held| held.is_finished()));
        sim.control("POST", "release", &json!({"hold": "a"}));
        assert!(held.into_iter().all(|held| held.join().unwrap().status == 200));
    });
    assert_eq!(sim.ask(false, &json!({"hold": "a"})).status, 200, "it stays released");
}

#[test]
fn health_is_set_per_listener() {
    let sim = Simulator::with(2, &[]);
    sim.control("POST", "health", &json!({"listener": 1, "status": 503}));
    let status = |listener: usize, path| exchange(sim.addresses[listener], &get(path)).status;
    assert_eq!([status(0, "/health"), status(1, "/health"), status(1, "/api/version")], [200, 503, 503]);
    assert_eq!(sim.control("GET", "health", &Value::Null)[1], json!({"status": 503, "checks": 2}));
}

#[test]
fn sigterm_stops_it_cleanly() {
    let mut sim = Simulator::start();
    let killed = std::process::Command::new("kill").args(["-TERM", &sim.child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert!(sim.child.wait().unwrap().success());
}
