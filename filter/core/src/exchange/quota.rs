//! Quotas before the request goes out: reserves the worst case, or chooses what to do instead.

use crate::config::{Abandoned, FailureMode, StoreKind};
use crate::exchange::journal::{Journal, Pending, Purpose};
use crate::exchange::quota::state::Verdict;
use crate::exchange::quota::tight::Tight;
use crate::exchange::{Exchange, NotSent, RequestStep};
use crate::ids::ModelId;
use crate::memory::Context;
use crate::outcome::refusal::Refusal;
use crate::outcome::reply::Reply;
use crate::policy::Policy;
use crate::policy::limits::{ANONYMOUS, Exhaustion, Limits};
use crate::policy::output_limit::OutputLimit;
use crate::quota::counters::Crossed;
use crate::quota::redis::script::{self, Run};
use crate::quota::report::exhausted::{exhausted, reason};
use crate::quota::report::usage;
use crate::quota::reservation::{Ask, Grant, Refused, Reservation, Scope};
use crate::quota::store::Store;
use crate::quota::window::{Amount, Moment, WindowStatus};
use crate::quota::{demand, local};
use crate::request::facts::Facts;
use crate::routing::eligibility::Ineligible;
use crate::routing::plan::{self, Plan};
use crate::wire::http_call::HttpCallResult;
use crate::wire::redis::Bridge;

