//! One tenant's share: of the cache, and of a model's places. Whatever one tenant does, the others keep theirs.

use crate::quota_gateways::{hanging, open};
use crate::standard::ask;
use pointsman_integration::deadline::await_true;
use pointsman_integration::gateway::Gateway;
use pointsman_integration::response::Open;
use serde_json::json;

const POLICY: &str = "\
cache: {memory_bytes: 1048576}
providers:
  vllm: {dialect: openai, local: true, data: regulated}
  ollama: {dialect: openai, local: true, data: regulated}
models:
  few: {provider: vllm, model: few-1, level: local, context: 32768, max_output_tokens: 512, max_concurrent: 5}
  most: {provider: vllm, model: most-1, level: local, context: 32768, max_output_tokens: 512, max_concurrent: 5,
    max_share: 0.8}
  own: {provider: vllm, model: own-1, level: local, context: 32768, max_output_tokens: 512, max_concurrent: 3}
  next: {provider: ollama, model: next-1, level: local, context: 32768, max_output_tokens: 512}
tasks:
  kept: {primary: next, cache: {ttl: 1h, requests: any}}
  spilling: {primary: few, fallback: [next]}
tiers: {all: {models: [few, most, own, next]}, some: {models: [few, most, next]}}
tenants:
  greedy: {tier: all, keys: [<sk-greedy>]}
  modest: {tier: some, keys: [<sk-modest>]}
";

fn model(open: &Open) -> &str {
    open.header("x-pointsman-model").unwrap_or_default()
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_tenant_that_fills_the_cache_evicts_its_own_answers() {
    let gateway = Gateway::start(POLICY);
    let send = |key: &str, number: usize| {
        let behavior = json!({"chunks": 4, "chunk_bytes": 1000});
        let answer = gateway.chat(key, &ask("kept", &format!("{number}: [[sim:{behavior}]]")));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.header("x-pointsman-cache").unwrap_or_default().to_owned()
    };
    let all = |key: &str, count: usize| (0..count).map(|n| send(key, n)).filter(|cache| cache == "hit").count();
    assert_eq!(all("sk-modest", 50), 0);
    // An answer is stored a moment after it has ended, and then it is a hit.
    await_true("all to be stored", || all("sk-modest", 50) == 50);
    assert_eq!(all("sk-greedy", 600), 0);
    let hits = all("sk-modest", 50);
    assert!(hits >= 45, "{hits} of 50 are left");
    // The greedy tenant uses what is left.
    let hits = (0..600).rev().take(50).map(|n| send("sk-greedy", n)).filter(|cache| cache == "hit").count();
    assert!(hits >= 30, "{hits} of the last 50");
}

#[test]
#[ignore = "needs a real Envoy: make test"]
fn a_tenant_holds_no_more_than_its_share_of_a_models_places() {
    let gateway = Gateway::start(POLICY);
    // Half of five places, rounded up. The rest of the task's requests go to the next model, as if it were full.
    let greedy: Vec<_> = (0..20).map(|_| open(&gateway, "sk-greedy", &hanging("spilling", 1))).collect();
    assert!(greedy.iter().all(|open| open.status == 200));
    let served: Vec<_> = greedy.iter().map(model).collect();
    assert_eq!(served.iter().filter(|model| **model == "few").count(), 3, "{served:?}");
    let refused = gateway.chat("sk-greedy", &ask("few", "x"));
    refused.assert_refusal(503, "model_overloaded");
    assert!(refused.text().contains("This tenant's share"), "{}", refused.text());
    assert_eq!(refused.header("retry-after"), Some("1"));
    let audit = gateway.audit(refused.trace_id());
    assert_eq!(audit["left_out"], json!([{"model": "few", "reason": "tenant_share"}]), "{audit}");
    // The others find places, until the model is full.
    let modest: Vec<_> = (0..3).map(|_| open(&gateway, "sk-modest", &hanging("spilling", 1))).collect();
    assert_eq!(modest.iter().map(model).collect::<Vec<_>>(), ["few", "few", "next"]);
    let refused = gateway.chat("sk-modest", &ask("few", "x"));
    refused.assert_refusal(503, "model_overloaded");
    assert!(refused.text().contains("busy"), "{}", refused.text());
    drop((greedy, modest));
    await_true("all places to be free", || {
        let all: Vec<_> = (0..4).map(|_| open(&gateway, "sk-greedy", &hanging("few", 1))).collect();
        all.iter().map(|open| open.status).collect::<Vec<_>>() == [200, 200, 200, 503]
    });
    // A share that the policy sets, and a model that no other tenant may use.
    for (name, places) in [("most", 4), ("own", 3)] {
        let all: Vec<_> = (0..5).map(|_| open(&gateway, "sk-greedy", &hanging(name, 1))).collect();
        assert_eq!(all.iter().filter(|open| open.status == 200).count(), places, "{name}");
    }
}
