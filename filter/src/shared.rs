//! What all requests under one policy share: the policy, its metrics, and the day that their gauges are of.

use crate::host;
use crate::load::SharedLoad;
use crate::metrics::Metrics;
use crate::unsettled;
use pointsman_core::config::StoreKind;
use pointsman_core::metrics::Metric;
use pointsman_core::policy::Policy;
use pointsman_core::quota::gauges::{self, Days};
use pointsman_core::quota::unsettled::Unsettled;
use std::cell::RefCell;
use std::rc::Rc;

/// What all requests under one policy share.
pub struct Shared {
    policy: Policy,
    metrics: Metrics,
    days: RefCell<Days>,
}

impl Shared {
    /// For one policy.
    pub fn new(policy: Policy) -> Self {
        Self { policy, metrics: Metrics::default(), days: RefCell::default() }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Brings the gauges of what is left up to date, if another day has begun.
    pub fn refresh_gauges(self: &Rc<Self>) {
        let (policy, now) = (&self.policy, host::now_ms());
        if !self.days.borrow_mut().has_changed(&policy.counting.zone, now) {
            return;
        }
        for tenant in self.metrics.gauged() {
            match policy.counting.store {
                StoreKind::Local => self.count(gauges::look(policy, tenant, &mut SharedLoad::default())),
                StoreKind::Redis => unsettled::keep(Rc::clone(self), Unsettled::look(policy, tenant, now)),
            }
        }
    }

    /// Counts.
    pub fn count(&self, metrics: Vec<(Metric, u64)>) {
        metrics.into_iter().for_each(|(metric, value)| self.metrics.add(&self.policy, metric, value));
    }
}
