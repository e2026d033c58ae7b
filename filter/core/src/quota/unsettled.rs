//! A settlement that Redis has still to hear of, from the end of its request until Redis has said so.

use super::counters::Crossed;
use super::ledger::{Charge, Settled};
use super::remote::{self, Held};
use super::window::Moment;
use crate::call::{Answered, Call};
use crate::metrics::Metric;
use crate::policy::{Policy, TenantId};
use crate::redis::Failure;

/// One settlement.
#[derive(Debug, Clone)]
pub struct Unsettled {
    pub(crate) tenant: TenantId,
    pub(crate) held: Held,
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
    /// The call that settles it. `known`: whether Redis has seen the script.
    pub fn call(&self, policy: &Policy, known: bool) -> Option<Call> {
        let limits = policy.quota_of(self.tenant)?;
        let run = remote::settle(limits, &policy.tenant(self.tenant).name, &self.held, self.charge, &self.moment);
        Some(run.call(policy.redis.as_ref()?, known))
    }

    /// The call has ended.
    ///
    /// # Errors
    /// [`Failure`] where it has to be asked again; that charges nothing twice.
    pub fn answered(&self, policy: &Policy, answered: &Answered) -> Result<Report, Failure> {
        let Some(limits) = policy.quota_of(self.tenant) else {
            return Ok(Report { lines: Vec::new(), metrics: Vec::new() });
        };
        let name = &policy.tenant(self.tenant).name;
        let settled = remote::settled(limits, &policy.counting.zone, name, &self.held, answered)?;
        let mut metrics = Vec::new();
        count(self.tenant, &settled, &mut metrics);
        Ok(Report { lines: lines(name, &settled.crossed), metrics })
    }

    /// Whether Redis may have forgotten by `now_ms` that it has heard of it, so that asking again could charge twice.
    pub fn is_too_old(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.moment.now_ms) / 1000 > remote::REMEMBERED_S - 600
    }
}

/// What is logged of shares that have been used.
pub(crate) fn lines(tenant: &str, crossed: &[Crossed]) -> Vec<String> {
    let line = |c: &Crossed| {
        format!("pointsman: tenant {tenant} has used {}.{} % of {}", c.share / 10, c.share % 10, c.window.name())
    };
    crossed.iter().map(line).collect()
}

/// What is counted of a settlement.
pub(crate) fn count(tenant: TenantId, settled: &Settled, all: &mut Vec<(Metric, u64)>) {
    for crossed in &settled.crossed {
        all.push((Metric::QuotaAlerts { tenant, window: crossed.window.name(), share: crossed.share }, 1));
    }
    for standing in settled.standings.iter().filter(|standing| standing.window.is_calendar()) {
        all.push((Metric::QuotaRemaining { tenant, window: standing.window.name() }, standing.remaining()));
    }
}
