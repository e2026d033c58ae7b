//! A host whose records all hold the same bytes, and a policy that exercises every reader of records.

use super::policy::NOW;
use pointsman_core::policy::{Policy, parse};
use pointsman_core::quota::rate::{Pace, Rate};
use pointsman_core::quota::store::Store;
use pointsman_core::quota::users::UserTable;
use pointsman_core::routing::in_flight::{self, Full, Places};
use pointsman_core::routing::plan::Load;
use pointsman_core::store::shared_data::SharedData;
use pointsman_core::tokens::Correction;
use serde_json::{Value, json};

/// The content of every record. Writes are discarded.
pub struct Host<'a>(pub &'a [u8]);

impl SharedData for Host<'_> {
    fn get(&mut self, _: &str) -> (Vec<u8>, u32) {
        (self.0.to_vec(), 7)
    }
    fn set(&mut self, _: &str, _: &[u8], _: u32) -> bool {
        true
    }
}

impl Load for Host<'_> {
    fn acquire(&mut self, _: &str, places: Places) -> Result<(), Full> {
        in_flight::acquire(self.0, NOW, places).map(drop)
    }
    fn check(&mut self, _: &str, places: Places) -> Result<(), Full> {
        in_flight::check(self.0, NOW, places)
    }
}

impl Store for Host<'_> {
    fn update(&mut self, _: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool {
        change(self.0).is_some()
    }
    fn read(&mut self, _: &str) -> Vec<u8> {
        self.0.to_vec()
    }
    fn users(&mut self) -> std::rc::Rc<UserTable> {
        std::rc::Rc::default()
    }
    fn now_ms(&mut self) -> u64 {
        NOW
    }
    fn correction(&mut self, _: &str) -> Correction {
        Correction::decode(self.0)
    }
    fn learn(&mut self, _: &str, _: u64, _: u64) {}
    fn rate(&mut self, _: &str) -> Rate {
        Rate::default()
    }
    fn learn_rate(&mut self, _: &str, _: &Pace) {}
    fn unique(&mut self) -> u128 {
        0
    }
}

/// Returns a policy with quotas and a cache, kept in `store`.
pub fn policy(store: &str) -> Policy {
    let windows = json!({
        "requests_per_minute": 60, "tokens_per_minute": 100_000, "tokens_per_day": 1_000_000,
        "budget_usd_per_day": 10, "budget_usd_per_month": 100, "concurrent": 8,
    });
    let mut limits = windows.clone();
    limits["per_user"] = windows.clone();
    limits["per_model"] = json!({"m": windows});
    limits["alert_at"] = json!([0.5, 0.9]);
    let mut document: Value = json!({
        "identity": {"source": "header", "tenant": "x-jwt-tenant"},
        "providers": {"p": {"dialect": "openai", "data": "internal"}},
        "models": {"m": {"provider": "p", "model": "m", "level": "local", "context": 32768, "max_output_tokens": 100,
            "max_concurrent": 4, "price": {"input": 1, "output": 1}}},
        "tiers": {"t": {"models": ["m"], "limits": limits}},
        "tenants": {"t": {"tier": "t"}},
        "tasks": {"k": {"primary": "m", "cache": {"ttl": "60s"}}},
        "quota": {"store": store},
        "cache": {"store": store},
    });
    if store == "redis" {
        document["redis"] = json!({"cluster": "redis"});
    }
    parse::from_value(&document).unwrap_or_else(|problems| panic!("{problems:?}")).1
}
