//! No log at any level contains a prompt, an answer, a key, a user id or any other text from outside.

use crate::standard::{POLICY, ask, scripted};
use pointsman_integration::call::Call;
use pointsman_integration::gateway::{AZURE_SECRET, Gateway, OPENAI_SECRET};
use serde_json::json;

/// Part of every text that we send, somewhere.
const CANARY: &str = "canary-4711";

/// Headers in which the gateway describes its answers.
const FORGED: [&str; 5] =
    ["x-pointsman-model", "x-pointsman-attempts", "x-pointsman-provider", "x-pointsman-cost-usd", "x-request-id"];

/// Returns requests with the canary in every possible place, valid and invalid.
fn calls() -> Vec<Call> {
    let chat = |body: String| Call::chat(body).key("sk-acme");
    let mut full = scripted("big", &json!({"content": format!("the answer {CANARY}")}));
    full["user"] = CANARY.into();
    full["metadata"] = json!({"k": CANARY, "prompt_id": format!("{CANARY}, a sentence"), "prompt_version": [CANARY]});
    full["tools"] = json!([{"type": "function", "function": {"name": "f", "description": CANARY,
        "parameters": {"type": "object"}}}]);
    full["stop"] = CANARY.into();
    let mut stream = full.clone();
    stream["stream"] = true.into();
    let error = json!({"error": {"message": format!("the provider says {CANARY}"), "code": CANARY, "param": CANARY}});
    let mut calls = vec![
        chat(full.to_string()),
        chat(stream.to_string()),
        chat(full.to_string()).header("cookie", CANARY).header("x-anything", CANARY).header("user-agent", CANARY),
        Call::chat(full.to_string()).key(CANARY),
        chat(ask(CANARY, CANARY).to_string()),
        chat(ask("small", CANARY).to_string()).header("x-pointsman-task", CANARY),
        chat(ask("small", CANARY).to_string()).header("x-pointsman-data-class", CANARY),
        chat(format!("{{\"{CANARY}\"")),
        chat(format!("{{\"model\":\"small\",\"{CANARY}\":1,\"{CANARY}\":2,\"messages\":[]}}")),
        chat(format!("{CANARY} is no JSON")),
        chat(format!("{{\"messages\":[{{\"role\":\"user\",\"content\":\"{CANARY}")),
        chat(
            scripted("small", &json!({"fault": {"reset_mid_stream": {"after_chunks": 1}}, "content": CANARY}))
                .to_string(),
        ),
    ];
    for (status, body) in [(400, error.clone()), (401, error.clone()), (500, error.clone()), (429, error.clone())] {
        for model in ["big", "away"] {
            calls.push(chat(scripted(model, &json!({"status": status, "json": body})).to_string()));
        }
    }
    for fault in [
        json!({"error_event": {"after_chunks": 1, "json": error}}),
        json!({"malformed_json": {"after_chunks": 1}}),
        json!("wrong_content_type"),
    ] {
        for stream in [true, false] {
            let mut request = scripted("away", &json!({"fault": fault, "content": format!("{CANARY} a b c")}));
            request["stream"] = stream.into();
            calls.push(chat(request.to_string()));
        }
    }
    // A provider that forges the gateway's headers: with one attempt and with several, streamed and not, with a key and
    // without.
    let forged: Vec<_> = FORGED.iter().map(|name| json!([name, format!("the prompt said {CANARY}")])).collect();
    for model in ["small", "big", "away"] {
        for stream in [true, false] {
            for status in [200, 503] {
                let mut request = scripted(model, &json!({"headers": forged, "status": status}));
                request["stream"] = stream.into();
                calls.push(chat(request.to_string()));
            }
        }
    }
    calls
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn nothing_from_outside_is_in_any_log() {
    let gateway = Gateway::start_with(POLICY, &["--full-admin"]);
    let (mut statuses, mut requests) = (Vec::new(), 0);
    let send_all = |statuses: &mut Vec<u16>, requests: &mut usize| {
        for call in calls() {
            let answer = gateway.send(call);
            gateway.audit(answer.trace_id());
            statuses.push(answer.status);
            *requests += 1;
        }
    };
    // First at the levels that an operator uses, then with everything that the module and its host log.
    send_all(&mut statuses, &mut requests);
    gateway.log_module_at("trace");
    send_all(&mut statuses, &mut requests);

    for status in [200, 400, 401, 404] {
        assert!(statuses.contains(&status), "{statuses:?} does not have all sorts of outcomes");
    }
    let logged = gateway.access_log().lines();
    assert!(logged.len() >= requests);
    let process = gateway.process.lines();
    assert!(process.iter().any(|line| line.contains("[trace][wasm]")), "Envoy did not log in detail");
    for secret in [CANARY, "sk-acme", OPENAI_SECRET, AZURE_SECRET] {
        assert!(!gateway.access_log().text().contains(secret), "{secret} is in the access log");
        let line = process.iter().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in Envoy's log");
    }
}
