//! What all requests under one policy share: the policy, its metrics, and the day that their gauges are of.

use crate::host;
use crate::metrics::Metrics;
use crate::settlements;
use crate::shared_data::SharedLoad;
use pointsman_core::config::StoreKind;
use pointsman_core::ids::TenantId;
use pointsman_core::policy::Policy;
use pointsman_core::quota::redis::settlement::Unsettled;
use pointsman_core::quota::report::gauges::{self, Days, Pace};
use pointsman_core::telemetry::metrics::Metric;
use std::cell::RefCell;
use std::rc::Rc;

/// What all requests under one policy share.
pub struct Shared {
    policy: Policy,
    metrics: Metrics,
    days: RefCell<Days>,
}

thread_local! {
    /// One for all policies of a worker: what an older one has left to be set, the newer one sets.
    static PACE: RefCell<Pace> = RefCell::default();
}

impl Shared {
    /// For one policy.
    pub fn new(policy: Policy) -> Self {
        PACE.with_borrow_mut(Pace::set_all);
        Self { policy, metrics: Metrics::default(), days: RefCell::default() }
    }

    /// The policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Brings the gauges of what is left up to date that are due; all of them, if another day has begun.
    pub fn refresh_gauges(self: &Rc<Self>) {
        let (policy, now) = (&self.policy, host::now_ms());
        let is_new_day = self.days.borrow_mut().has_changed(&policy.counting.zone, now);
        let due = PACE.with_borrow_mut(|pace| {
            if is_new_day {
                pace.set_all();
            }
            pace.due(now)
        });
        // Under this policy a tenant may have no limits any longer.
        let has_limits = |tenant: &TenantId| policy.quota_of(*tenant).is_some();
        for tenant in due.iter().filter_map(|tenant| policy.find_tenant(tenant)).filter(has_limits) {
            match policy.counting.store {
                StoreKind::Local => self.count(gauges::look(policy, tenant, &mut SharedLoad::default())),
                StoreKind::Redis => settlements::keep(Rc::clone(self), Unsettled::look(policy, tenant, now)),
            }
        }
    }

    /// Counts what one request leads to. What the local store has left to its tenant is not told with each.
    pub fn count_request(&self, mut metrics: Vec<(Metric, u64)>, now_ms: u64) {
        if self.policy.counting.store == StoreKind::Local {
            metrics.retain(|(metric, _)| match metric {
                Metric::QuotaRemaining { tenant, .. } => {
                    PACE.with_borrow_mut(|pace| pace.is_now(&self.policy.tenant(*tenant).name, now_ms))
                }
                _ => true,
            });
        }
        self.count(metrics);
    }

    /// Counts what Redis has said of a tenant.
    pub fn count_report(&self, metrics: Vec<(Metric, u64)>, now_ms: u64) {
        for (metric, _) in &metrics {
            if let Metric::QuotaRemaining { tenant, .. } = metric {
                PACE.with_borrow_mut(|pace| pace.note(&self.policy.tenant(*tenant).name, now_ms));
            }
        }
        self.count(metrics);
    }

    /// Counts.
    pub fn count(&self, metrics: Vec<(Metric, u64)>) {
        metrics.into_iter().for_each(|(metric, value)| self.metrics.add(&self.policy, metric, value));
    }
}