impl Exchange {
    /// Reserves the plan's worst case. This may drop models from the plan or replace it.
    pub(super) fn reserve<'p>(
        &mut self,
        context: &mut Context<'p>,
        request: &Facts,
        plan: &mut Plan,
        store: &mut dyn Store,
    ) -> Result<OutputLimit<'p>, NotSent> {
        let policy = context.policy;
        let Some(caller) = &self.caller else { return Err(Refusal::Internal.into()) };
        let Some(limits) = policy.quota_of(caller.tenant) else { return Ok(OutputLimit::default()) };
        let output = policy.output_limit_of(caller.tenant, caller.user.as_ref());
        if !limits.counts() {
            return Ok(output);
        }
        let (tenant, user) = (caller.tenant, caller.user.as_ref().map_or(ANONYMOUS, |user| user.0));
        // Where tokens do not matter, skip counting them.
        let matters = limits.bounds_output();
        self.quota.is_estimate_comparable = matters && demand::is_estimate_comparable(request);
        let moment = self.moment(context, store);
        let lease_ms = Some(plan.resilience(policy).lease_ms());
        let name = &*policy.tenant(tenant).name;
        let adds_up = policy.counting.abandoned == Abandoned::WorstCase;
        // Where there is plenty of room, a quick bound does. It is given back when the request ends, unless the policy
        // then charges all of it.
        let is_local = policy.counting.store == StoreKind::Local;
        let is_rough = matters && is_local && !adds_up && !limits.shadow && limits.degrade_at.is_none();
        let input = match matters {
            true if is_rough => self.quota.rough_input(request),
            true => self.quota.input(request),
            false => 0,
        };
        let demands = self.worst_cases(policy, output, request, plan, input, store);
        let ask = Ask {
            tenant: name,
            user: &user,
            models: &demands,
            lease_ms,
            adds_up,
            stop_at_degrade_threshold: true,
            is_rough,
        };
        let mut outcome = self.ask(policy, limits, &ask, &moment, store)?;
        let (mut better, mut input) = (Vec::new(), input);
        match &outcome {
            Ok(_) if is_rough => self.quota.keep_sample(request, &moment),
            Err(why) if is_rough && why.depends_on_amount() => {
                self.quota.worst.clear();
                input = self.quota.input(request);
                better = self.worst_cases(policy, output, request, plan, input, store);
                outcome = self.ask(policy, limits, &Ask { models: &better, is_rough: false, ..ask }, &moment, store)?;
            }
            _ => {}
        }
        let ask = Ask { models: if better.is_empty() { &demands } else { &better }, is_rough: false, ..ask };
        let refused = match outcome {
            Ok(grant) => {
                self.granted(grant, plan);
                return Ok(output);
            }
            Err(refused) => refused,
        };
        let window = reason(&refused);
        let tight = Tight { policy, request, task: plan.task, output, input, ask };
        if let Some(least) = limits.clamp_to.filter(|_| refused.is_of_tokens())
            && let Some(output) = self.clamp(&tight, limits, least, window, &moment, plan, store)?
        {
            return Ok(output);
        }
        match &limits.on_exhausted {
            Exhaustion::Degrade(model) if refused.is_of_calendar() => {
                let fits = limits.shadow
                    || limits.max_input_of(*model).is_none_or(|most| self.quota.is_input_within(request, most));
                if let Some(degraded) =
                    plan::degraded(policy, plan, request, *model, policy.has_budget(tenant)).filter(|_| fits)
                {
                    let all = self.worst_cases(policy, output, request, &degraded, input, store);
                    let spare: Vec<_> = all.iter().map(|(id, amount)| (*id, amount.degraded())).collect();
                    let mut spared = refused.is_of_days_tokens();
                    let why = loop {
                        let ask =
                            Ask { models: if spared { &spare } else { &all }, stop_at_degrade_threshold: false, ..ask };
                        match self.ask(policy, limits, &ask, &moment, store)? {
                            Ok(grant) => {
                                *plan = degraded;
                                self.granted(grant, plan);
                                self.quota.exempt_from_daily_tokens = spared;
                                self.quota.verdict = Some((Verdict::Degraded, window));
                                self.quota.headers.push(("x-pointsman-degraded", window.into()));
                                return Ok(output);
                            }
                            // The day's tokens are also used up, but the other model is not charged to them.
                            Err(why) if why.is_of_days_tokens() && !spared => spared = true,
                            Err(why) => break (why, ask),
                        }
                    };
                    // Report what refused the other model: once it no longer does, the other model can serve.
                    if let (Refused::Full(..), (why, ask)) = (&refused, why) {
                        return Err(self.rejected(policy, limits, store, &ask, &moment, &why));
                    }
                }
                // The other model cannot serve this request. Below a window's hard limit, the plan's own models still
                // may.
                if matches!(refused, Refused::Share(..)) {
                    let ask = Ask { stop_at_degrade_threshold: false, ..ask };
                    match self.ask(policy, limits, &ask, &moment, store)? {
                        Ok(grant) => {
                            self.granted(grant, plan);
                            return Ok(output);
                        }
                        Err(refused) => return Err(self.rejected(policy, limits, store, &ask, &moment, &refused)),
                    }
                }
            }
            // The policy's text describes a used-up window; it would be wrong for one that is full only for a moment.
            // Nor is it used up for a request that is only too large.
            Exhaustion::Template(text)
                if refused.is_of_calendar()
                    && !refused.is_momentary()
                    && !(refused.is_of_tokens() && self.is_only_too_large(&tight, limits, &moment, store)) =>
            {
                self.quota.verdict = Some((Verdict::Template, window));
                self.tell_standings(policy, limits, store, &ask, &moment);
                let mut reply = self.dialect().template(text, request.stream, window, moment.now_ms);
                reply.headers.append(&mut self.quota.headers);
                return Err(NotSent::Reply(reply));
            }
            _ => {}
        }
        Err(self.rejected(policy, limits, store, &ask, &moment, &refused))
    }

    /// The worst case of each model in a plan.
    fn worst_cases(
        &mut self,
        policy: &Policy,
        output: OutputLimit,
        request: &Facts,
        plan: &Plan,
        input: u64,
        store: &mut dyn Store,
    ) -> Vec<(ModelId, Amount)> {
        let correction = |id| self.quota.correction(policy, store, id);
        let all = demand::worst_cases(policy, output, request, plan.task, &plan.models, input, correction);
        if input > 0 {
            self.quota.worst.extend_from_slice(&all);
        }
        all
    }

    /// Whether the prompt exceeds the input tokens that the tenant and its user may send. Models with a lower limit are
    /// dropped from the plan.
    pub(super) fn check_input(&mut self, policy: &Policy, request: &Facts, plan: &mut Plan) -> Result<(), NotSent> {
        let Some(caller) = &self.caller else { return Err(Refusal::Internal.into()) };
        let Some(limits) = policy.quota_of(caller.tenant) else { return Ok(()) };
        let most = limits.max_input(caller.user.as_ref().map(|user| &user.0));
        let of_plan = || plan.models.iter().filter_map(|id| limits.max_input_of(*id));
        if most.is_none() && of_plan().next().is_none() {
            return Ok(());
        }
        let least = most.into_iter().chain(of_plan()).min().unwrap_or_default();
        if self.quota.is_input_within(request, least) {
            return Ok(());
        }
        let input = self.quota.input(request);
        let is_too_long = |id: &ModelId| limits.max_input_of(*id).is_some_and(|most| input > most);
        let exceeded = match most.filter(|most| input > *most) {
            // The limit of the least strict model.
            None if plan.models.iter().all(is_too_long) => of_plan().max(),
            exceeded => exceeded,
        };
        match exceeded {
            Some(_) if limits.shadow => self.quota.verdict = Some((Verdict::Shadowed, "max_input_tokens")),
            Some(most) => return Err(Refusal::TooManyInputTokens(input, most).into()),
            None if limits.shadow => {}
            None => {
                plan.ineligible
                    .extend(plan.models.extract_if(.., |id| is_too_long(id)).map(|id| (id, Ineligible::Quota)));
            }
        }
        Ok(())
    }

    /// When the request was first evaluated: the same in every pass.
    fn moment(&mut self, context: &mut Context, store: &mut dyn Store) -> Moment {
        let known = self.quota.began.as_ref().map(|(_, moment)| *moment);
        known.unwrap_or_else(|| context.moment(store.now_ms()))
    }

    /// Asks the policy's store to reserve.
    pub(super) fn ask(
        &mut self,
        policy: &Policy,
        limits: &Limits,
        ask: &Ask,
        moment: &Moment,
        store: &mut dyn Store,
    ) -> Result<Result<Grant, Refused>, NotSent> {
        let (StoreKind::Redis, Some(bridge)) = (policy.counting.store, &policy.redis) else {
            return Ok(local::reserve(store, limits, ask, moment));
        };
        let id = self.quota.id(moment, store);
        let reservation = Reservation::remote(ask, &id);
        self.quota.held.clone_from(&reservation.remote);
        if !self.quota.is_away {
            let result =
                run(&mut self.journal, bridge, &script::reserve(limits, policy.counting.users, &id, ask, moment))?;
            match script::reserved(limits, &policy.counting.zone, &id, ask, &result) {
                Ok((verdict, view)) => {
                    self.quota.view.add(view);
                    return Ok(verdict);
                }
                Err(_) => self.quota.is_away = true,
            }
        }
        Ok(match policy.counting.failure_mode {
            FailureMode::Deny if !limits.shadow => Err(Refused::Unavailable),
            FailureMode::Deny | FailureMode::Allow => Ok(Grant::unheld(reservation)),
            FailureMode::Local => local::reserve(store, limits, ask, moment).map(|mut grant| {
                grant.reservation.remote = reservation.remote;
                grant
            }),
        })
    }

    /// Counts a cached answer: one request without tokens or cost.
    pub(super) fn reserve_hit(
        &mut self,
        context: &mut Context,
        model: ModelId,
        store: &mut dyn Store,
    ) -> Result<(), NotSent> {
        let policy = context.policy;
        let Some(caller) = &self.caller else { return Err(Refusal::Internal.into()) };
        let tenant = caller.tenant;
        let Some(limits) = policy.quota_of(tenant).filter(|limits| limits.counts()) else { return Ok(()) };
        let user = caller.user.as_ref().map_or(ANONYMOUS, |user| user.0);
        let name = &*policy.tenant(tenant).name;
        let moment = self.moment(context, store);
        let demands = [(model, Amount::new(0, 0))];
        let ask = Ask {
            tenant: name,
            user: &user,
            models: &demands,
            lease_ms: None,
            adds_up: false,
            stop_at_degrade_threshold: false,
            is_rough: false,
        };
        match self.ask(policy, limits, &ask, &moment, store)? {
            Ok(grant) => {
                self.take(grant);
                Ok(())
            }
            Err(refused) => Err(self.rejected(policy, limits, store, &ask, &moment, &refused)),
        }
    }

    fn rejected(
        &mut self,
        policy: &Policy,
        limits: &Limits,
        store: &mut dyn Store,
        ask: &Ask,
        moment: &Moment,
        refused: &Refused,
    ) -> NotSent {
        self.quota.verdict = Some((Verdict::Rejected, reason(refused)));
        self.tell_standings(policy, limits, store, ask, moment);
        Refusal::Quota(Box::new(exhausted(policy, refused))).into()
    }

    /// Whether the windows are those of this Envoy.
    pub(super) fn counts_locally(&self, policy: &Policy) -> bool {
        match policy.counting.store {
            StoreKind::Local => true,
            StoreKind::Redis => self.quota.is_away && policy.counting.failure_mode == FailureMode::Local,
        }
    }

    /// Sets the headers that show the windows of a refused request.
    fn tell_standings(&mut self, policy: &Policy, limits: &Limits, store: &mut dyn Store, ask: &Ask, moment: &Moment) {
        let mut view = std::mem::take(&mut self.quota.view);
        if self.counts_locally(policy) {
            view.add(local::view(store, limits, ask, moment));
        }
        self.tell(&view.statuses, &view.crossed);
    }

    /// Sets the headers that show these windows, and the budget shares that were reached.
    fn tell(&mut self, statuses: &[(Scope, WindowStatus)], crossed: &[(Scope, Crossed)]) {
        self.quota.headers = self.dialect().rate_limits(statuses, self.started_ms);
        self.quota.headers.extend(usage::alert_header(crossed));
    }

    pub(super) fn granted(&mut self, mut grant: Grant, plan: &mut Plan) {
        let full_models = std::mem::take(&mut grant.full_models);
        plan.models.retain(|id| !full_models.contains(id));
        plan.ineligible.extend(full_models.into_iter().map(|id| (id, Ineligible::Quota)));
        self.take(grant);
    }

    fn take(&mut self, grant: Grant) {
        // What an earlier question reported is not reported again.
        let mut crossed = std::mem::take(&mut self.quota.view).crossed;
        crossed.extend(grant.crossed);
        self.tell(&grant.statuses, &crossed);
        if let Some(refused) = grant.shadowed {
            self.quota.verdict = Some((Verdict::Shadowed, reason(&refused)));
        }
        self.quota.evicted += grant.evicted;
        self.quota.reserved = Some(grant.reservation);
    }

    /// Estimated input of a request whose provider did not count it.
    pub(super) fn estimated_input(&self) -> Option<u64> {
        self.quota.estimated_input()
    }

    /// `GET /v1/usage`: the tenant's windows.
    pub(super) fn usage_reply(&mut self, context: &mut Context, store: &mut dyn Store) -> RequestStep {
        let policy = context.policy;
        let Some(caller) = &self.caller else { return RequestStep::Reply(self.refuse(&Refusal::Internal)) };
        let (tenant, user) = (&*policy.tenant(caller.tenant).name, caller.user.as_ref().map_or(ANONYMOUS, |u| u.0));
        let limits = policy.quota_of(caller.tenant).filter(|limits| limits.counts());
        let moment = self.moment(context, store);
        let ask = Ask {
            tenant,
            user: &user,
            models: &[],
            lease_ms: None,
            adds_up: false,
            stop_at_degrade_threshold: false,
            is_rough: false,
        };
        let (statuses, now_ms) = match (limits, policy.counting.store, &policy.redis) {
            (None, ..) => (Vec::new(), moment.now_ms),
            (Some(limits), StoreKind::Redis, Some(bridge)) => {
                let id = self.quota.id(&moment, store);
                let result = match run(&mut self.journal, bridge, &script::look(limits, &id, &ask, &moment)) {
                    Ok(result) => result,
                    Err(Pending(call)) => return RequestStep::Call(call),
                };
                match script::looked(limits, &policy.counting.zone, &id, &ask, &result) {
                    Ok(looked) => looked,
                    Err(_) => {
                        let away = exhausted(policy, &Refused::Unavailable);
                        return RequestStep::Reply(self.refuse(&Refusal::Quota(Box::new(away))));
                    }
                }
            }
            (Some(limits), ..) => (local::look(store, limits, &ask, &moment), moment.now_ms),
        };
        let body = usage::usage(policy, tenant, &statuses, now_ms);
        RequestStep::Reply(self.reply(Reply::json(body)))
    }
}

mod settle;
pub(super) mod state;
mod tight;

/// The result of a step in Redis, which may not know the script yet.
fn run<'j>(journal: &'j mut Journal, bridge: &Bridge, run: &Run) -> Result<HttpCallResult<'j>, Pending> {
    journal.ask(Purpose::Quota, |in_full| run.call(bridge, !in_full), script::is_unknown)
}

#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod service_tier_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tight_tests;
