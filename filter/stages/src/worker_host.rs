//! The host of one worker, with what the worker remembers of the records and gauges that it writes.

use crate::attempt_places::AttemptPlaces;
use crate::host::Host;
use pointsman_core::quota::rate::Rate;
use pointsman_core::quota::report::gauges::GaugeThrottle;
use pointsman_core::quota::users::UserTable;
use pointsman_core::store::quick_hash::QuickHash;
use pointsman_core::store::versions::WriteCache;
use pointsman_core::tokens::Correction;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The token correction of each model, and when it was read, in milliseconds since the Unix epoch.
pub type Corrections = HashMap<String, (Correction, u64), QuickHash>;

/// How fast each model makes output, and when that was read and learned, in milliseconds since the Unix epoch.
pub type Rates = HashMap<String, KnownRate, QuickHash>;

/// What a worker remembers of a model's rate.
#[derive(Debug, Clone, Copy)]
pub struct KnownRate {
    pub(crate) rate: Rate,
    pub(crate) read_ms: u64,
    pub(crate) learned_ms: u64,
}

/// The host of one worker. It outlives every policy.
pub struct WorkerHost<H> {
    host: H,
    /// Records that this worker has written.
    pub(crate) written: RefCell<WriteCache>,
    pub(crate) corrections: RefCell<Corrections>,
    /// Where users are counted. Outlives policies: a request that began under an older one is counted where the newest
    /// one counts.
    pub(crate) users: RefCell<Rc<UserTable>>,
    pub(crate) places: AttemptPlaces,
    pub(crate) rates: RefCell<Rates>,
    /// Outlives policies: a newer policy sets the gauges that an older one left due.
    pub(crate) throttle: RefCell<GaugeThrottle>,
}

impl<H: Host> WorkerHost<H> {
    /// Creates a host with nothing remembered.
    pub fn new(host: H) -> Self {
        Self {
            host,
            written: RefCell::default(),
            corrections: RefCell::default(),
            users: RefCell::default(),
            places: AttemptPlaces::default(),
            rates: RefCell::default(),
            throttle: RefCell::default(),
        }
    }

    /// Returns the host.
    pub fn host(&self) -> &H {
        &self.host
    }
}
