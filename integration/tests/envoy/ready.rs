//! When `pointsman up` says that it listens, the provider files of the repository are served, and it has named the
//! providers that are not.

use pointsman_integration::gateway::{Gateway, cluster};
use pointsman_integration::simulator::Simulator;
use serde_json::json;
use std::path::Path;

const POLICY: &str = r#"
providers:
  vllm: {dialect: openai, local: true, data: regulated}
  ollama: {dialect: openai, local: true, data: regulated}
  azure: {dialect: openai, local: true, data: regulated}
  openai: {dialect: openai, local: true, data: regulated}
models:
  a: {provider: vllm, model: x, level: local, context: 1000, max_output_tokens: 10}
  b: {provider: ollama, model: x, level: local, context: 1000, max_output_tokens: 10}
  c: {provider: azure, model: x, level: local, context: 1000, max_output_tokens: 10}
  d: {provider: openai, model: x, level: local, context: 1000, max_output_tokens: 10}
tiers:
  pro: {models: [a, b, c, d]}
tenants:
  acme: {tier: pro, keys: [<sk-acme>]}
"#;

/// Returns a provider file of the repository, at the address of its simulator.
fn shipped(simulator: &Simulator, provider: &str, port: u16) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../envoy/providers/{provider}.yaml"));
    let text = std::fs::read_to_string(path).unwrap();
    // As people write it whose model server is on their own machine.
    let here = format!("address: localhost, port_value: {}", simulator.address(provider).port());
    let there = format!("address: {provider}, port_value: {port}");
    assert!(text.contains(&there), "{text}");
    text.replace(&there, &here)
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn the_first_request_is_served_and_providers_that_cannot_serve_are_named() {
    let gateway = Gateway::start_over(POLICY, &[], |simulator| {
        simulator.health("azure", 503);
        let check = "health_checks: [{http_health_check: {path: /health}, timeout: 10s, interval: 600s, \
            no_traffic_interval: 600s, unhealthy_threshold: 1, healthy_threshold: 1}]\n\
            common_lb_config: {healthy_panic_threshold: {value: 0}}\n";
        // No server answers there.
        let resolver = "typed_dns_resolver_config: {name: envoy.network.dns_resolver.cares, typed_config: {\"@type\": \
            type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, \
            resolvers: [{socket_address: {address: 127.0.0.1, port_value: 1}}]}}\n";
        let nowhere = cluster("openai", simulator.address("openai"), "")
            .replace("type: STATIC", "type: STRICT_DNS")
            .replace("address: 127.0.0.1", "address: models.invalid")
            + resolver;
        vec![
            ("vllm", shipped(simulator, "vllm", 8000)),
            ("ollama", shipped(simulator, "ollama", 11434)),
            ("azure", cluster("azure", simulator.address("azure"), check)),
            ("openai", nowhere),
        ]
    });
    for model in ["a", "b"] {
        let answer = gateway.chat("sk-acme", &json!({"model": model, "messages": [{"role": "user", "content": "x"}]}));
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for warning in [
        "warning: provider \"azure\": no healthy host: its health check fails",
        "warning: provider \"openai\": no host: its host name does not resolve",
    ] {
        gateway.process.await_line(warning, |line| (line == warning).then_some(()));
    }
    let lines = gateway.process.lines();
    assert_eq!(lines.iter().filter(|line| line.starts_with("warning: ")).count(), 2, "{lines:?}");
    for model in ["c", "d"] {
        let answer = gateway.chat("sk-acme", &json!({"model": model, "messages": [{"role": "user", "content": "x"}]}));
        answer.assert_refusal(503, "no_healthy_provider");
    }
}
