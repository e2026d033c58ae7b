//! What all workers count in shared data: how many requests each model is serving, what quotas hold, what is learned of tokenizers.

use crate::host;
use pointsman_core::quota::store::Store;
use pointsman_core::routing::in_flight::{self, Slot};
use pointsman_core::routing::plan::Load;
use pointsman_core::store::quick_hash::QuickHash;
use pointsman_core::store::shared_data::SharedData;
use pointsman_core::store::versions::Written;
use pointsman_core::tokens::Correction;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};

/// How long a worker uses what it has read of a model's tokenizer, in milliseconds.
const CORRECTION_MS: u64 = 1000;

fn correction_key(model: &str) -> String {
    format!("pointsman.estimate.{model}")
}

thread_local! {
    /// What has been learned of models' tokenizers, and when that was read.
    static CORRECTIONS: RefCell<HashMap<String, (Correction, u64), QuickHash>> = RefCell::default();
    /// Numbers that differ from worker to worker, by the host's randomness, and from request to request.
    static NUMBERS: (RandomState, Cell<u64>) = (RandomState::new(), Cell::new(0));
    /// Records that this worker has written, for all contexts.
    static WRITTEN: RefCell<Written> = RefCell::default();
}

/// The host's records as they are.
struct Host;

impl SharedData for Host {
    fn get(&mut self, name: &str) -> (Vec<u8>, u32) {
        host::versioned(name)
    }

    fn set(&mut self, name: &str, record: &[u8], version: u32) -> bool {
        host::set_versioned(name, record, version)
    }
}

/// Changes a record that all workers see: [`Written::update`].
fn update<T>(name: &str, now_ms: u64, change: impl FnMut(&[u8]) -> Option<(Vec<u8>, T)>) -> Option<T> {
    WRITTEN.with_borrow_mut(|written| written.update(&mut Host, name, now_ms, change))
}

/// One request that counts against a model. Give it back with [`Held::release`].
pub struct Held {
    key: String,
    slot: Slot,
}

fn key(model: &str) -> String {
    format!("pointsman.inflight.{model}")
}

impl Held {
    /// Counts one more request of `model`, unless `limit` are being served.
    pub fn acquire(model: &str, limit: u32, now_ms: u64) -> Option<Self> {
        let key = key(model);
        let slot = update(&key, now_ms, |record| in_flight::acquire(record, now_ms, limit))?;
        Some(Self { key, slot })
    }

    /// Takes the request out of the count.
    pub fn release(self) {
        update(&self.key, host::now_ms(), |record| Some((in_flight::release(record, self.slot), ())));
    }
}

impl Store for SharedLoad {
    fn update(&mut self, key: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool {
        update(key, self.now_ms(), |record| Some((change(record)?, ()))).is_some()
    }

    fn read(&mut self, key: &str) -> Vec<u8> {
        host::shared(key)
    }

    fn now_ms(&mut self) -> u64 {
        *self.now_ms.get_or_insert_with(host::now_ms)
    }

    fn correction(&mut self, model: &str) -> Correction {
        let now = self.now_ms();
        CORRECTIONS.with_borrow_mut(|known| match known.get(model) {
            Some((correction, read_ms)) if now.saturating_sub(*read_ms) < CORRECTION_MS => *correction,
            _ => {
                let correction = Correction::decode(&host::shared(&correction_key(model)));
                known.insert(model.to_owned(), (correction, now));
                correction
            }
        })
    }

    fn learn(&mut self, model: &str, estimate: u64, counted: u64) {
        let known = self.correction(model);
        if known.learn(estimate, counted) == known {
            return;
        }
        let now = self.now_ms();
        let learned = update(&correction_key(model), now, |record| {
            let learned = Correction::decode(record).learn(estimate, counted);
            Some((learned.encode().to_vec(), learned))
        });
        if let Some(learned) = learned {
            CORRECTIONS.with_borrow_mut(|known| known.insert(model.to_owned(), (learned, now)));
        }
    }

    fn unique(&mut self) -> u128 {
        NUMBERS.with(|(random, next)| {
            next.set(next.get().wrapping_add(1));
            u128::from(random.hash_one(0)) << 64 | u128::from(random.hash_one(1).wrapping_add(next.get()))
        })
    }
}

impl SharedData for SharedLoad {
    fn get(&mut self, name: &str) -> (Vec<u8>, u32) {
        let (record, version) = Host.get(name);
        WRITTEN.with_borrow_mut(|written| written.saw(version));
        (record, version)
    }

    fn set(&mut self, name: &str, record: &[u8], version: u32) -> bool {
        let is_set = Host.set(name, record, version);
        if is_set {
            WRITTEN.with_borrow_mut(Written::count);
        }
        is_set
    }
}

/// The counts as the routing decision asks for them; keeps what it acquired. One is for one callback, which has one time.
#[derive(Default)]
pub struct SharedLoad {
    /// The request that was counted.
    pub held: Option<Held>,
    now_ms: Option<u64>,
}

impl SharedLoad {
    /// The time, if it has been asked for.
    pub fn known_ms(&self) -> Option<u64> {
        self.now_ms
    }

    /// For a callback that knows the time already.
    pub fn at(now_ms: u64) -> Self {
        Self { held: None, now_ms: Some(now_ms) }
    }
}

impl Load for SharedLoad {
    fn acquire(&mut self, model: &str, limit: u32) -> bool {
        self.held = Held::acquire(model, limit, self.now_ms());
        self.held.is_some()
    }

    fn is_full(&mut self, model: &str, limit: u32) -> bool {
        in_flight::is_full(&host::shared(&key(model)), self.now_ms(), limit)
    }
}
