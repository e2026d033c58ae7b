//! Counts that all workers share: the requests in flight per model, the quotas, and the token corrections per model.

use crate::attempt_places::PlaceId;
use crate::host::Host;
use crate::worker_host::{KnownRate, WorkerHost};
use pointsman_core::quota::rate::{Pace, Rate};
use pointsman_core::quota::store::Store;
use pointsman_core::quota::users::UserTable;
use pointsman_core::routing::in_flight::{self, Full, Places, Slot};
use pointsman_core::routing::plan::Load;
use pointsman_core::store::shared_data::SharedData;
use pointsman_core::tokens::Correction;
use std::rc::Rc;

/// How long a worker reuses a token correction that it has read, in milliseconds.
const CORRECTION_MS: u64 = 1000;

fn correction_key(model: &str) -> String {
    format!("pointsman.estimate.{model}")
}

/// How long a worker reuses a rate that it has read, and the least time between two answers of a model from which it
/// learns, in milliseconds. A flood of answers teaches no more than a few.
const RATE_MS: u64 = 1000;

fn rate_key(model: &str) -> String {
    format!("pointsman.rate.{model}")
}

fn in_flight_key(model: &str) -> String {
    format!("pointsman.inflight.{model}")
}

/// The host's records, uncached.
struct Records<'a, H>(&'a H);

impl<H: Host> SharedData for Records<'_, H> {
    fn get(&mut self, name: &str) -> (Vec<u8>, u32) {
        self.0.shared(name)
    }

    fn set(&mut self, name: &str, record: &[u8], version: u32) -> bool {
        self.0.set_shared(name, record, version)
    }
}

/// Updates a record that all workers see: [`WriteCache::update`](pointsman_core::store::versions::WriteCache::update).
fn update<H: Host, T>(
    host: &WorkerHost<H>,
    name: &str,
    now_ms: u64,
    change: impl FnMut(&[u8]) -> Option<(Vec<u8>, T)>,
) -> Option<T> {
    host.written.borrow_mut().update(&mut Records(host.host()), name, now_ms, change)
}

/// One request counted against a model. End it with [`InFlightGuard::release`].
pub struct InFlightGuard {
    key: String,
    slot: Slot,
}

impl InFlightGuard {
    /// Counts one more request of `model`.
    ///
    /// # Errors
    /// [`Full`] if the model has no place for it.
    pub fn acquire<H: Host>(host: &WorkerHost<H>, model: &str, places: Places, now_ms: u64) -> Result<Self, Full> {
        let (key, mut why) = (in_flight_key(model), Full::Model);
        let acquire = |record: &[u8]| in_flight::acquire(record, now_ms, places).inspect_err(|full| why = *full).ok();
        let slot = update(host, &key, now_ms, acquire).ok_or(why)?;
        Ok(Self { key, slot })
    }

    /// Leaves the guard to both stages, which end it with [`InFlightGuard::release_shared`].
    pub(crate) fn share<H: Host>(self, host: &WorkerHost<H>) -> PlaceId {
        host.places.hold((self.key, self.slot))
    }

    /// Removes the request from the count, unless the other stage has done so.
    pub(crate) fn release_shared<H: Host>(host: &WorkerHost<H>, place: PlaceId) {
        if let Some((key, slot)) = host.places.take(place) {
            Self { key, slot }.release(host);
        }
    }

    /// Removes the request from the count.
    pub fn release<H: Host>(self, host: &WorkerHost<H>) {
        update(host, &self.key, host.host().now_ms(), |record| Some((in_flight::release(record, self.slot), ())));
    }
}

/// The host's shared data as the core uses it, and the in-flight guard that it acquired. Each serves one callback,
/// which sees one time.
pub struct HostStore<H: Host> {
    /// The request that was counted.
    pub in_flight: Option<InFlightGuard>,
    host: Rc<WorkerHost<H>>,
    now_ms: Option<u64>,
}

impl<H: Host> HostStore<H> {
    /// Creates the store of a callback that may need the time.
    pub fn new(host: &Rc<WorkerHost<H>>) -> Self {
        Self { in_flight: None, host: Rc::clone(host), now_ms: None }
    }

    /// Creates the store of a callback that knows the time already.
    pub fn at(host: &Rc<WorkerHost<H>>, now_ms: u64) -> Self {
        Self { now_ms: Some(now_ms), ..Self::new(host) }
    }

