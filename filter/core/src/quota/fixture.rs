//! Shared test fixtures for quotas: a store, a policy and pseudorandom numbers.

use crate::fixture;
use crate::ids::ModelId;
use crate::policy::Policy;
use crate::policy::limits::ScopeKey;
use crate::quota::rate::{Pace, Rate};
use crate::quota::reservation::Ask;
use crate::quota::store::Store;
use crate::quota::users::UserTable;
use crate::quota::window::Amount;
use crate::tokens::Correction;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::rc::Rc;

/// The shared data of one Envoy. On every third update, another worker seems to have been faster.
pub struct Shared {
    pub records: HashMap<String, Vec<u8>>,
    pub users: Rc<UserTable>,
    pub now_ms: u64,
    pub learned: Vec<(String, u64, u64)>,
    pub paces: Vec<(String, Pace)>,
    pub calls: u32,
}

impl Default for Shared {
    fn default() -> Self {
        let users = Rc::new(UserTable::new(1024));
        Self { records: HashMap::new(), users, now_ms: 0, learned: Vec::new(), paces: Vec::new(), calls: 0 }
    }
}

impl Store for Shared {
    fn update(&mut self, key: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool {
        let before = self.records.get(key).cloned().unwrap_or_default();
        self.calls += 1;
        if self.calls.is_multiple_of(3) {
            // The step saw outdated data, so it runs again.
            let _ = change(&before);
        }
        let Some(after) = change(&before) else { return false };
        self.records.insert(key.to_owned(), after);
        true
    }
    fn read(&mut self, key: &str) -> Vec<u8> {
        self.records.get(key).cloned().unwrap_or_default()
    }
    fn users(&mut self) -> Rc<UserTable> {
        Rc::clone(&self.users)
    }
    fn now_ms(&mut self) -> u64 {
        self.now_ms
    }
    fn correction(&mut self, _: &str) -> Correction {
        Correction::default()
    }
    fn learn(&mut self, model: &str, estimate: u64, counted: u64) {
        self.learned.push((model.to_owned(), estimate, counted));
    }
    fn rate(&mut self, model: &str) -> Rate {
        let paces = self.paces.iter().filter(|(of, _)| of == model);
        paces.fold(Rate::default(), |rate, (_, pace)| rate.learn(pace))
    }
    fn learn_rate(&mut self, model: &str, pace: &Pace) {
        self.paces.push((model.to_owned(), *pace));
    }
    fn unique(&mut self) -> u128 {
        u128::from(self.calls)
    }
}

/// Asks for these amounts, the largest of which counts, whatever share of a window is used.
pub fn ask<'a>(tenant: &'a str, user: &'a ScopeKey, models: &'a [(ModelId, Amount)], lease_ms: Option<u64>) -> Ask<'a> {
    Ask { tenant, user, models, lease_ms, adds_up: false, stop_at_degrade_threshold: false, is_rough: false }
}

/// 2026-01-30T00:00:00Z
pub const START: u64 = 1_769_731_200_000;

/// Returns the fixture policy with these limits in the tier of the tenant acme, and room for `users` users.
pub fn policy(limits: &Value, users: u32) -> Policy {
    let mut document = fixture::document();
    document["tiers"]["pro"]["limits"] = limits.clone();
    document["quota"] = json!({"users": users, "default_price": {"input": 1, "output": 1}});
    crate::policy::parse::from_value(&document).unwrap().1
}

/// SplitMix64 (public domain, Vigna).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}
