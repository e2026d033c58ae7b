//! What one worker of the host has, over all its policies: the host itself, and what is remembered or waits.

use crate::host::Host;
use crate::parked::ParkedRequests;
use crate::settlements::SettlementQueue;
use crate::shared_data::Corrections;
use pointsman_core::quota::report::gauges::Pace;
use pointsman_core::store::versions::WriteCache;
use std::cell::RefCell;
use std::rc::Rc;

/// One worker. Each thread of the host has one, which outlives every policy.
pub struct Worker<H: Host> {
    host: H,
    /// Settlements outlive the policy under which their request was made.
    pub(crate) settlements: RefCell<SettlementQueue<H>>,
    pub(crate) parked: RefCell<ParkedRequests<H>>,
    /// Records that this worker has written.
    pub(crate) written: RefCell<WriteCache>,
    pub(crate) corrections: RefCell<Corrections>,
    /// What an older policy has left to be set, the newer one sets.
    pub(crate) pace: RefCell<Pace>,
}

impl<H: Host> Worker<H> {
    /// The worker of this host.
    pub fn new(host: H) -> Rc<Self> {
        Rc::new(Self {
            host,
            settlements: RefCell::default(),
            parked: RefCell::default(),
            written: RefCell::default(),
            corrections: RefCell::default(),
            pace: RefCell::default(),
        })
    }

    /// Its host.
    pub fn host(&self) -> &H {
        &self.host
    }
}
