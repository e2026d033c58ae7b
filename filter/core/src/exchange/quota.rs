//! The exchange's dealings with quotas: it reserves before the request goes out, and settles when all is over.

use super::{Denied, Exchange, OnRequestBody};
use crate::call::Answered;
use crate::canonical::OutputLimit;
use crate::chat_request::ChatRequest;
use crate::config::{FailureMode, StoreKind};
use crate::metrics::Metric;
use crate::policy::{ModelId, Policy, TenantId};
use crate::quota::exhausted::{exhausted, reason};
use crate::quota::ledger::{self, Ask, Charge, Grant, Refused, Reservation, Scope, Settled, Store};
use crate::quota::limits::{Exhaustion, Limits, ScopeKey};
use crate::quota::remote::{self, Held, Run};
use crate::quota::unsettled::{self, Unsettled};
use crate::quota::window::{Amount, Moment, Standing};
use crate::quota::{demand, standing};
use crate::redis::Bridge;
use crate::refusal::Refusal;
use crate::reply::Reply;
use crate::route::{self, Dropped, Plan};

/// What quotas did to a request.
#[derive(Debug, Default)]
pub(super) struct Quota {
    /// What is reserved, until it is settled.
    reserved: Option<Reservation>,
    /// Whether a degraded model serves, outside the day's tokens.
    spares_day_tokens: bool,
    /// Input tokens by estimate, uncorrected.
    input: Option<u64>,
    /// What decided, and the window.
    pub(super) verdict: Option<(Verdict, &'static str)>,
    /// Headers for the caller.
    pub(super) headers: Vec<(&'static str, String)>,
    settled: Settled,
    remote: Remote,
}

/// What was asked of Redis. Questions are asked one by one, and with each answer the request is worked out anew from its
/// start: the same questions come in the same order.
#[derive(Debug, Default)]
struct Remote {
    /// The reservation's id, the moment of the first question, and what may be reserved.
    began: Option<(String, Moment)>,
    held: Option<Held>,
    /// The answers so far, and how many of them have been used this time.
    answers: Vec<(u16, Vec<u8>)>,
    used: usize,
    /// Whether a question has not been answered yet.
    is_waiting: bool,
    /// Whether the last question had the whole script.
    had_script: bool,
    /// Whether Redis did not answer a question, so that nobody knows what it did.
    is_away: bool,
    /// How the windows of a request that was refused stand.
    standings: Vec<(Scope, Standing)>,
}

impl Quota {
    /// Takes the answer to the question that waits for one; `false` if none does.
    pub(super) fn take_answer(&mut self, answered: &Answered) -> bool {
        let remote = &mut self.remote;
        let waited = std::mem::take(&mut remote.is_waiting);
        if waited {
            remote.answers.push((answered.status, answered.body.to_vec()));
            (remote.used, remote.is_away) = (0, false);
        }
        waited
    }
}

impl Remote {
    /// Whether Redis may hold something that nobody here has taken over: a question was not answered, or its answer came
    /// when the request was not to go on any more.
    fn is_uncertain(&self) -> bool {
        self.is_waiting || self.is_away || self.used < self.answers.len()
    }

    /// The next answer, or the call that asks for it.
    fn answer(&mut self, bridge: &Bridge, run: &Run) -> Result<(u16, Vec<u8>), Denied> {
        match self.answers.get(self.used) {
            Some((status, body)) if remote::is_unknown(&Answered { status: *status, body }) && !self.had_script => {
                self.answers.truncate(self.used);
                self.had_script = true;
                self.is_waiting = true;
                Err(Denied::Call(run.call(bridge, false)))
            }
            Some(answer) => {
                self.used += 1;
                Ok(answer.clone())
            }
            None => {
                (self.is_waiting, self.had_script) = (true, false);
                Err(Denied::Call(run.call(bridge, true)))
            }
        }
    }
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
        let output = policy.output_limit_of(caller.tenant);
        // Where tokens do not matter, they are not counted.
        let matters = output.always || limits.max_input.is_some();
        let input = if matters { demand::input_tokens(request) } else { 0 };
        if !limits.counts() {
            return Ok(output);
        }
        let resilience = plan.task.map_or(&policy.resilience, |task| &policy.task(task).resilience);
        let (tenant, user) = (caller.tenant, caller.user.as_ref().map_or(ANONYMOUS, |user| user.0));
        let moment = self.moment(policy, store);
        self.quota.input = matters.then_some(input);
        let mut worst = |models: &[ModelId]| {
            let correction = |id| store.correction(&policy.model(id).name);
            demand::worst_cases(policy, limits, request, plan.task, models, input, correction)
        };
        let demands = worst(&plan.models);
        let lease_ms = Some(resilience.lease_ms());
        let name = &*policy.tenant(tenant).name;
        let ask = Ask { tenant: name, user: &user, models: &demands, lease_ms, heed_share: true };
        let refused = match self.ask(policy, limits, &ask, &moment, store)? {
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
                    let correction = |id| store.correction(&policy.model(id).name);
                    let models = &degraded.models;
                    let all = demand::worst_cases(policy, limits, request, plan.task, models, input, correction);
                    let spared = refused.is_of_days_tokens();
                    let spare = |amount: Amount| if spared { amount.degraded() } else { amount };
                    let demands: Vec<_> = all.into_iter().map(|(id, amount)| (id, spare(amount))).collect();
                    let ask = Ask { models: &demands, heed_share: false, ..ask };
                    match self.ask(policy, limits, &ask, &moment, store)? {
                        Ok(grant) => {
                            *plan = degraded;
                            self.granted(grant, plan);
                            self.quota.spares_day_tokens = spared;
                            self.quota.verdict = Some((Verdict::Degraded, window));
                            self.quota.headers.push(("x-pointsman-degraded", window.to_owned()));
                            return Ok(output);
                        }
                        // That is what the caller has to wait for: the other model would serve then.
                        Err(why) if matches!(refused, Refused::Full(..)) => {
                            return Err(self.rejected(policy, limits, store, &ask, &moment, &why));
                        }
                        Err(_) => {}
                    }
                }
                // The other model cannot serve this request. Before the wall that is no reason to refuse it.
                if matches!(refused, Refused::Share(..)) {
                    let ask = Ask { heed_share: false, ..ask };
                    match self.ask(policy, limits, &ask, &moment, store)? {
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

    /// Whether the prompt has more input tokens than the tenant may send.
    pub(super) fn check_input(&mut self, policy: &Policy, request: &ChatRequest) -> Result<(), Denied> {
        let limits = self.caller.as_ref().and_then(|caller| policy.quota_of(caller.tenant));
        let Some((limits, most)) = limits.and_then(|limits| Some((limits, limits.max_input?))) else { return Ok(()) };
        let input = demand::input_tokens(request);
        if input <= most {
            return Ok(());
        }
        if limits.shadow {
            self.quota.verdict = Some((Verdict::Shadowed, "max_input_tokens"));
            return Ok(());
        }
        Err(Refusal::TooManyInputTokens(input, most).into())
    }

    /// When the request was first looked at: the same, however often it is worked out anew.
    fn moment(&mut self, policy: &Policy, store: &mut dyn Store) -> Moment {
        let known = self.quota.remote.began.as_ref().map(|(_, moment)| *moment);
        known.unwrap_or_else(|| Moment::new(&policy.counting.zone, store.now_ms()))
    }

    /// Asks the store of the policy to reserve.
    fn ask(
        &mut self,
        policy: &Policy,
        limits: &Limits,
        ask: &Ask,
        moment: &Moment,
        store: &mut dyn Store,
    ) -> Result<Result<Grant, Refused>, Denied> {
        let (StoreKind::Redis, Some(bridge)) = (policy.counting.store, &policy.redis) else {
            return Ok(ledger::reserve(store, limits, policy.counting.users, ask, moment));
        };
        let remote = &mut self.quota.remote;
        let (id, _) = remote.began.get_or_insert_with(|| (format!("{:032x}", store.unique()), *moment));
        let id = id.clone();
        let reservation = Reservation::remote(ask, &id);
        remote.held.clone_from(&reservation.remote);
        if !remote.is_away {
            let (status, body) = remote.answer(bridge, &remote::reserve(limits, &id, ask, moment))?;
            match remote::reserved(limits, &id, ask, moment, &Answered { status, body: &body }) {
                Ok((verdict, standings)) => {
                    remote.standings = standings;
                    return Ok(verdict);
                }
                Err(_) => remote.is_away = true,
            }
        }
        Ok(match policy.counting.failure_mode {
            FailureMode::Deny if !limits.shadow => Err(Refused::Unavailable),
            FailureMode::Deny | FailureMode::Allow => Ok(Grant::unheld(reservation)),
            FailureMode::Local => {
                ledger::reserve(store, limits, policy.counting.users, ask, moment).map(|mut grant| {
                    grant.reservation.remote = reservation.remote;
                    grant
                })
            }
        })
    }

    /// Counts an answer of the cache: a request like any other, but without tokens or cost.
    pub(super) fn reserve_hit(&mut self, policy: &Policy, model: ModelId, store: &mut dyn Store) -> Result<(), Denied> {
        let Some(caller) = &self.caller else { return Err(Refusal::Internal.into()) };
        let tenant = caller.tenant;
        let Some(limits) = policy.quota_of(tenant).filter(|limits| limits.counts()) else { return Ok(()) };
        let user = caller.user.as_ref().map_or(ANONYMOUS, |user| user.0);
        let name = &*policy.tenant(tenant).name;
        let moment = self.moment(policy, store);
        let demands = [(model, Amount::new(0, 0))];
        let ask = Ask { tenant: name, user: &user, models: &demands, lease_ms: None, heed_share: false };
        match self.ask(policy, limits, &ask, &moment, store)? {
            Ok(Grant { reservation, standings, shadowed, .. }) => {
                self.quota.headers = standing::headers(&standings);
                self.shadowed(shadowed);
                self.quota.reserved = Some(reservation);
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
    ) -> Denied {
        self.quota.verdict = Some((Verdict::Rejected, reason(refused)));
        let standings = match policy.counting.store {
            StoreKind::Local => ledger::look(store, limits, policy.counting.users, ask, moment),
            StoreKind::Redis => std::mem::take(&mut self.quota.remote.standings),
        };
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
        self.shadowed(shadowed);
        self.quota.reserved = Some(reservation);
    }

    fn shadowed(&mut self, refused: Option<Refused>) {
        if let Some(refused) = refused {
            self.quota.verdict = Some((Verdict::Shadowed, reason(&refused)));
        }
    }

    /// Whether something is reserved, or may be, so that [`Exchange::settle`] has something to do.
    pub fn has_reserved(&self) -> bool {
        self.quota.reserved.is_some() || self.quota.remote.is_uncertain()
    }

    /// The exchange is over: replaces what is reserved by what was used. Returns what is to be logged, and what Redis has
    /// to be told.
    pub fn settle(&mut self, policy: &Policy, store: &mut dyn Store) -> (Vec<String>, Option<Unsettled>) {
        let Some((tenant, limits)) = self.caller.as_ref().and_then(|c| Some((c.tenant, policy.quota_of(c.tenant)?)))
        else {
            return (Vec::new(), None);
        };
        let mut reserved = self.quota.reserved.take();
        let remote = std::mem::take(&mut self.quota.remote);
        // What was asked and not answered may have been done.
        let uncertain = if remote.is_uncertain() { remote.held } else { None };
        let held = reserved.as_mut().and_then(|reserved| reserved.remote.take()).or(uncertain);
        let charge = self.charge(policy).filter(|_| reserved.is_some());
        self.learn(policy, store);
        let moment = Moment::new(&policy.counting.zone, store.now_ms());
        let mut lines = Vec::new();
        if let Some(reserved) = &reserved {
            let settled = ledger::settle(store, limits, policy.counting.users, reserved, charge, &moment);
            lines = unsettled::lines(&policy.tenant(tenant).name, &settled.crossed);
            self.quota.settled = settled;
        }
        (lines, held.map(|held| Unsettled { tenant, held, charge, moment }))
    }

    /// Compares the estimate with what the provider counted.
    fn learn(&self, policy: &Policy, store: &mut dyn Store) {
        let served = self.routed.as_ref().and_then(|routed| routed.served);
        if let (Some(input), Some(served), Some((usage, false))) = (self.quota.input, served, self.usage()) {
            let name = &policy.model(served.model).name;
            let known = store.correction(name);
            let learned = known.learn(input, usage.input);
            if known.differs(learned) {
                store.correct(name, learned);
            }
        }
    }

    /// The input of a request whose provider did not count it.
    pub(super) fn estimated_input(&self) -> Option<u64> {
        self.quota.input
    }

    fn charge(&self, policy: &Policy) -> Option<Charge> {
        let routed = self.routed.as_ref()?;
        let (usage, _) = self.usage()?;
        let model = routed.served.map(|served| served.model).or_else(|| routed.plan.models.first().copied())?;
        let used = demand::amount(policy, model, &usage);
        Some(Charge { model, used: if self.quota.spares_day_tokens { used.degraded() } else { used } })
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
        unsettled::count(tenant, &self.quota.settled, all);
    }

    /// `GET /v1/usage`: how the tenant's windows stand.
    pub fn usage_reply(&mut self, policy: &Policy, store: &mut dyn Store) -> OnRequestBody {
        let Some(caller) = &self.caller else { return OnRequestBody::Reply(self.refuse(&Refusal::Internal)) };
        let (tenant, user) = (&*policy.tenant(caller.tenant).name, caller.user.as_ref().map_or(ANONYMOUS, |u| u.0));
        let limits = policy.quota_of(caller.tenant).filter(|limits| limits.counts());
        let moment = self.moment(policy, store);
        let ask = Ask { tenant, user: &user, models: &[], lease_ms: None, heed_share: false };
        let standings = match (limits, policy.counting.store, &policy.redis) {
            (None, ..) => Vec::new(),
            (Some(limits), StoreKind::Redis, Some(bridge)) => {
                let (status, body) = match self.quota.remote.answer(bridge, &remote::look(limits, &ask, &moment)) {
                    Ok(answer) => answer,
                    Err(Denied::Call(call)) => return OnRequestBody::Call(call),
                    Err(Denied::Refusal(_) | Denied::Reply(_) | Denied::Wait) => (503, Vec::new()),
                };
                match remote::looked(limits, &ask, &moment, &Answered { status, body: &body }) {
                    Ok(standings) => standings,
                    Err(_) => {
                        let away = exhausted(policy, &Refused::Unavailable, Vec::new());
                        return OnRequestBody::Reply(self.refuse(&Refusal::Quota(Box::new(away))));
                    }
                }
            }
            (Some(limits), ..) => ledger::look(store, limits, policy.counting.users, &ask, &moment),
        };
        let body = standing::usage(policy, tenant, &standings, moment.now_ms);
        OnRequestBody::Reply(self.reply(Reply::json(body)))
    }
}
