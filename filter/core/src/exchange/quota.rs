//! The exchange's dealings with quotas: it reserves before the request goes out, and settles when all is over.

use super::{Denied, Exchange};
use crate::canonical::OutputLimit;
use crate::chat_request::ChatRequest;
use crate::metrics::Metric;
use crate::policy::{Policy, TenantId};
use crate::quota::exhausted::{exhausted, reason};
use crate::quota::ledger::{self, Ask, Charge, Grant, Refused, Settled, Store};
use crate::quota::limits::{Exhaustion, Limits, ScopeKey};
use crate::quota::window::Moment;
use crate::quota::{demand, standing};
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::route::{self, Dropped, Plan};

/// What quotas did to a request.
#[derive(Debug, Default)]
pub(super) struct Quota {
    /// What is reserved, until it is settled.
    reserved: Option<ledger::Reservation>,
    /// Whether a degraded model serves.
    degraded: bool,
    /// What decided, and the window.
    pub(super) verdict: Option<(Verdict, &'static str)>,
    /// Headers for the caller.
    pub(super) headers: Vec<(&'static str, String)>,
    settled: Settled,
}

/// What a quota that is used up led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Rejected,
    Degraded,
    Template,
    Shadowed,
}

/// Users who are not named are one user.
const ANONYMOUS: ScopeKey = [0xff; 32];

impl Exchange {
    /// Reserves the plan's worst case. The plan may lose models, or become another.
    pub(super) fn reserve(
        &mut self,
        policy: &Policy,
        request: &ChatRequest,
        plan: &mut Plan,
        store: &mut dyn Store,
    ) -> Result<OutputLimit, Denied> {
        let Some(caller) = &self.caller else { return Err(Refusal::Internal.into()) };
        let Some(limits) = policy.quota_of(caller.tenant) else { return Ok(OutputLimit::default()) };
        let output = OutputLimit { most: limits.max_output, always: limits.bounds_output() };
        let input = demand::input_tokens(request);
        if let Some(most) = limits.max_input.filter(|most| input > *most) {
            return Err(Refusal::TooManyInputTokens(input, most).into());
        }
        if !limits.counts() {
            return Ok(output);
        }
        let resilience = plan.task.map_or(&policy.resilience, |task| &policy.task(task).resilience);
        let (tenant, user) = (caller.tenant, caller.user.as_ref().map_or(ANONYMOUS, |user| user.0));
        let moment = Moment::new(&policy.counting.zone, store.now_ms());
        let demands = demand::worst_cases(policy, limits, request, plan.task, &plan.models, input);
        let lease_ms = Some(resilience.lease_ms());
        let users = policy.counting.users;
        let name = &*policy.tenant(tenant).name;
        let ask = Ask { tenant: name, user: &user, models: &demands, lease_ms, heed_share: true };
        let refused = match ledger::reserve(store, limits, users, &ask, &moment) {
            Ok(grant) => {
                self.granted(grant, plan);
                return Ok(output);
            }
            Err(refused) => refused,
        };
        let window = reason(&refused);
        let is_calendar = matches!(&refused, Refused::Share(..))
            || matches!(&refused, Refused::Full(_, full) if full.window.is_calendar());
        match &limits.on_exhausted {
            Exhaustion::Degrade(model) if is_calendar => {
                if let Some(degraded) = route::degraded(policy, plan, request, *model) {
                    let all = demand::worst_cases(policy, limits, request, plan.task, &degraded.models, input);
                    let demands: Vec<_> = all.into_iter().map(|(id, amount)| (id, amount.degraded())).collect();
                    let ask = Ask { models: &demands, heed_share: false, ..ask };
                    if let Ok(grant) = ledger::reserve(store, limits, users, &ask, &moment) {
                        *plan = degraded;
                        self.granted(grant, plan);
                        self.quota.degraded = true;
                        self.quota.verdict = Some((Verdict::Degraded, window));
                        self.quota.headers.push(("x-pointsman-degraded", window.to_owned()));
                        return Ok(output);
                    }
                }
                // The other model cannot serve this request. Before the wall that is no reason to refuse it.
                if matches!(refused, Refused::Share(..)) {
                    let ask = Ask { heed_share: false, ..ask };
                    match ledger::reserve(store, limits, users, &ask, &moment) {
                        Ok(grant) => {
                            self.granted(grant, plan);
                            return Ok(output);
                        }
                        Err(refused) => return Err(self.rejected(policy, limits, store, &ask, &moment, &refused)),
                    }
                }
            }
            Exhaustion::Template(text) if is_calendar => {
                self.quota.verdict = Some((Verdict::Template, window));
                return Err(Denied::Reply(Reply::template(text, request.stream, window, moment.now_ms)));
            }
            _ => {}
        }
        Err(self.rejected(policy, limits, store, &ask, &moment, &refused))
    }

