//! State that all requests of a worker share under one policy: the policy, the worker's memory of it, its metrics, and
//! the day of its gauges.

use crate::host::Host;
use crate::lingering::LingeringStreams;
use crate::metrics::Metrics;
use crate::shared_data::HostStore;
use crate::timer::Timer;
use crate::worker_host::WorkerHost;
use pointsman_core::config::StoreKind;
use pointsman_core::ids::TenantId;
use pointsman_core::memory::{Context, WorkerMemory};
use pointsman_core::policy::Policy;
use pointsman_core::quota::redis::settlement::Unsettled;
use pointsman_core::quota::report::gauges::{self, DayRollover};
use pointsman_core::quota::users::UserTable;
use pointsman_core::telemetry::metrics::Metric;
use std::cell::RefCell;
use std::rc::Rc;

/// State that all requests share under one policy.
pub struct PolicyGeneration<H: Host> {
    host: Rc<WorkerHost<H>>,
    policy: Policy,
    memory: RefCell<WorkerMemory>,
    metrics: Metrics,
    day: RefCell<DayRollover>,
    lingering: LingeringStreams,
}

impl<H: Host> PolicyGeneration<H> {
    /// Creates the state for a policy. The gauges of all tenants become due. `timer`: the plugin's.
    pub fn new(host: &Rc<WorkerHost<H>>, policy: Policy, timer: &Rc<Timer>) -> Self {
        let mut memory = WorkerMemory::new(&policy);
        if policy.has_cache {
            memory.cache.keys.agree(&mut HostStore::new(host), policy.revision);
        }
        let mut users = UserTable::clone(&host.users.borrow());
        users.agree(&mut HostStore::new(host), policy.counting.users);
        *host.users.borrow_mut() = Rc::new(users);
        host.throttle.borrow_mut().set_all();
        Self {
            host: Rc::clone(host),
            policy,
            memory: RefCell::new(memory),
            metrics: Metrics::default(),
            day: RefCell::default(),
            lingering: LingeringStreams::new(timer),
        }
    }

    /// Returns the policy.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the streams that linger after their end.
    pub(crate) fn lingering(&self) -> &LingeringStreams {
        &self.lingering
    }

    /// Returns the worker's host and what the worker remembers of it.
    pub fn worker_host(&self) -> &Rc<WorkerHost<H>> {
        &self.host
    }

    /// Returns the worker's host.
    pub fn host(&self) -> &H {
        self.host.host()
    }

    /// Calls `act` with the policy and the worker's memory under it. `act` must not make a host call that calls back
    /// for another request.
    pub fn serve<T>(&self, act: impl FnOnce(&mut Context) -> T) -> T {
        act(&mut self.memory.borrow_mut().under(&self.policy))
    }

    /// Updates the remaining-quota gauges that are due. A new day makes all of them due. Returns the lookups to send to
    /// Redis.
    pub fn refresh_gauges(&self) -> Vec<Unsettled> {
        let (policy, now) = (&self.policy, self.host().now_ms());
        let is_new_day = self.day.borrow_mut().has_changed(&policy.counting.zone, now);
        let due = {
            let mut throttle = self.host.throttle.borrow_mut();
            if is_new_day {
                throttle.set_all();
            }
            throttle.due(now)
        };
        // A tenant may no longer have limits under this policy.
        let mut looks = Vec::new();
        let has_limits = |tenant: &TenantId| policy.quota_of(*tenant).is_some();
        for tenant in due.iter().filter_map(|tenant| policy.find_tenant(tenant)).filter(has_limits) {
            match policy.counting.store {
                StoreKind::Local => self.count(gauges::look(policy, tenant, &mut HostStore::new(&self.host))),
                StoreKind::Redis => looks.push(Unsettled::look(policy, tenant, now)),
            }
        }
        looks
    }

    /// Counts the metrics of one request. With the local store, a tenant's remaining-quota gauges are throttled.
    pub fn count_request(&self, mut metrics: Vec<(Metric, u64)>, now_ms: u64) {
        if self.policy.counting.store == StoreKind::Local {
            let mut throttle = self.host.throttle.borrow_mut();
            metrics.retain(|(metric, _)| match metric {
                Metric::QuotaRemaining { tenant, .. } => throttle.should_set(&self.policy.tenant(*tenant).name, now_ms),
                _ => true,
            });
        }
        self.count(metrics);
    }

    /// Counts the metrics that Redis reported for a tenant.
    pub fn count_report(&self, metrics: Vec<(Metric, u64)>, now_ms: u64) {
        let mut throttle = self.host.throttle.borrow_mut();
        for (metric, _) in &metrics {
            if let Metric::QuotaRemaining { tenant, .. } = metric {
                throttle.note(&self.policy.tenant(*tenant).name, now_ms);
            }
        }
        drop(throttle);
        self.count(metrics);
    }

    /// Counts metrics.
    pub fn count(&self, metrics: Vec<(Metric, u64)>) {
        let host = self.host();
        metrics.into_iter().for_each(|(metric, value)| self.metrics.add(host, &self.policy, metric, value));
    }
}
