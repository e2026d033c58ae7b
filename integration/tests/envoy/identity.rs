//! Only its key identifies a caller, and nothing that a caller sends about itself or about Envoy reaches a provider.

use crate::standard::{ask, gateway, scripted};
use pointsman_integration::call::Call;
use pointsman_integration::gateway::Gateway;
use serde_json::{Value, json};

/// All request headers that a provider receives. A longer list is a leak.
const PASSED: [&str; 8] = [
    "accept",
    "accept-encoding",
    "content-length",
    "content-type",
    "host",
    "traceparent",
    "user-agent",
    "x-request-id",
];

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_key_is_taken_wherever_clients_put_it() {
    let gateway = gateway();
    let call = || Call::chat_json(&ask("small", "hello"));
    for (name, value) in [
        ("authorization", "Bearer sk-acme"),
        ("authorization", "bearer sk-acme-second"),
        ("x-api-key", "sk-acme"),
        ("api-key", "sk-acme"),
        ("authorization", "Bearer sk-lasting"),
    ] {
        let answer = gateway.send(call().header(name, value));
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let tenant = if value.ends_with("lasting") { "lapsed" } else { "acme" };
        assert_eq!(gateway.audit(answer.trace_id())["tenant_id"], tenant);
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn without_a_valid_key_nothing_is_sent() {
    let gateway = gateway();
    let call = || Call::chat_json(&ask("small", "no-key-for-this"));
    for (call, message) in [
        (call(), "No API key was provided"),
        (call().header("authorization", "Bearer "), "No API key was provided"),
        (call().header("authorization", "Basic c2stYWNtZTo="), "No API key was provided"),
        (call().header("cookie", "key=sk-acme"), "No API key was provided"),
        (call().key("sk-acm"), "Incorrect API key provided"),
        (call().key("sk-acme2"), "Incorrect API key provided"),
        (call().key("sk-acme, sk-acme"), "Incorrect API key provided"),
        (call().header("x-api-key", "sk-nobody"), "Incorrect API key provided"),
        // LiteLLM recognizes a wrong key by these words.
        (call().key("sk-lapsed"), "Incorrect API key provided: it has expired"),
    ] {
        let answer = gateway.send(call);
        answer.assert_refusal(401, "invalid_api_key");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        assert!(answer.text().contains(message), "{message}: {}", answer.text());
        let audit = gateway.audit(answer.trace_id());
        assert_eq!((&audit["policy_decision"], &audit["error_code"]), (&json!("deny"), &json!("invalid_api_key")));
        assert!(audit["tenant_id"].is_null());
    }
    assert!(gateway.simulator.with("no-key-for-this").is_empty());
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn header_values_that_are_no_text_are_handled() {
    let gateway = gateway();
    let call = || Call::chat_json(&ask("small", "bytes in headers"));
    let refused = gateway.send(call().header("authorization", b"Bearer \xff\xfe"));
    refused.assert_refusal(401, "invalid_api_key");
    let accepted = gateway.send(call().key("sk-acme").header("x-anything", b"\xc3\x28\x80").header("cookie", b"\xff"));
    assert_eq!(accepted.status, 200);
    let task = gateway.send(call().key("sk-acme").header("x-pointsman-task", b"\xff"));
    task.assert_refusal(400, "invalid_value");
    let class = gateway.send(call().key("sk-acme").header("x-pointsman-data-class", b"\xff"));
    class.assert_refusal(400, "invalid_value");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn nothing_that_names_the_caller_reaches_a_provider() {
    let gateway = gateway();
    let mut call = Call::chat_json(&ask("small", "who am i")).key("sk-acme");
    for name in [
        "x-api-key",
        "api-key",
        "cookie",
        "forwarded",
        "via",
        "origin",
        "referer",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "openai-organization",
        "openai-project",
        "x-stainless-os",
        "x-goog-api-key",
        "anthropic-version",
        "proxy-authorization",
        "x-amzn-trace-id",
        "x-custom",
        "accept-encoding",
        "accept-language",
        "x-pointsman-task",
        "x-pointsman-provider",
        "x-pointsman-anything",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-external-address",
        "x-envoy-attempt-count",
        "x-envoy-anything",
    ] {
        call = call.header(name, if name == "x-pointsman-task" { "chat" } else { "canary" });
    }
    let call = call
        .header("user-agent", "canary")
        .header("accept", "application/json")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    for call in [call.clone(), call.http2()] {
        let answer = gateway.send(call);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = gateway.upstream(&answer);
        assert_eq!(seen.header_names(), PASSED);
        assert_eq!(seen.header("user-agent"), Some("pointsman"));
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        assert!(seen.headers.iter().all(|(_, value)| !value.contains("canary") && !value.contains("sk-")), "{seen:?}");
    }
}

/// What the body says about the caller reaches only the models that may have it, not one that names it in
/// `unsupported_params`.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_the_body_says_of_the_caller_goes_only_where_the_policy_lets_it() {
    let gateway = gateway();
    let said = json!({"user": "ann", "safety_identifier": "ann-2", "metadata": {"ticket": "7"}});
    let mut request = ask("spare", "who is it");
    request.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
    for (model, sent) in [("spare", false), ("small", true)] {
        request["model"] = model.into();
        let answer = gateway.chat("sk-acme", &request);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let body: Value = serde_json::from_slice(&gateway.upstream(&answer).body).unwrap();
        for (name, value) in said.as_object().unwrap() {
            assert_eq!(body.get(name), sent.then_some(value), "{model}: {body}");
        }
        assert!(gateway.audit(answer.trace_id())["user_id_hash"].is_string());
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn control_headers_of_envoy_and_pointsman_have_no_effect() {
    let gateway = gateway();
    let failing = json!({"status": 503});
    let spoofed = Call::chat_json(&scripted("small", &failing))
        .key("sk-acme")
        .header("x-pointsman-cluster", "plan.openai")
        .header("x-pointsman-plan", "big")
        .header("x-pointsman-provider", "openai")
        .header("x-pointsman-tenant", "clinic")
        .header("x-envoy-max-retries", "5")
        .header("x-envoy-retry-on", "5xx")
        .header("x-envoy-hedge-on-per-try-timeout", "true")
        .header("x-envoy-upstream-alt-stat-name", "spoofed")
        .header("x-envoy-decorator-operation", "spoofed")
        .header("x-envoy-original-path", "/spoofed")
        .header("x-envoy-original-host", "spoofed")
        .header("x-envoy-ip-tags", "spoofed");
    let answer = gateway.send(spoofed);
    assert_eq!(answer.status, 503, "{}", answer.text());
    let seen = gateway.upstream(&answer);
    assert_eq!((seen.provider, seen.path.as_str()), ("vllm", "/v1/chat/completions"));
    assert_eq!(gateway.audit(answer.trace_id())["tenant_id"], "acme");

    // If the gateway obeyed the timeout, this would be a 504.
    let slow = json!({"delay_headers_ms": 300});
    let hurried = Call::chat_json(&scripted("small", &slow)).key("sk-acme");
    let hurried =
        hurried.header("x-envoy-upstream-rq-timeout-ms", "1").header("x-envoy-upstream-rq-per-try-timeout-ms", "1");
    assert_eq!(gateway.send(hurried).status, 200);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_provider_gets_its_own_credential_in_its_own_header() {
    use pointsman_integration::gateway::{AZURE_SECRET, OPENAI_SECRET};
    let gateway = gateway();
    let call = |model: &str| Call::chat_json(&ask(model, "credentials")).key("sk-acme").header("x-api-key", "sk-acme");
    let of = |model: &str| gateway.upstream(&gateway.send(call(model)));
    let openai = of("big");
    assert_eq!(openai.provider, "openai");
    assert_eq!(openai.header("authorization"), Some(format!("Bearer {OPENAI_SECRET}").as_str()));
    assert_eq!((openai.header("api-key"), openai.header("x-api-key")), (None, None));
    let azure = of("regional");
    assert_eq!((azure.provider, azure.path.as_str()), ("azure", "/openai/v1/chat/completions"));
    assert_eq!((azure.header("api-key"), azure.header("authorization")), (Some(AZURE_SECRET), None));
    let vllm = of("small");
    assert_eq!((vllm.header("api-key"), vllm.header("authorization")), (None, None));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_trusted_header_names_tenant_and_user_where_the_policy_says_so() {
    let policy = "
identity: {source: header, tenant: x-jwt-tenant, user: x-jwt-sub}
providers: {vllm: {dialect: openai, local: true, data: regulated}}
models: {small: {provider: vllm, model: qwen, level: local, context: 32768, max_output_tokens: 512}}
tiers: {free: {models: [small]}}
tenants: {acme: {tier: free}, other: {tier: free}}
";
    let gateway = Gateway::start(policy);
    let call = || Call::chat_json(&ask("small", "by header"));
    let answer = gateway.send(call().header("x-jwt-tenant", "acme").header("x-jwt-sub", "user-canary-7"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let audit = gateway.audit(answer.trace_id());
    assert_eq!(audit["tenant_id"], "acme");
    assert!(audit["user_id_hash"].as_str().is_some_and(|hash| hash.len() == 16), "{audit}");
    assert_eq!(gateway.upstream(&answer).header_names().iter().filter(|name| name.starts_with("x-jwt")).count(), 0);
    for refused in
        [call(), call().header("x-jwt-tenant", "nobody"), call().header("x-jwt-tenant", ""), call().key("acme")]
    {
        gateway.send(refused).assert_refusal(401, "invalid_api_key");
    }
    assert!(!gateway.access_log().text().contains("user-canary-7"));
}
