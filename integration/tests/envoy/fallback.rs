//! When a model fails before its first token, the next one serves. It gets its own request, with nothing left from the
//! attempt before.

use crate::standard::{ask, gateway};
use crate::unsteady;
use pointsman_integration::call::Call;
use pointsman_integration::gateway::{AZURE_SECRET, OPENAI_SECRET};
use pointsman_integration::simulator::Seen;
use serde_json::json;

/// Checks that the request suits its provider: path, host, credential, model and length.
fn check(seen: &Seen, gateway: &pointsman_integration::gateway::Gateway) {
    let (path, model, authorization, api_key) = match seen.provider {
        "openai" => ("/v1/chat/completions", "gpt-4.1", Some(format!("Bearer {OPENAI_SECRET}")), None),
        "azure" => ("/openai/v1/chat/completions", "gpt-4.1-eu", None, Some(AZURE_SECRET)),
        "vllm" => ("/v1/chat/completions", "qwen2.5-7b-instruct", None, None),
        _ => ("/ollama/v1/chat/completions", "llama3.2:3b", None, None),
    };
    assert_eq!(seen.path, path, "{seen:?}");
    assert_eq!(seen.json()["model"], model);
    assert_eq!(seen.header("authorization"), authorization.as_deref(), "{}", seen.provider);
    assert_eq!(seen.header("api-key"), api_key, "{}", seen.provider);
    assert_eq!(seen.header("host"), Some(gateway.simulator.address(seen.provider).to_string().as_str()));
    assert_eq!(seen.header("content-length"), Some(seen.body.len().to_string().as_str()));
    let mut allowed =
        vec!["accept", "accept-encoding", "content-length", "content-type", "host", "user-agent", "x-request-id"];
    allowed.extend(["authorization", "api-key"]);
    assert!(seen.header_names().iter().all(|name| allowed.contains(name)), "{:?}", seen.header_names());
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn each_attempt_has_its_own_path_model_and_credential() {
    let gateway = gateway();
    let mark = "own-credential";
    for provider in ["openai", "azure"] {
        gateway.simulator.rule(provider, mark, &json!({"status": 503}));
    }
    for stream in [false, true] {
        for model in ["reasoning", "away", "hosted"] {
            let mut request = ask(model, mark);
            request["stream"] = stream.into();
            let answer = gateway.send(Call::chat_json(&request).key("sk-acme"));
            let seen = gateway.simulator.of(answer.trace_id());
            let providers: Vec<_> = seen.iter().map(|seen| seen.provider).collect();
            match model {
                "reasoning" => assert_eq!(providers, ["openai", "azure", "vllm"]),
                "away" => assert_eq!(providers, ["openai", "vllm"]),
                _ => assert_eq!(providers, ["openai", "azure"]),
            }
            seen.iter().for_each(|seen| check(seen, &gateway));
            assert_eq!(answer.status, if model == "hosted" { 503 } else { 200 });
            assert_eq!(answer.header("x-pointsman-attempts"), Some(providers.len().to_string().as_str()));
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_second_attempt_gets_a_long_body_whole() {
    let gateway = gateway();
    let mark = "long-body-on-fallback";
    gateway.simulator.rule("openai", mark, &json!({"status": 500}));
    let prompt: String = (0..900_000u32).map(|at| char::from(b'a' + (at % 19) as u8)).collect();
    let mut request = ask("hosted", &format!("{mark} {prompt}"));
    request["max_tokens"] = 1500.into();
    let body = request.to_string();
    let pieces = body.as_bytes().chunks(30_000).map(<[u8]>::to_vec);
    for call in [Call::chat(&*body), Call::chat("").pieces(pieces), Call::chat(&*body).http2()] {
        let answer = gateway.send(call.key("sk-acme"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = gateway.simulator.of(answer.trace_id());
        assert_eq!(seen.iter().map(|seen| seen.provider).collect::<Vec<_>>(), ["openai", "azure"]);
        for (seen, limit) in seen.iter().zip([1500, 1000]) {
            check(seen, &gateway);
            let document = seen.json();
            assert_eq!(document["max_tokens"], limit);
            assert!(document["messages"] == request["messages"], "the prompt changed on its way to {}", seen.provider);
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_provider_that_cannot_be_reached_is_skipped() {
    let gateway = gateway();
    for stream in [false, true] {
        let mut request = ask("unreachable", "hello");
        request["stream"] = stream.into();
        let answer = gateway.chat("sk-acme", &request);
        assert_eq!((answer.status, answer.header("x-pointsman-model")), (200, Some("small")), "{}", answer.text());
        assert_eq!(answer.header("x-pointsman-fallback"), Some("true"));
        let audit = gateway.audit(answer.trace_id());
        assert_eq!((&audit["retry_count"], &audit["fallback_used"]), (&json!(1), &json!(true)), "{audit}");
        assert_eq!(audit["failed_attempts"][0]["model"], "gone", "{audit}");
    }
    let alone = gateway.chat("sk-acme", &ask("gone", "hello"));
    alone.assert_refusal(503, "provider_unreachable");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_refusal_of_the_request_is_not_tried_elsewhere() {
    let gateway = gateway();
    for status in [400, 413, 422] {
        let mark = format!("not-elsewhere-{status}");
        gateway.simulator.rule("openai", &mark, &json!({"status": status}));
        let answer = gateway.chat("sk-acme", &ask("away", &mark));
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(gateway.simulator.of(answer.trace_id()).len(), 1, "{status}");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_hundred_requests_at_once_all_reach_the_next_model() {
    let gateway = gateway();
    let mark = "a-hundred-at-once";
    gateway.simulator.rule("openai", mark, &json!({"status": 503}));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let call = || gateway.chat("sk-acme", &ask("away", mark)).status;
        let threads: Vec<_> = (0..100).map(|_| scope.spawn(call)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 100]);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn every_status_from_500_on_and_every_answer_that_is_none_leads_to_the_next_model() {
    let gateway = unsteady::gateway();
    let served_by_the_second = |task: &str, mark: &str, stream: bool| {
        let answer = gateway.send(unsteady::call(&unsteady::request(task, mark, stream)));
        assert!(unsteady::is_served(&answer, stream), "{mark}: {answer:?}");
        let said = ["x-pointsman-model", "x-pointsman-attempts"].map(|name| answer.header(name));
        assert_eq!(said, [Some("local"), Some("2")], "{mark}");
    };
    for status in [501, 507, 520, 526, 599] {
        let mark = format!("odd-status-{status}-");
        gateway.simulator.rule("openai", &mark, &json!({"status": status}));
        [false, true].into_iter().for_each(|stream| served_by_the_second("failing", &mark, stream));
    }
    // The task names one status, and none of these faults has it.
    let code = json!({"error": {"message": "x", "code": 520}});
    for (mark, behavior) in [
        ("none-malformed", json!({"fault": {"malformed_json": {"after_chunks": 0}}})),
        ("none-of-this-kind", json!({"content_type": "text/html"})),
        ("none-but-an-error", json!({"fault": {"error_event": {"after_chunks": 0, "json": code}}})),
    ] {
        gateway.simulator.rule("openai", mark, &behavior);
        served_by_the_second("unretried", mark, true);
    }
    // A status that the task does not name is passed on.
    gateway.simulator.rule("openai", "not-named", &json!({"status": 503}));
    let answer = gateway.send(unsteady::call(&unsteady::request("unretried", "not-named", false)));
    assert_eq!((answer.status, answer.header("x-pointsman-attempts")), (503, Some("1")), "{answer:?}");
}
