//! The end of an exchange for its quota: what it charges, learns and counts.

use crate::exchange::Exchange;
use crate::exchange::answer::Answer;
use crate::exchange::journal::Purpose;
use crate::exchange::quota::state::Verdict;
use crate::exchange::state::Upstream;
use crate::ids::TenantId;
use crate::memory::Context;
use crate::policy::Policy;
use crate::policy::price::MicroUsd;
use crate::quota::demand;
use crate::quota::local;
use crate::quota::rate::Pace;
use crate::quota::redis::settlement::Unsettled;
use crate::quota::report::gauges;
use crate::quota::reservation::Charge;
use crate::quota::store::Store;
use crate::quota::window::Amount;
use crate::telemetry::metrics::Metric;
use crate::usage::Estimated;

impl Exchange {
    /// Whether something is, or may be, reserved, so [`Exchange::settle`] has work to do.
    pub(in crate::exchange) fn has_reserved(&self) -> bool {
        !self.quota.is_settled && (self.quota.reserved.is_some() || self.is_reservation_uncertain())
    }

    /// The exchange is over: replaces the reservation with the actual usage. Returns what to log and what Redis must be
    /// told.
    pub(in crate::exchange) fn settle(
        &mut self,
        context: &mut Context,
        store: &mut dyn Store,
    ) -> (Vec<String>, Option<Unsettled>) {
        let policy = context.policy;
        let Some((tenant, limits)) = self.caller.as_ref().and_then(|c| Some((c.tenant, policy.quota_of(c.tenant)?)))
        else {
            return (Vec::new(), None);
        };
        self.quota.is_settled = true;
        let mut reserved = self.quota.reserved.take();
        // A question without an answer may still have taken effect.
        let uncertain = if self.is_reservation_uncertain() { self.quota.held.take() } else { None };
        let held = reserved.as_mut().and_then(|reserved| reserved.remote.take()).or(uncertain);
        self.estimate_abandoned(policy, store);
        let charges = if reserved.is_some() { self.charges(policy) } else { Vec::new() };
        let moment = context.moment(store.now_ms());
        self.learn(policy, store, moment.now_ms);
        let mut lines = Vec::new();
        if let Some(reserved) = &reserved {
            let settled = local::settle(store, limits, reserved, &charges, &moment);
            lines = gauges::lines(&policy.tenant(tenant).name, &settled.crossed);
            self.quota.settled = settled;
        }
        (lines, held.map(|held| Unsettled { tenant, held: Some(held), charges, moment }))
    }

    /// Settles before the exchange ends, once nothing that counts can follow: a caller or provider that lets the
    /// connection linger must not occupy a place. Returns what to log and what Redis must be told.
    pub fn settle_early<S: Store>(&mut self, context: &mut Context, store: &mut S) -> (Vec<String>, Option<Unsettled>) {
        if self.has_reserved() { self.settle(context, store) } else { (Vec::new(), None) }
    }

    fn is_reservation_uncertain(&self) -> bool {
        self.quota.is_away || self.journal.is_uncertain(Purpose::Quota)
    }

    /// Compares the estimate with the provider's count. A cached answer says nothing about this estimate, nor does a
    /// provider that counted nothing.
    fn learn(&self, policy: &Policy, store: &mut dyn Store, now_ms: u64) {
        self.learn_rate(policy, store, now_ms);
        let served = self.routed().and_then(|routed| routed.served);
        if let (Some(input), Some(served), Some((usage, Estimated { input: false, .. }))) =
            (self.quota.input, served, self.counted())
            && self.quota.is_estimate_comparable
            && self.saved().is_none()
            && usage.input > 0
        {
            store.learn(&policy.model(served.model).name, input, usage.input);
        }
    }

    /// Measures how fast the model that answered made its output.
    fn learn_rate(&self, policy: &Policy, store: &mut dyn Store, now_ms: u64) {
        let (Some(Upstream { routed, answer, attempts, answered_ms, .. }), None) =
            (self.state.upstream(), self.saved())
        else {
            return;
        };
        let is_whole = matches!(answer, Answer::Whole { complete: true, .. });
        if let (Some(served), Some((usage, Estimated { output: false, .. }))) = (routed.served, self.counted())
            && (is_whole || answer.is_done())
        {
            let ms = answered_ms.unwrap_or(now_ms).saturating_sub(attempts.began_ms());
            let tokens = usage.output / routed.choices.max(1);
            let pace = Pace { tokens, ms, may_lower: answered_ms.is_some() };
            store.learn_rate(&policy.model(served.model).name, &pace);
        }
    }

    fn charges(&self, policy: &Policy) -> Vec<Charge> {
        let others = self.abandoned_others().iter().map(Charge::from);
        let all = self.abandoned_last().map(Charge::from).or_else(|| self.charge(policy)).into_iter().chain(others);
        let of_day = |charge: Charge| match self.quota.exempt_from_daily_tokens {
            true => Charge { used: charge.used.degraded(), ..charge },
            false => charge,
        };
        all.map(of_day).collect()
    }

    fn charge(&self, policy: &Policy) -> Option<Charge> {
        let routed = self.routed()?;
        let (usage, estimated) = self.counted()?;
        let model = routed.charged_model()?;
        let cost = self.cost_of(policy, model, &usage).map_or(MicroUsd(0), |cost| cost.usd);
        let mut used = demand::amount(&usage, cost);
        // A count of the provider stands, whatever was reserved.
        if let (Estimated { input: true, output: true }, Some(worst)) = (estimated, self.worst_case()) {
            used = used.min(worst);
        }
        Some(Charge { model, used })
    }

    /// What was reserved for the charged model, where tokens matter.
    pub(in crate::exchange) fn worst_case(&self) -> Option<Amount> {
        let model = self.routed()?.charged_model()?;
        self.quota.worst.iter().find(|(id, _)| *id == model).map(|(_, worst)| *worst)
    }

    /// The input and output tokens that were reserved for the charged model, where tokens matter.
    pub(in crate::exchange) fn reserved_tokens(&self) -> Option<(u64, u64)> {
        let (routed, worst) = (self.routed()?, self.worst_case()?);
        let model = routed.charged_model()?;
        let place = routed.plan.models.iter().position(|id| *id == model)?;
        let output = routed.most_output.get(place)?;
        Some((worst.tokens.saturating_sub(*output), (*output).min(worst.tokens)))
    }

    /// Adds the quota metrics.
    pub(in crate::exchange) fn quota_metrics(&self, tenant: TenantId, all: &mut Vec<(Metric, u64)>) {
        if let Some((verdict, reason)) = self.quota.verdict {
            all.push((
                match verdict {
                    Verdict::Rejected => Metric::QuotaRejections { tenant, reason },
                    Verdict::Degraded => Metric::QuotaDegraded { tenant, reason },
                    Verdict::Clamped => Metric::QuotaClamped { tenant, reason },
                    Verdict::Template => Metric::QuotaTemplates { tenant, reason },
                    Verdict::Shadowed => Metric::QuotaShadowed { tenant, reason },
                },
                1,
            ));
        }
        if self.quota.evicted > 0 {
            all.push((Metric::QuotaUsersEvicted { tenant }, self.quota.evicted));
        }
        gauges::count(tenant, &self.quota.settled, all);
    }
}
