//! OpenAI's own clients cannot tell a cached answer from the model's.

use crate::cache::{Store, start};
use crate::unsteady::at_once;
use pointsman_integration::deadline::await_true;
use pointsman_integration::environment::load;

/// The cases answered from the cache, completely so in the second run.
const CASES: [&str; 7] = [
    "chat",
    "stream",
    "stream_with_usage",
    "tools_round_trip",
    "tools_streamed",
    "tools_streamed_with_usage",
    "json_schema",
];

/// The clients' programs name models. Here these names are tasks that cache every answer, so the second run is served
/// from the cache.
#[test]
#[ignore = "needs a real Envoy: make test"]
fn openais_own_clients_take_answers_of_the_cache() {
    let policy = "
default_task: small
cache: {max_entry_bytes: 65536}
providers:
  vllm: {dialect: openai, local: true, data: regulated}
models:
  m-small: {provider: vllm, model: qwen, level: local, context: 32768, max_output_tokens: 512}
  m-big: {provider: vllm, model: gpt, level: flagship, context: 32768, max_output_tokens: 512}
tasks:
  small: {primary: m-small, cache: {ttl: 1h, requests: any}}
  extract: {primary: m-small, cache: {ttl: 1h, requests: any}}
  big: {primary: m-big, cache: {ttl: 1h, requests: any}}
tiers:
  free: {models: [m-small]}
  pro: {models: [m-small, m-big]}
tenants:
  acme: {tier: pro, keys: [<sk-acme>]}
  frugal: {tier: free, keys: [<sk-frugal>]}
";
    let clients = [
        (pointsman_integration::environment::path("POINTSMAN_PYTHON"), "python/chat.py"),
        ("node".into(), "node/chat.mjs"),
    ];
    // The cache's other tests cover both stores.
    let both = [Store::Local, Store::Redis];
    let stores = &both[..load(1, 2) as usize];
    let cases: Vec<_> = stores.iter().flat_map(|store| clients.iter().map(move |client| (*store, client))).collect();
    at_once(cases.len(), |number| {
        let (store, (program, script)) = cases[number];
        let gateway = start(policy, store);
        let hits = || -> u64 {
            let of =
                |line: &String| line.strip_prefix("llm_cache_hits_total{")?.rsplit(' ').next()?.parse::<u64>().ok();
            gateway.metrics().iter().filter_map(of).sum()
        };
        crate::clients::say(&gateway, program, script);
        let before = hits();
        let (_, said) = crate::clients::say(&gateway, program, script);
        for case in CASES {
            assert!(said.lines().any(|line| line == format!("ok {case}")), "{store:?}: {case}: {said}");
        }
        await_true("the hits to be counted", || hits() > before + CASES.len() as u64);
    });
}
