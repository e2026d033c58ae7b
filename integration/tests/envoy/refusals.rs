//! A provider that refuses the gateway (its key, account or configuration) leads to the next provider, a prompt that is
//! too long to a larger context window, and any other refusal of the request to its caller, in the provider's words.

use crate::standard::ask;
use pointsman_integration::call::Call;
use pointsman_integration::environment::envoy_version;
use pointsman_integration::gateway::{Gateway, OPENAI_SECRET, Shared};
use pointsman_integration::response::Response;
use serde_json::{Value, json};
use std::sync::LazyLock;

const POLICY: &str = include_str!("refusals.yaml");

fn gateway() -> Shared {
    static GATEWAY: LazyLock<Gateway> = LazyLock::new(|| Gateway::start(POLICY));
    Shared::of(&GATEWAY)
}

fn send(gateway: &Gateway, model: &str, prompt: &str, stream: bool) -> Response {
    let mut request = ask(model, prompt);
    request["stream"] = stream.into();
    gateway.send(Call::chat_json(&request).key("sk-acme"))
}

/// The providers that were asked, in order.
fn asked(gateway: &Gateway, answer: &Response) -> Vec<&'static str> {
    gateway.simulator.of(answer.trace_id()).iter().map(|seen| seen.provider).collect()
}

fn served_by(answer: &Response) -> (u16, Option<&str>) {
    (answer.status, answer.header("x-pointsman-model"))
}

/// Whether a failure that shows at the very end of a body can still lead to another attempt.
fn fails_at_end() -> bool {
    envoy_version() >= (1, 38)
}

