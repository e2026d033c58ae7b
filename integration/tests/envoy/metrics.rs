//! Prometheus sees requests, latency, tokens, cost, retries and fallbacks, with labels from the policy only.

use crate::standard::{POLICY, ask, scripted, streamed};
use pointsman_integration::call::Call;
use pointsman_integration::deadline::await_some;
use pointsman_integration::gateway::Gateway;
use serde_json::json;

/// Labels that Envoy before 1.40 adds, because it counts in the scope of the cluster that loaded the module first.
const ENVOYS: [&str; 2] = ["pointsman_scope=\"\"", "envoy_cluster_name="];

/// Returns the value of the series of `metric` with exactly these labels.
pub fn value(lines: &[String], metric: &str, labels: &[(&str, &str)]) -> Option<u64> {
    let mut wanted: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    wanted.sort();
    lines.iter().find_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.trim_end_matches('}').split_once('{')?;
        let ours = |label: &&str| !label.is_empty() && !ENVOYS.iter().any(|name| label.starts_with(name));
        let mut labels: Vec<_> = labels.split(',').filter(ours).map(str::to_owned).collect();
        labels.sort();
        (name == metric && labels == wanted).then(|| value.parse().ok()).flatten()
    })
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn every_metric_has_its_labels_and_counts_what_happened() {
    let gateway = Gateway::start(POLICY);
    let usage =
        json!({"prompt_tokens": 1000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 400}});
    for _ in 0..2 {
        assert_eq!(
            gateway.chat("sk-acme", &scripted("reasoning", &json!({"content": "a", "usage": usage}))).status,
            200
        );
    }
    let streamed = gateway.chat("sk-acme", &streamed("big", &json!({"content": "a", "usage": usage})));
    assert_eq!(streamed.status, 200);
    gateway.simulator.rule("openai", "metrics-fallback", &json!({"status": 503}));
    let fallback = gateway.chat("sk-acme", &ask("away", "metrics-fallback"));
    assert_eq!(fallback.status, 200);
    gateway.chat("sk-frugal", &ask("big", "a")).assert_refusal(403, "model_not_allowed");
    let failed = gateway.chat("sk-acme", &scripted("regional", &json!({"status": 500})));
    assert_eq!(failed.status, 502);
    gateway.send(Call::new("GET", "/v1/models").key("sk-nobody")).assert_refusal(401, "invalid_api_key");
    assert_eq!(gateway.send(Call::new("GET", "/healthz")).status, 200);

    let lines = gateway.metrics();
    let requests = |tier, task, provider, model, status| {
        let labels =
            [("tenant_tier", tier), ("task", task), ("provider", provider), ("model", model), ("status", status)];
        value(&lines, "llm_requests_total", &labels)
    };
    let shown = || lines.join("\n");
    assert_eq!(requests("pro", "reasoning", "openai", "big", "200"), Some(2), "{}", shown());
    assert_eq!(requests("pro", "none", "openai", "big", "200"), Some(1), "{}", shown());
    assert_eq!(requests("pro", "away", "vllm", "small", "200"), Some(1), "{}", shown());
    assert_eq!(requests("pro", "none", "azure", "regional", "502"), Some(1), "{}", shown());
    assert_eq!(requests("free", "none", "none", "none", "403"), Some(1), "{}", shown());
    assert_eq!(requests("none", "none", "none", "none", "401"), Some(1), "{}", shown());
    let of = |metric, task| value(&lines, metric, &[("tenant_id", "acme"), ("task", task), ("model", "big")]);
    assert_eq!(of("llm_input_tokens_total", "reasoning"), Some(2000), "{}", shown());
    assert_eq!(of("llm_output_tokens_total", "reasoning"), Some(200));
    assert_eq!(of("llm_estimated_cost_microusd_total", "reasoning"), Some(4400));
    assert_eq!(of("llm_estimated_cost_microusd_total", "none"), Some(2200));
    let fallbacks = [("task", "away"), ("from_model", "big"), ("to_model", "small")];
    assert_eq!(value(&lines, "llm_fallbacks_total", &fallbacks), Some(1), "{}", shown());
    let retries: Vec<_> = lines.iter().filter(|line| line.starts_with("llm_retries_total{")).collect();
    assert!(retries.len() == 1 && retries[0].contains("task=\"away\"") && retries[0].ends_with(" 1"), "{retries:?}");
    let errors = |line: &&String| line.starts_with("llm_provider_errors_total{") && line.contains("provider=\"azure\"");
    assert_eq!(lines.iter().filter(errors).count(), 1, "{}", shown());

    // Envoy merges histograms every few seconds.
    let labels = [("task", "reasoning"), ("provider", "openai"), ("model", "big")];
    let count = await_some("the histogram of latencies", || {
        value(&gateway.metrics(), "llm_latency_ms_count", &labels).filter(|count| *count > 0)
    });
    assert_eq!(count, 2);
    let labels = [("task", "none"), ("provider", "openai"), ("model", "big")];
    assert_eq!(value(&gateway.metrics(), "llm_time_to_first_token_ms_count", &labels), Some(1));
}

/// A label's value never comes from a caller, so callers cannot make Envoy's memory grow.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn callers_cannot_make_series() {
    let gateway = crate::standard::gateway();
    let mark = "label-from-outside";
    let call = || Call::chat_json(&ask(mark, "a")).key("sk-acme").header("x-pointsman-task", mark);
    gateway.send(call());
    gateway.chat("sk-acme", &ask(mark, "a"));
    gateway.chat(mark, &ask("small", "a"));
    gateway.send(Call::new("GET", &format!("/{mark}")));
    assert!(gateway.stats().keys().all(|name| !name.contains(mark)));
    assert!(!gateway.metrics().is_empty());
}