    fn rejected(
        &mut self,
        policy: &Policy,
        limits: &Limits,
        store: &mut dyn Store,
        ask: &Ask,
        moment: &Moment,
        refused: &Refused,
    ) -> Denied {
        self.quota.verdict = Some((Verdict::Rejected, reason(refused)));
        let standings = ledger::look(store, limits, policy.counting.users, ask, moment);
        let headers = standing::headers(&standings);
        Refusal::Quota(Box::new(exhausted(policy, refused, headers))).into()
    }

    fn granted(&mut self, grant: Grant, plan: &mut Plan) {
        let Grant { reservation, full_models, standings, crossed, shadowed } = grant;
        plan.models.retain(|id| !full_models.contains(id));
        plan.dropped.extend(full_models.into_iter().map(|id| (id, Dropped::Quota)));
        self.quota.headers = standing::headers(&standings);
        if let Some(alerts) = standing::alerts(&crossed) {
            self.quota.headers.push(("x-pointsman-quota-alert", alerts));
        }
        self.quota.verdict = shadowed.map(|refused| (Verdict::Shadowed, reason(&refused)));
        self.quota.reserved = Some(reservation);
    }

    /// Whether something is reserved, so that [`Exchange::settle`] has something to do.
    pub fn has_reserved(&self) -> bool {
        self.quota.reserved.is_some()
    }

    /// The exchange is over: replaces what is reserved by what was used. Returns what is to be logged.
    pub fn settle(&mut self, policy: &Policy, store: &mut dyn Store) -> Vec<String> {
        let (Some(reservation), Some(caller)) = (self.quota.reserved.take(), &self.caller) else { return Vec::new() };
        let Some(limits) = policy.quota_of(caller.tenant) else { return Vec::new() };
        let charge = self.charge(policy);
        let moment = Moment::new(&policy.counting.zone, store.now_ms());
        let settled = ledger::settle(store, limits, policy.counting.users, &reservation, charge, &moment);
        let name = &policy.tenant(caller.tenant).name;
        let line = |(window, share): (&str, u64)| {
            format!("pointsman: tenant {name} has used {}.{} % of {window}", share / 10, share % 10)
        };
        let lines = settled.crossed.iter().map(|c| line((c.window.name(), c.share))).collect();
        self.quota.settled = settled;
        lines
    }

    fn charge(&self, policy: &Policy) -> Option<Charge> {
        let routed = self.routed.as_ref()?;
        let (usage, _) = self.usage()?;
        let model = routed.served.map(|served| served.model).or_else(|| routed.plan.models.first().copied())?;
        let used = demand::amount(policy, model, &usage);
        Some(Charge { model, used: if self.quota.degraded { used.degraded() } else { used } })
    }

    /// What quotas add to the metrics.
    pub(super) fn quota_metrics(&self, tenant: TenantId, all: &mut Vec<(Metric, u64)>) {
        if let Some((verdict, reason)) = self.quota.verdict {
            all.push((
                match verdict {
                    Verdict::Rejected => Metric::QuotaRejections { tenant, reason },
                    Verdict::Degraded => Metric::QuotaDegraded { tenant, reason },
                    Verdict::Template => Metric::QuotaTemplates { tenant, reason },
                    Verdict::Shadowed => Metric::QuotaShadowed { tenant, reason },
                },
                1,
            ));
        }
        for crossed in &self.quota.settled.crossed {
            all.push((Metric::QuotaAlerts { tenant, window: crossed.window.name(), share: crossed.share }, 1));
        }
        for standing in self.quota.settled.standings.iter().filter(|standing| standing.window.is_calendar()) {
            let window = standing.window.name();
            all.push((Metric::QuotaRemaining { tenant, window }, standing.remaining()));
        }
    }

    /// `GET /v1/usage`: how the tenant's windows stand.
    pub fn usage_reply(&mut self, policy: &Policy, store: &mut dyn Store) -> Reply {
        let mut body = Vec::new();
        if let Some(caller) = &self.caller {
            let (tenant, user) = (&*policy.tenant(caller.tenant).name, caller.user.as_ref().map_or(ANONYMOUS, |u| u.0));
            let moment = Moment::new(&policy.counting.zone, store.now_ms());
            let standings = policy.quota_of(caller.tenant).map_or(Vec::new(), |limits| {
                let ask = Ask { tenant, user: &user, models: &[], lease_ms: None, heed_share: false };
                ledger::look(store, limits, policy.counting.users, &ask, &moment)
            });
            body = standing::usage(policy, tenant, &standings, moment.now_ms);
        }
        self.reply(Reply::json(body))
    }
}