const LONG: &str =
    "This model's maximum context length is 8000 tokens. However, your messages resulted in 9001 tokens.";

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_refusal_of_the_gateway_leads_to_the_next_provider() {
    let gateway = gateway();
    for status in [301, 401, 402, 403, 404, 405, 407, 410, 415, 424, 451, 499] {
        let mark = format!("refuses-the-gateway-{status}-");
        gateway.simulator.rule("openai", &mark, &json!({"status": status}));
        for stream in [false, true] {
            let answer = send(&gateway, "elsewhere", &mark, stream);
            assert_eq!(served_by(&answer), (200, Some("local")), "{status}: {}", answer.text());
            assert_eq!(answer.header("x-pointsman-next"), None);
            let failed = &gateway.audit(answer.trace_id())["failed_attempts"];
            assert_eq!(*failed, json!([{"model": "short", "reason": format!("status_{status}")}]));
            // Nobody else to ask: the caller is told that it is not at fault.
            for alone in ["short", "same-only"] {
                let answer = send(&gateway, alone, &mark, stream);
                answer.assert_refusal(502, "provider_refused_gateway");
                assert_eq!(answer.header("x-should-retry"), Some("false"));
                assert_eq!(asked(&gateway, &answer), ["openai"], "{status} {alone}");
            }
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_refusal_in_place_of_an_answer_is_one_too() {
    let gateway = gateway();
    for (name, error) in [
        ("bad-key", json!({"error": {"message": "Incorrect API key", "code": 401}})),
        ("no-credit", json!({"error": {"message": "Insufficient credits", "code": 402}})),
        ("no-model", json!({"error": {"message": "No such model", "code": 404}})),
        ("key-by-name", json!({"error": {"message": "x", "code": 400, "status": "API_KEY_INVALID"}})),
    ] {
        let mark = format!("in-place-of-an-answer-{name}");
        let behavior = json!({"fault": {"error_event": {"after_chunks": 0, "json": error}}});
        gateway.simulator.rule("openai", &mark, &behavior);
        for stream in [false, true] {
            let answer = send(&gateway, "elsewhere", &mark, stream);
            if stream || fails_at_end() {
                assert_eq!(served_by(&answer), (200, Some("local")), "{name} {stream}: {}", answer.text());
            } else {
                answer.assert_refusal(502, "provider_refused_gateway");
            }
            let reason = &gateway.audit(answer.trace_id())["failed_attempts"][0]["reason"];
            assert_eq!(reason, "provider_refused_gateway", "{name} {stream}");
            send(&gateway, "short", &mark, stream).assert_refusal(502, "provider_refused_gateway");
        }
    }
    // A status of the caller's whose body says that it is the gateway's matter.
    let invalid_key = json!([{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key.",
        "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}]);
    gateway.simulator.rule("openai", "gemini-says-400", &json!({"status": 400, "json": invalid_key}));
    for stream in [false, true] {
        let answer = send(&gateway, "elsewhere", "gemini-says-400", stream);
        assert_eq!(served_by(&answer), (200, Some("local")), "{}", answer.text());
        send(&gateway, "short", "gemini-says-400", stream).assert_refusal(502, "provider_refused_gateway");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_provider_whose_key_is_missing_refuses_the_gateway_and_the_next_serves() {
    let policy = POLICY.replace("OPENAI_API_KEY", "POINTSMAN_NO_SUCH_KEY");
    let gateway = Gateway::start_with(&policy, &["--allow-missing-credentials"]);
    // As a provider does.
    gateway.simulator.rule("openai", "keyless", &json!({"status": 401}));
    for stream in [false, true] {
        let answer = send(&gateway, "elsewhere", "keyless", stream);
        assert_eq!(served_by(&answer), (200, Some("local")), "{}", answer.text());
        let seen = gateway.simulator.of(answer.trace_id());
        assert_eq!((seen[0].provider, seen[0].header("authorization")), ("openai", None));
        send(&gateway, "short", "keyless", stream).assert_refusal(502, "provider_refused_gateway");
    }
}

/// Envoy's composite cluster (1.40) makes attempt N at the plan's model N and cannot skip one: the second model of the
/// provider is asked on the way. The aggregate cluster before it goes to another provider first.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_second_model_of_the_provider_is_no_way_out() {
    let gateway = gateway();
    let mark = "a-second-model-is-no-way-out";
    gateway.simulator.rule("openai", mark, &json!({"status": 402}));
    let answer = send(&gateway, "same-first", mark, false);
    assert_eq!(served_by(&answer), (200, Some("local")), "{}", answer.text());
    let expected = if envoy_version() >= (1, 40) { &["openai", "openai", "vllm"][..] } else { &["openai", "vllm"] };
    assert_eq!(asked(&gateway, &answer), expected);
    // Where the policy names the status, it leads to the next model whatever its provider.
    let answer = send(&gateway, "listed", mark, false);
    answer.assert_refusal(502, "provider_refused_gateway");
    assert_eq!(asked(&gateway, &answer), ["openai", "openai"]);
    // The provider that would be next has refused the gateway already.
    gateway.simulator.rule("azure", mark, &json!({"status": 401}));
    let answer = send(&gateway, "all-refuse", mark, true);
    answer.assert_refusal(502, "provider_refused_gateway");
    assert_eq!(asked(&gateway, &answer), ["openai", "azure"]);
    // A policy that wants no attempt after a status gets none. A list of others is no such wish.
    assert_eq!(asked(&gateway, &send(&gateway, "never", mark, false)), ["openai"]);
    assert_eq!(served_by(&send(&gateway, "one-status", mark, false)), (200, Some("local")));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_refusal_of_the_gateway_is_logged_loudly_and_counted() {
    let gateway = Gateway::start(POLICY);
    let mark = "logged-and-counted";
    gateway.simulator.rule("openai", mark, &json!({"status": 401}));
    for _ in 0..6 {
        assert_eq!(send(&gateway, "elsewhere", mark, false).status, 200);
        send(&gateway, "short", mark, false).assert_refusal(502, "provider_refused_gateway");
    }
    let refused = |lines: &[String]| {
        let labels = [("provider", "openai")];
        crate::metrics::value(lines, "llm_provider_refused_gateway_total", &labels)
    };
    assert_eq!(refused(&gateway.metrics()), Some(12), "{:#?}", gateway.metrics());
    let lines = gateway.process.lines();
    let said = lines.iter().filter(|line| {
        line.contains("[warning]") && line.contains("provider openai refused the gateway (status_401) at model short")
    });
    // Each of two workers says it once a minute.
    assert!((1..=2).contains(&said.count()), "{lines:#?}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_prompt_that_is_too_long_goes_to_a_larger_context_window() {
    let gateway = gateway();
    for (name, status, body) in [
        ("openai", 400, json!({"error": {"message": LONG, "code": "context_length_exceeded", "param": "messages"}})),
        ("vllm", 400, json!({"object": "error", "message": LONG, "type": "BadRequestError", "code": 400})),
        (
            "llama-cpp",
            400,
            json!({"error": {"code": 400, "message": "the request exceeds the available context size",
            "type": "exceed_context_size_error", "n_prompt_tokens": 9001, "n_ctx": 8000}}),
        ),
        (
            "anthropic",
            413,
            json!({"type": "error", "error": {"type": "invalid_request_error",
            "message": "prompt is too long: 9001 tokens > 8000 maximum"}}),
        ),
        (
            "tgi",
            422,
            json!({"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8000",
            "error_type": "validation"}),
        ),
    ] {
        let mark = format!("too-long-for-{name}-");
        for provider in ["openai", "azure"] {
            let when = json!({"model": if provider == "openai" { "Qwen/Qwen2.5-VL-72B-Instruct" } else { "other-1" },
                "body_contains": mark});
            let respond = json!({"status": status, "json": body});
            gateway.simulator.add_rule(&json!({"when": when, "respond": respond}));
        }
        for stream in [false, true] {
            let answer = send(&gateway, "larger", &mark, stream);
            assert_eq!(served_by(&answer), (200, Some("local-long")), "{name} {stream}: {}", answer.text());
            let failed = &gateway.audit(answer.trace_id())["failed_attempts"];
            let too_long = |model| json!({"model": model, "reason": "context_length_exceeded"});
            assert_eq!(failed[0], too_long("short"), "{name}");
            let answer = send(&gateway, "larger-same", &mark, stream);
            assert_eq!(served_by(&answer), (200, Some("long")), "{name} {stream}: {}", answer.text());
            // No larger one.
            for alone in ["short", "elsewhere"] {
                let answer = send(&gateway, alone, &mark, stream);
                answer.assert_refusal(400, "context_length_exceeded");
                assert_eq!(asked(&gateway, &answer), ["openai"], "{name} {alone}");
                assert_eq!(answer.header("x-should-retry"), Some("false"));
            }
        }
    }
    // Nor is it asked for another reason.
    for status in [400, 413, 422] {
        let mark = format!("not-too-long-{status}");
        gateway.simulator.rule("openai", &mark, &json!({"status": status}));
        let answer = send(&gateway, "larger", &mark, false);
        answer.assert_refusal(status, "provider_rejected_request");
        assert_eq!(asked(&gateway, &answer), ["openai"]);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_prompt_that_is_too_long_may_be_told_in_place_of_an_answer() {
    let gateway = gateway();
    let mark = "too-long-in-place-of-an-answer";
    let error = json!({"error": {"message": LONG, "code": 400}});
    gateway.simulator.rule("openai", mark, &json!({"fault": {"error_event": {"after_chunks": 0, "json": error}}}));
    for stream in [false, true] {
        let answer = send(&gateway, "larger", mark, stream);
        if stream || fails_at_end() {
            assert_eq!(served_by(&answer).0, 200, "{stream}: {}", answer.text());
        }
        send(&gateway, "short", mark, stream).assert_refusal(400, "context_length_exceeded");
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_providers_message_reaches_the_caller_whatever_its_shape() {
    let gateway = gateway();
    let said = "Invalid value for thinking.adaptive.display.";
    for (name, body) in [
        ("openai", json!({"error": {"message": said, "type": "invalid_request_error", "param": null}}).to_string()),
        ("gemini", json!([{"error": {"code": 400, "message": said, "status": "INVALID_ARGUMENT"}}]).to_string()),
        ("fastapi", json!({"detail": said}).to_string()),
        ("fastapi-list", json!({"detail": [{"type": "value_error", "msg": said}]}).to_string()),
        ("ollama", json!({"error": said}).to_string()),
        ("message", json!({"message": said}).to_string()),
        ("plain", said.to_owned()),
    ] {
        for (status, model, stream) in [(400, "short", false), (422, "elsewhere", false), (400, "elsewhere", true)] {
            let mark = format!("shape-{name}-{model}-{stream}");
            let kind = if name == "plain" { "text/plain" } else { "application/json" };
            let behavior = json!({"status": status, "content_type": kind, "body": body});
            gateway.simulator.rule("openai", &mark, &behavior);
            let answer = send(&gateway, model, &mark, stream);
            answer.assert_refusal(status, "provider_rejected_request");
            assert_eq!(answer.json()["error"]["message"], said, "{name} {model}");
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_is_the_callers_own_is_not_redacted_and_what_is_not_is() {
    let gateway = gateway();
    let url = "https://pictures.example.com/cats/1.png?size=2";
    let own = format!(
        "messages.1.content.0: unexpected `tool_use_id`: toolu_01A09q90qw90lq917835lq9, call_uCzNsYLrbc4TbTzXmZ4Bsm3c; \
         error while downloading {url}. Qwen/Qwen2.5-VL-72B-Instruct cannot read it."
    );
    let foreign = format!(
        "{own} See https://pictures.example.com/cats/2.png at gpu-7.cluster.local, key {OPENAI_SECRET}, org-AbC123, \
         10.1.2.3."
    );
    for (said, is_own) in [(&own, true), (&foreign, false)] {
        for model in ["short", "elsewhere"] {
            let mark = format!("own-words-{is_own}-{model}");
            let behavior = json!({"status": 400, "json": {"error": {"message": said, "code": "invalid_image_url"}}});
            gateway.simulator.rule("openai", &mark, &behavior);
            let image = json!({"type": "image_url", "image_url": {"url": url}});
            let content = json!([{"type": "text", "text": mark}, image]);
            let request = json!({"model": model, "messages": [{"role": "user", "content": content}]});
            let answer = gateway.send(Call::chat_json(&request).key("sk-acme"));
            answer.assert_refusal(400, "invalid_image_url");
            let document = answer.json();
            let message = document["error"]["message"].as_str().unwrap();
            assert!(message.starts_with(own.as_str()), "{message}");
            assert_eq!(message == own, is_own, "{message}");
            for secret in ["2.png", "gpu-7", OPENAI_SECRET, "org-", "10.1.2.3"] {
                assert!(!message.contains(secret), "{message}");
            }
        }
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_code_that_the_caller_can_act_on_is_the_callers_code() {
    let gateway = gateway();
    for code in ["content_filter", "unsupported_parameter", "unsupported_value", "invalid_image_format", "invalid_type"]
    {
        let mark = format!("callers-code-{code}");
        let error: Value = json!({"error": {"message": "No.", "code": code, "param": "temperature"}});
        gateway.simulator.rule("openai", &mark, &json!({"status": 400, "json": error}));
        for (model, stream) in [("short", false), ("elsewhere", false), ("elsewhere", true)] {
            let answer = send(&gateway, model, &mark, stream);
            answer.assert_refusal(400, code);
            assert_eq!(answer.param().as_deref(), Some("temperature"));
            assert_eq!(asked(&gateway, &answer), ["openai"], "{code} {model}");
            assert_eq!(gateway.audit(answer.trace_id())["error_code"], code);
        }
    }
}
