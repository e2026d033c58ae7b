//! A policy change is applied without a restart. An invalid policy is refused with the place of its mistake, and the
//! old one stays in force.

use crate::standard::{POLICY, ask, streamed};
use pointsman_integration::call::Call;
use pointsman_integration::clock::Stopwatch;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::{AZURE_SECRET, Gateway, Setup};
use pointsman_integration::raw::Connection;
use serde_json::json;
use std::time::Duration;

/// Waits for `pointsman up` to print this after `seen` lines.
fn await_word(gateway: &Gateway, seen: usize, word: &str) -> String {
    gateway.process.await_line_after(seen, word, |line| line.starts_with(word).then(|| line.to_owned())).1
}

/// Replaces the policy and waits until it is applied.
fn apply(gateway: &Gateway, policy: &str) {
    let seen = gateway.process.lines().len();
    gateway.replace_policy(policy);
    await_word(gateway, seen, "policy applied");
}

/// Waits until `pointsman up` has checked what it can remove, as it does after each policy that it applies.
fn looks_around(gateway: &Gateway, policy: &str) {
    for time in 0..2 {
        apply(gateway, &format!("{policy}\n# the same again: {time}\n"));
    }
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_new_model_task_and_tenant_are_served_while_an_old_stream_goes_on() {
    let gateway = Gateway::start(POLICY);
    for model in ["fresh", "fresh-task"] {
        gateway.chat("sk-acme", &ask(model, "too early")).assert_refusal(404, "model_not_found");
    }
    let slow = json!({"content": "one two three four five six seven eight nine ten", "chunk_ms": 300});
    let mut open = Call::chat_json(&streamed("big", &slow)).key("sk-acme").open(gateway.address);
    let trace_id = open.trace_id();
    open.read_until("one");

    // azure before ollama: no plan of the old policy has this order.
    let models = "  fresh: {provider: ollama, model: fresh-1, level: local, context: 32768, max_output_tokens: 512}\n\n\
        tasks:\n  fresh-task: {primary: regional, fallback: [fresh]}\n";
    let new = POLICY
        .replacen("\ntasks:\n", models, 1)
        .replace("small, spare, strict", "small, fresh, spare, strict")
        .replace("\ntenants:\n", "\ntenants:\n  newcomer: {tier: pro, keys: [<sk-newcomer>]}\n");
    apply(&gateway, &new);
    // Each worker applies the new policy on its own, at almost the same time as the other.
    await_true("the new model to be served", || gateway.chat("sk-acme", &ask("fresh", "now")).status == 200);
    await_true("both workers to know it", || {
        (0..20).all(|_| gateway.chat("sk-newcomer", &ask("fresh", "now")).status == 200)
    });
    gateway.simulator.rule("azure", "fresh-fallback", &json!({"status": 503}));
    let answer = gateway.chat("sk-newcomer", &ask("fresh-task", "fresh-fallback"));
    assert_eq!((answer.status, answer.header("x-pointsman-model")), (200, Some("fresh")), "{}", answer.text());

    let rest = open.finish();
    assert!(rest.complete && rest.text().contains("ten") && rest.text().contains("[DONE]"), "{}", rest.text());
    let audit = gateway.audit(&trace_id);
    assert_eq!((&audit["model"], &audit["error_code"]), (&json!("big"), &serde_json::Value::Null), "{audit}");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn an_invalid_policy_is_refused_with_its_place_and_the_next_valid_one_is_taken() {
    let gateway = Gateway::start(POLICY);
    for (broken, place) in [
        (POLICY.replace("acme: {tier: pro", "acme: {tier: gold"), "tenants.acme.tier"),
        (POLICY.replace("primary: small, fallback: [big]", "primary: smal, fallback: [big]"), "tasks.chat.primary"),
        (POLICY.replace("max_nesting", "max_nestng"), "max_nestng"),
        ("providers: [".to_owned(), "policy.yaml"),
        (
            POLICY
                .replace("  dead: {dialect: openai", "  lost: {dialect: openai")
                .replace("provider: dead", "provider: lost"),
            "lost",
        ),
    ] {
        assert_ne!(broken, POLICY);
        let seen = gateway.process.lines().len();
        gateway.replace_policy(&broken);
        let said = await_word(&gateway, seen, "policy rejected, still serving the previous one: ");
        assert!(said.contains(place), "{place}: {said}");
        assert_eq!(gateway.chat("sk-acme", &ask("chat", "still there")).status, 200);
    }
    apply(&gateway, &POLICY.replace("acme: {tier: pro", "acme: {tier: free"));
    await_true("the tier to be lowered", || (0..20).all(|_| gateway.chat("sk-acme", &ask("big", "a")).status == 403));
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_key_that_is_taken_away_is_refused_at_once() {
    let gateway = Gateway::start(POLICY);
    assert_eq!(gateway.chat("sk-acme-second", &ask("small", "a")).status, 200);
    apply(&gateway, &POLICY.replace(", <sk-acme-second>", ""));
    await_true("the key to be refused", || {
        (0..20).all(|_| gateway.chat("sk-acme-second", &ask("small", "a")).status == 401)
    });
    assert_eq!(gateway.chat("sk-acme", &ask("small", "a")).status, 200);
}

/// The first model hangs for longer than clusters were once kept. Then its fallback is needed, along a plan and at a
/// provider that the new policy does not have.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_request_under_way_keeps_its_fallback_although_the_new_policy_has_neither_plan_nor_provider() {
    let without = |name: &str, text: &str| -> String {
        text.lines().filter(|line| !line.starts_with(&format!("  {name}:"))).map(|line| format!("{line}\n")).collect()
    };
    // Without the provider, its model and its task.
    let (_, rest) = POLICY.split_once("  spare:\n").expect("it has this model");
    let (spare, _) = rest.split_once("  strict:\n").expect("it has the next one");
    let new = POLICY.replace(&format!("  spare:\n{spare}"), "").replace("[spare, big]", "[big]").replace("spare, ", "");
    let new = new.replace("[small, spare]}", "[small]}");
    let new = without("two-local", &without("ollama", &new));

    let stopwatch = Stopwatch::new();
    let setup = Setup { stopwatch: Some(&stopwatch), ..Setup::default() };
    let gateway = Gateway::start_as(POLICY, &setup, |_| Vec::new());
    gateway.simulator.rule("vllm", "hangs-a-while", &json!({"hold": "a-while", "status": 503}));
    let document = ask("two-local", "hangs-a-while").to_string();
    let mut waiting = Connection::to(gateway.address);
    waiting.send(format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-acme\r\ncontent-length: {}\r\n\r\n\
         {document}",
        document.len()
    ));
    gateway.simulator.await_request("hangs-a-while", "to be under way", |_| true);
    apply(&gateway, &new);
    await_true("the new policy to serve", || gateway.chat("sk-acme", &ask("spare", "b")).status == 404);
    stopwatch.set_ahead(Duration::from_secs(36));
    looks_around(&gateway, &new);
    gateway.simulator.release("a-while");
    let answer = waiting.response();
    assert_eq!((answer.status, answer.header("x-pointsman-model")), (200, Some("spare")), "{}", answer.text());
    assert_eq!(answer.header("x-pointsman-attempts"), Some("2"));
}

/// A policy's clusters stay for as long as a request that began under it may last: an upload of five minutes, plus its
/// own timeout.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn what_only_an_old_policy_had_is_taken_away_once_its_longest_request_is_over() {
    let short = |policy: &str| format!("{policy}\nresilience: {{request_timeout: 1s}}\n");
    let stopwatch = Stopwatch::new();
    let setup = Setup { stopwatch: Some(&stopwatch), ..Setup::default() };
    let gateway = Gateway::start_as(&short(POLICY), &setup, |_| Vec::new());
    let has_plan = || gateway.stats().keys().any(|name| name.starts_with("cluster.plan_vllm+ollama."));
    assert!(has_plan());
    let new =
        POLICY.replace("fallback: [spare]", "fallback: [big]").replace("fallback: [spare, big]", "fallback: [big]");
    apply(&gateway, &short(&new));
    stopwatch.set_ahead(Duration::from_secs(300));
    looks_around(&gateway, &short(&new));
    assert!(has_plan(), "an upload may take so long");
    stopwatch.set_ahead(Duration::from_secs(370));
    await_true("the plan to be gone", || !has_plan());
    assert_eq!(gateway.chat("sk-acme", &ask("chat", "after")).status, 200);
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_providers_key_is_exchanged_without_a_request_that_fails() {
    let gateway = Gateway::start(POLICY);
    gateway.simulator.rule("openai", "by-its-plan", &json!({"status": 503}));
    // As a direct request, along its own cluster, and as a fallback, along the cluster of a plan.
    let keys = || {
        [ask("regional", "alone"), ask("hosted", "by-its-plan")].map(|request| {
            let answer = gateway.chat("sk-acme", &request);
            assert_eq!(
                (answer.status, answer.header("x-pointsman-model")),
                (200, Some("regional")),
                "{}",
                answer.text()
            );
            let seen = gateway.simulator.of(answer.trace_id());
            seen.last().and_then(|seen| seen.header("api-key")).map(str::to_owned)
        })
    };
    let both = |key: &str| [Some(key.to_owned()), Some(key.to_owned())];
    assert_eq!(keys(), both(AZURE_SECRET));
    gateway.replace_azure_key("the-next-key-of-azure");
    // Each worker applies the key on its own.
    await_true("the new key", || (0..10).all(|_| keys() == both("the-next-key-of-azure")));
}
