//! What a quota check costs by itself, without the host's calls: `cargo run --release -p pointsman-core --example quota`.

#![allow(clippy::expect_used, clippy::indexing_slicing)]

use pointsman_core::load;
use pointsman_core::quota::calendar::Zone;
use pointsman_core::quota::estimate::Correction;
use pointsman_core::quota::ledger::{self, Ask, Charge, Store};
use pointsman_core::quota::window::{Amount, Moment};
use serde_json::json;
use std::time::Instant;

/// One record.
#[derive(Default)]
struct One(Vec<u8>);

impl Store for One {
    fn update(&mut self, _: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool {
        // The host hands over a copy.
        let record = self.0.clone();
        change(&record).map(|new| self.0 = new).is_some()
    }
    fn read(&mut self, _: &str) -> Vec<u8> {
        self.0.clone()
    }
    fn now_ms(&mut self) -> u64 {
        0
    }
    fn correction(&mut self, _: &str) -> Correction {
        Correction::default()
    }
    fn learn(&mut self, _: &str, _: u64, _: u64) {}
    fn unique(&mut self) -> u128 {
        0
    }
}

fn main() {
    let policy = json!({
        "identity": {"source": "header", "tenant": "x"},
        "providers": {"p": {"dialect": "openai", "data": "internal"}},
        "models": {"m": {"provider": "p", "model": "m", "tier": "local", "context": 1000, "max_output_tokens": 100,
            "price": {"input": 1, "output": 1}}},
        "tiers": {"t": {"models": ["m"], "requests_per_minute": 1_000_000_000, "tokens_per_minute": 1_000_000_000,
            "tokens_per_day": 100_000_000_000_u64, "budget_usd_per_day": 1_000_000, "budget_usd_per_month": 1_000_000,
            "concurrent": 1000}},
        "tenants": {"a": {"tier": "t"}},
    });
    let policy = load::from_value(&policy).expect("is valid").1;
    let limits = policy.quota_of(policy.find_tenant("a").expect("is there")).expect("has limits");
    let (zone, mut store) = (Zone::fixed(3600), One::default());
    let models = [(policy.find_model("m").expect("is there"), Amount::new(500, 500))];
    let ask = Ask { tenant: "a", user: &[0; 32], models: &models, lease_ms: Some(660_000), heed_share: true };
    let charge = Some(Charge { model: models[0].0, used: Amount::new(300, 300) });
    const ROUNDS: u64 = 100_000;
    let start = Instant::now();
    for round in 0..ROUNDS {
        let moment = Moment::new(&zone, 1_769_731_200_000 + round);
        let grant = ledger::reserve(&mut store, limits, 1024, &ask, &moment).expect("has room");
        let moment = Moment::new(&zone, 1_769_731_200_005 + round);
        ledger::settle(&mut store, limits, 1024, &grant.reservation, charge, &moment);
    }
    let each = start.elapsed().as_nanos() as f64 / ROUNDS as f64 / 1000.0;
    println!("reserve and settle over six windows: {each:.2} µs, a record of {} bytes", store.0.len());
}
