//! Redis calls that no request waits for: settlements, retried until Redis confirms them, and reads for the gauges.

use crate::ids::TenantId;
use crate::policy::Policy;
use crate::policy::limits::ANONYMOUS;
use crate::quota::redis::script;
use crate::quota::report::gauges;
use crate::quota::reservation::{Ask, Charge, RemoteReservation};
use crate::quota::window::Moment;
use crate::telemetry::metrics::Metric;
use crate::wire::http_call::{HttpCall, HttpCallResult};
use crate::wire::redis::Failure;

/// One settlement, or one read for the gauges.
#[derive(Debug, Clone)]
pub struct Unsettled {
    pub(crate) tenant: TenantId,
    /// What is settled. `None` for a read.
    pub(crate) held: Option<RemoteReservation>,
    pub(crate) charges: Vec<Charge>,
    pub(crate) moment: Moment,
}

/// What Redis reported.
#[derive(Debug)]
pub struct Report {
    /// Lines to log.
    pub lines: Vec<String>,
    /// Metrics to record.
    pub metrics: Vec<(Metric, u64)>,
}

impl Unsettled {
    /// Creates a read of a tenant's windows, for its gauges.
    pub fn look(policy: &Policy, tenant: TenantId, now_ms: u64) -> Self {
        Self { tenant, held: None, charges: Vec::new(), moment: Moment::new(&policy.counting.zone, now_ms) }
    }

    /// Returns the HTTP call. `known`: whether Redis has seen the script.
    pub fn call(&self, policy: &Policy, known: bool) -> Option<HttpCall> {
        let limits = policy.quota_of(self.tenant)?;
        let name = &policy.tenant(self.tenant).name;
        let run = match &self.held {
            Some(held) => script::settle(limits, (name, policy.counting.users), held, &self.charges, &self.moment),
            None => script::look(limits, &self.look_id(), &nobody(name), &self.moment),
        };
        Some(run.call(policy.redis.as_ref()?, known))
    }

    /// Reads the answer to the call.
    ///
    /// # Errors
    /// [`Failure`] if the call must be repeated. A repeated settlement charges nothing twice.
    pub fn answered(&self, policy: &Policy, answered: &HttpCallResult) -> Result<Report, Failure> {
        let Some(limits) = policy.quota_of(self.tenant) else {
            return Ok(Report { lines: Vec::new(), metrics: Vec::new() });
        };
        let name = &policy.tenant(self.tenant).name;
        let zone = &policy.counting.zone;
        let Some(held) = &self.held else {
            let (statuses, _) = script::looked(limits, zone, &self.look_id(), &nobody(name), answered)?;
            return Ok(Report { lines: Vec::new(), metrics: gauges::gauges(self.tenant, &statuses) });
        };
        let settled = script::settled(limits, zone, name, held, answered)?;
        let mut metrics = Vec::new();
        gauges::count(self.tenant, &settled, &mut metrics);
        Ok(Report { lines: gauges::lines(name, &settled.crossed), metrics })
    }

    /// Returns the id of a read. Two reads for one tenant in the same millisecond share it, and their answers are
    /// interchangeable.
    fn look_id(&self) -> String {
        self.moment.now_ms.to_string()
    }

    /// Returns whether the settlement charges anything.
    pub fn charges(&self) -> bool {
        !self.charges.is_empty()
    }

    /// Returns whether Redis may have forgotten by `now_ms` that it has settled this, so that a retry could charge
    /// twice.
    pub fn is_too_old(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.moment.now_ms) / 1000 > script::REMEMBERED_S - 600
    }
}

/// Asks for the tenant only, without a user or a model.
fn nobody(tenant: &str) -> Ask<'_> {
    Ask {
        tenant,
        user: &ANONYMOUS,
        models: &[],
        lease_ms: None,
        adds_up: false,
        stop_at_degrade_threshold: false,
        is_rough: false,
    }
}
