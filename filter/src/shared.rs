//! What all requests under one policy share: the policy, its metrics, and the day that their gauges are of.

use crate::host;
use crate::load::SharedLoad;
use crate::metrics::Metrics;
use crate::unsettled;
use pointsman_core::config::StoreKind;
use pointsman_core::metrics::Metric;
use pointsman_core::policy::Policy;
use pointsman_core::quota::gauges::{self, Days, Pace};
use pointsman_core::quota::unsettled::Unsettled;
use std::cell::RefCell;
use std::rc::Rc;

/// What all requests under one policy share.
pub struct Shared {
    policy: Policy,
    metrics: Metrics,
    days: RefCell<Days>,
    pace: RefCell<Pace>,
}

impl Shared {
    /// For one policy.
    pub fn new(policy: Policy) -> Self {
        Self { policy, metrics: Metrics::default(), days: RefCell::default(), pace: RefCell::default() }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Brings the gauges of what is left up to date that are due; all of them, if another day has begun.
    pub fn refresh_gauges(self: &Rc<Self>) {
        let (policy, now) = (&self.policy, host::now_ms());
        let tenants = match self.days.borrow_mut().has_changed(&policy.counting.zone, now) {
            true => self.metrics.gauged(),
            false => self.pace.borrow_mut().due(now),
        };
        for tenant in tenants {
            match policy.counting.store {
                StoreKind::Local => self.count(gauges::look(policy, tenant, &mut SharedLoad::default())),
                StoreKind::Redis => unsettled::keep(Rc::clone(self), Unsettled::look(policy, tenant, now)),
            }
        }
    }

    /// Counts what one request leads to. What the local store has left to its tenant is not told with each.
    pub fn count_request(&self, mut metrics: Vec<(Metric, u64)>, now_ms: u64) {
        metrics.retain(|(metric, _)| match (metric, self.policy.counting.store) {
            (Metric::QuotaRemaining { tenant, .. }, StoreKind::Local) => self.pace.borrow_mut().is_now(*tenant, now_ms),
            _ => true,
        });
        self.count(metrics);
    }

    /// Counts.
    pub fn count(&self, metrics: Vec<(Metric, u64)>) {
        metrics.into_iter().for_each(|(metric, value)| self.metrics.add(&self.policy, metric, value));
    }
}