    /// Returns the time, if it has been read.
    pub fn cached_now_ms(&self) -> Option<u64> {
        self.now_ms
    }
}

impl<H: Host> Store for HostStore<H> {
    fn update(&mut self, key: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool {
        let now = self.now_ms();
        update(&self.host, key, now, |record| Some((change(record)?, ()))).is_some()
    }

    fn read(&mut self, key: &str) -> Vec<u8> {
        self.host.host().read_shared(key)
    }

    fn users(&mut self) -> Rc<UserTable> {
        Rc::clone(&self.host.users.borrow())
    }

    fn now_ms(&mut self) -> u64 {
        *self.now_ms.get_or_insert_with(|| self.host.host().now_ms())
    }

    fn correction(&mut self, model: &str) -> Correction {
        let now = self.now_ms();
        let mut known = self.host.corrections.borrow_mut();
        match known.get(model) {
            Some((correction, read_ms)) if now.saturating_sub(*read_ms) < CORRECTION_MS => *correction,
            _ => {
                let correction = Correction::decode(&self.host.host().read_shared(&correction_key(model)));
                known.insert(model.to_owned(), (correction, now));
                correction
            }
        }
    }

    fn learn(&mut self, model: &str, estimate: u64, counted: u64) {
        let known = self.correction(model);
        if known.learn(estimate, counted) == known {
            return;
        }
        let now = self.now_ms();
        let learned = update(&self.host, &correction_key(model), now, |record| {
            let learned = Correction::decode(record).learn(estimate, counted);
            Some((learned.encode().to_vec(), learned))
        });
        if let Some(learned) = learned {
            self.host.corrections.borrow_mut().insert(model.to_owned(), (learned, now));
        }
    }

    fn rate(&mut self, model: &str) -> Rate {
        let now = self.now_ms();
        let mut known = self.host.rates.borrow_mut();
        match known.get_mut(model) {
            Some(known) if now.saturating_sub(known.read_ms) < RATE_MS => known.rate,
            other => {
                let rate = Rate::decode(&self.host.host().read_shared(&rate_key(model)));
                match other {
                    Some(known) => (known.rate, known.read_ms) = (rate, now),
                    None => drop(known.insert(model.to_owned(), KnownRate { rate, read_ms: now, learned_ms: 0 })),
                }
                rate
            }
        }
    }

    fn learn_rate(&mut self, model: &str, pace: &Pace) {
        let now = self.now_ms();
        let is_early = |known: &KnownRate| now.saturating_sub(known.learned_ms) < RATE_MS;
        if self.host.rates.borrow().get(model).is_some_and(is_early) {
            return;
        }
        let known = self.rate(model);
        let learned = match known.learn(pace) == known {
            true => Some(known),
            false => update(&self.host, &rate_key(model), now, |record| {
                let learned = Rate::decode(record).learn(pace);
                Some((learned.encode().to_vec(), learned))
            }),
        };
        if let Some(rate) = learned {
            let known = KnownRate { rate, read_ms: now, learned_ms: now };
            self.host.rates.borrow_mut().insert(model.to_owned(), known);
        }
    }

    fn unique(&mut self) -> u128 {
        self.host.host().unique()
    }
}

impl<H: Host> SharedData for HostStore<H> {
    fn get(&mut self, name: &str) -> (Vec<u8>, u32) {
        let (record, version) = self.host.host().shared(name);
        self.host.written.borrow_mut().observe_version(version);
        (record, version)
    }

    fn set(&mut self, name: &str, record: &[u8], version: u32) -> bool {
        let is_set = self.host.host().set_shared(name, record, version);
        if is_set {
            self.host.written.borrow_mut().count();
        }
        is_set
    }
}

impl<H: Host> Load for HostStore<H> {
    fn acquire(&mut self, model: &str, places: Places) -> Result<(), Full> {
        let now = self.now_ms();
        self.in_flight = Some(InFlightGuard::acquire(&self.host, model, places, now)?);
        Ok(())
    }

    fn check(&mut self, model: &str, places: Places) -> Result<(), Full> {
        let record = self.host.host().read_shared(&in_flight_key(model));
        in_flight::check(&record, self.now_ms(), places)
    }
}
