//! What Redis is asked when no request waits for it: a settlement, from the end of its request until Redis has said
//! that it has it; and how a tenant's windows stand.

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

/// One settlement, or one look.
#[derive(Debug, Clone)]
pub struct Unsettled {
    pub(crate) tenant: TenantId,
    /// What is settled; nothing where it is only a look.
    pub(crate) held: Option<RemoteReservation>,
    pub(crate) charge: Option<Charge>,
    pub(crate) moment: Moment,
}

/// What Redis knew of it.
#[derive(Debug)]
pub struct Report {
    /// What is to be logged.
    pub lines: Vec<String>,
    /// What is to be counted.
    pub metrics: Vec<(Metric, u64)>,
}

impl Unsettled {
    /// A look at the windows of a tenant, for its gauges.
    pub fn look(policy: &Policy, tenant: TenantId, now_ms: u64) -> Self {
        Self { tenant, held: None, charge: None, moment: Moment::new(&policy.counting.zone, now_ms) }
    }

    /// The call that settles it. `known`: whether Redis has seen the script.
    pub fn call(&self, policy: &Policy, known: bool) -> Option<HttpCall> {
        let limits = policy.quota_of(self.tenant)?;
        let name = &policy.tenant(self.tenant).name;
        let run = match &self.held {
            Some(held) => script::settle(limits, name, held, self.charge, &self.moment),
            None => script::look(limits, &self.look_id(), &nobody(name), &self.moment),
        };
        Some(run.call(policy.redis.as_ref()?, known))
    }

    /// The call has ended.
    ///
    /// # Errors
    /// [`Failure`] where it has to be asked again; that charges nothing twice.
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

    /// What a look for gauges is told by: it may be as old as another one for the same tenant in the same millisecond.
    fn look_id(&self) -> String {
        self.moment.now_ms.to_string()
    }

    /// Whether anything is charged by it.
    pub fn charges(&self) -> bool {
        self.charge.is_some()
    }

    /// Whether Redis may have forgotten by `now_ms` that it has heard of it, so that asking again could charge twice.
    pub fn is_too_old(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.moment.now_ms) / 1000 > script::REMEMBERED_S - 600
    }
}

/// Asks of the tenant only.
fn nobody(tenant: &str) -> Ask<'_> {
    Ask { tenant, user: &ANONYMOUS, models: &[], lease_ms: None, stop_at_degrade_threshold: false }
}
