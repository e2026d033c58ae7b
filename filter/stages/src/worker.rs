//! The worker, one per host thread: all state that outlives requests and policies.

use crate::host::Host;
use crate::parked::ParkedRequests;
use crate::settlements::SettlementQueue;
use crate::worker_host::WorkerHost;
use std::cell::RefCell;
use std::rc::Rc;

/// One worker. Clones share its state.
pub struct Worker<H: Host> {
    pub(crate) host: Rc<WorkerHost<H>>,
    pub(crate) settlements: Rc<SettlementQueue<H>>,
    pub(crate) parked: Rc<RefCell<ParkedRequests<H>>>,
}

impl<H: Host> Worker<H> {
    /// Creates the worker of this host.
    pub fn new(host: H) -> Self {
        Self { host: Rc::new(WorkerHost::new(host)), settlements: Rc::default(), parked: Rc::default() }
    }
}

impl<H: Host> Clone for Worker<H> {
    fn clone(&self) -> Self {
        let Self { host, settlements, parked } = self;
        Self { host: Rc::clone(host), settlements: Rc::clone(settlements), parked: Rc::clone(parked) }
    }
}
