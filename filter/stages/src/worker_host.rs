//! One worker's host, with what the worker remembers of the records and gauges that it writes there.

use crate::host::Host;
use pointsman_core::quota::report::gauges::GaugeThrottle;
use pointsman_core::store::quick_hash::QuickHash;
use pointsman_core::store::versions::WriteCache;
use pointsman_core::tokens::Correction;
use std::cell::RefCell;
use std::collections::HashMap;

/// What has been learned of models' tokenizers, and when that was read, in milliseconds since the Unix epoch.
pub type Corrections = HashMap<String, (Correction, u64), QuickHash>;

/// One worker's host. It outlives every policy.
pub struct WorkerHost<H> {
    host: H,
    /// Records that this worker has written.
    pub(crate) written: RefCell<WriteCache>,
    pub(crate) corrections: RefCell<Corrections>,
    /// What an older policy has left to be set, the newer one sets.
    pub(crate) throttle: RefCell<GaugeThrottle>,
}

impl<H: Host> WorkerHost<H> {
    /// With nothing remembered.
    pub fn new(host: H) -> Self {
        Self { host, written: RefCell::default(), corrections: RefCell::default(), throttle: RefCell::default() }
    }

    /// The host.
    pub fn host(&self) -> &H {
        &self.host
    }
}
