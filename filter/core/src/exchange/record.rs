//! What remains when an exchange is over: its audit record and its metrics.

use crate::exchange::answer::Answer;
use crate::exchange::form::Form;
use crate::exchange::quota::state::Verdict;
use crate::exchange::state::{Routed, Served, State, Upstream};
use crate::exchange::{Exchange, Finished, Observer, hedge};
use crate::identity::keys::UserHash;
use crate::ids::ModelId;
use crate::memory::Context;
use crate::outcome::envoy_reply;
use crate::outcome::outcome::{Kind, Outcome};
use crate::outcome::provider_error;
use crate::policy::Policy;
use crate::policy::price::Cost;
use crate::quota::store::Store;
use crate::request::endpoint::Endpoint;
use crate::service_tier::ServedTier;
use crate::store::shared_data::SharedData;
use crate::telemetry::audit::Record;
use crate::telemetry::metrics::Metric;

impl Exchange {
    /// The exchange is over.
    pub fn finish<S: Store + SharedData>(
        mut self,
        context: &mut Context,
        shared: &mut S,
        host: &impl Observer,
    ) -> Finished {
        let ended_ms = shared.now_ms();
        self.end_upload(context);
        self.end_reception();
        if self.is_in_flight() {
            self.leave(shared, ended_ms);
        }
        if self.is_cut_off() {
            self.cut_off(&host.code_details(), host.response_code(), host.last_attempt());
        }
        self.note_end(context.policy, host);
        self.estimate_abandoned(context.policy, shared);
        let (mut log_lines, settlement) = match self.has_reserved() {
            true => self.settle(context, shared),
            false => (Vec::new(), None),
        };
        let failed = if self.has_failed_attempts() { host.failed_attempts() } else { Vec::new() };
        log_lines.extend(self.doubt_line(context.policy));
        let audit = self.audit(context.policy, &failed, ended_ms);
        let metrics = self.metrics(context.policy, &failed, ended_ms);
        for (model, why) in self.failed(context.policy, &failed) {
            if why.kind() == Kind::RefusedGateway {
                log_lines.extend(context.memory.refusals.line(context.policy, model, why, ended_ms));
            }
        }
        Finished { audit, metrics, log_lines, settlement, ended_ms }
    }

    /// Whether an attempt failed, so the model stage has left a record of it.
    pub(super) fn has_failed_attempts(&self) -> bool {
        let retried = |routed: &Routed| routed.served.is_none_or(|served| served.attempts > 1);
        let has_failed = |answer: &Answer| matches!(answer, Answer::Failed { .. });
        match &self.state {
            State::Upstream(upstream) => retried(&upstream.routed) || has_failed(&upstream.answer),
            _ => self.routed().is_some_and(retried),
        }
    }

    /// Whether the exchange broke off and only Envoy knows why.
    pub(super) fn is_cut_off(&self) -> bool {
        match &self.state {
            State::Deciding(_) => true,
            State::Upstream(upstream) => upstream.answer.is_cut_off(),
            State::Answered(_) | State::Ended { .. } => false,
        }
    }

    /// Records why the exchange broke off, from Envoy's `response.code_details`, and the last attempt, from the model
    /// stage's record.
    ///
    /// `status`: what Envoy answered, if it could.
    pub(super) fn cut_off(&mut self, details: &str, status: u16, last_attempt: Option<(usize, u32)>) {
        match &mut self.state {
            State::Upstream(upstream) => {
                let Upstream { routed, answer, .. } = &mut **upstream;
                if routed.served.is_none() {
                    let only = (routed.skips_model_stage && !provider_error::is_unasked(details)).then_some((0, 1));
                    routed.served = routed.last_attempt(last_attempt.or(only));
                }
                if let Some(why) = routed.cause(details) {
                    answer.cut_off(why, status);
                }
            }
            State::Deciding(_) => {
                // Envoy told the caller before anything was decided.
                let envoys = (status > 0).then(|| envoy_reply::outcome(status));
                if let Some(why) = envoys.or_else(|| provider_error::cause(details)) {
                    self.state = std::mem::take(&mut self.state).ended(status, why);
                }
            }
            State::Answered(_) | State::Ended { .. } => {}
        }
    }

    /// The failed attempts: those the model stage recorded, and the last one if it never answered, unless the
    /// connection to the caller ended.
    fn failed(&self, policy: &Policy, recorded: &[(usize, Outcome)]) -> Vec<(ModelId, Outcome)> {
        let Some(Upstream { routed, answer, .. }) = self.state.upstream() else { return Vec::new() };
        let model = |index: usize| routed.plan.models.get(index).copied();
        if self.is_hedged(policy) && !matches!(answer, Answer::Failed { .. }) {
            return self.failed_of_hedged(recorded, model, routed.served);
        }
        let mut all: Vec<_> = recorded.iter().filter_map(|(index, why)| Some((model(*index)?, *why))).collect();
        if let (Answer::Failed { code: Some(code), .. }, Some(served)) = (answer, routed.served)
            && !code.has_lost_caller()
            && all.len() < served.attempts as usize
        {
            all.push((served.model, routed.failed_as.unwrap_or(*code)));
        }
        all
    }

    fn time_to_first_token_ms(&self) -> Option<u64> {
        self.state.upstream().and_then(|upstream| upstream.answer.time_to_first_token_ms())
    }

    /// The audit record of an exchange that ended at `now_ms`, as a line of JSON. `failed`: the failed attempts by
    /// place in the plan, each with its reason.
    pub(super) fn audit(&self, policy: &Policy, failed: &[(usize, Outcome)], now_ms: u64) -> Vec<u8> {
        let routed = self.routed();
        let failed: Vec<_> =
            self.failed(policy, failed).into_iter().map(|(id, why)| (&*policy.model(id).name, why.code())).collect();
        let plan = self.plan();
        let ineligible = plan.map_or(&[][..], |plan| plan.ineligible.as_slice());
        let left_out: Vec<_> = ineligible.iter().map(|(id, why)| (&*policy.model(*id).name, why.word())).collect();
        let served = routed.and_then(|r| r.served);
        let usage = self.usage();
        let cost = match self.saved() {
            Some(_) => Some(Cost::default()),
            None => usage.and_then(|(usage, _)| self.cost(policy, &usage)),
        };
        let service_tier = served.and_then(|served| self.service_tier(policy, served.model));
        let abandoned: Vec<_> = self
            .abandoned_others()
            .iter()
            .map(|estimate| (&*policy.model(estimate.model).name, estimate.usage, estimate.cost))
            .collect();
        let answered = match &self.state {
            State::Answered(answered) => Some(answered),
            _ => None,
        };
        let refused = answered.is_some_and(|answered| answered.refusal.is_some());
        let caller = self.caller.as_ref();
        let tenant = caller.map(|c| policy.tenant(c.tenant));
        let user = caller.and_then(|c| c.user.as_ref()).map(UserHash::short);
        Record {
            started_ms: self.started_ms,
            trace_id: &self.trace_id,
            tenant_id: tenant.map(|t| &*t.name),
            user_id_hash: user.as_deref(),
            tier: tenant.map(|t| &*policy.tier(t.tier).name),
            endpoint: self.endpoint.word(),
            task: plan.and_then(|plan| plan.task).map(|t| &*policy.task(t).name),
            prompt_id: self.prompt.id.as_deref(),
            prompt_version: self.prompt.version.as_deref(),
            schema_version: self.prompt.schema.as_deref(),
            data_class: plan.map(|plan| plan.data.name()),
            provider: served.map(|s| &*policy.provider_of(s.model).name),
            model: served.map(|s| &*policy.model(s.model).name),
            plan: plan.map_or(Vec::new(), |plan| plan.models.iter().map(|m| &*policy.model(*m).name).collect()),
            route_reason: plan.map(|plan| plan.reason),
            left_out: &left_out,
            assembly: routed.and_then(|r| r.form.as_ref()).map(Form::word),
            stream: routed.is_some_and(|r| r.stream && !r.is_assembled()),
            status: self.state.status(),
            usage: usage.map(|(usage, _)| usage),
            usage_estimated: usage.is_some_and(|(_, estimated)| estimated),
            service_tier: service_tier.as_ref().map(ServedTier::name),
            price_estimated: cost.is_some_and(|cost| cost.is_guess),
            cost: cost.map(|cost| cost.usd),
            output_limit: self.quota.output_limit,
            abandoned: &abandoned,
            abandoned_cost: self.abandoned_cost(),
            latency_ms: now_ms.saturating_sub(self.started_ms),
            time_to_first_token_ms: self.time_to_first_token_ms(),
            cache: self.cache_record(),
            saved: self.saved(),
            retry_count: served.map_or(0, |s| s.attempts - 1),
            failed: &failed,
            fallback_used: self.is_fallback(),
            fallback_from: plan
                .filter(|_| self.is_fallback())
                .and_then(|plan| plan.models.first())
                .map(|m| &*policy.model(*m).name),
            tool_names: routed.map_or(&[], |r| &r.tool_names),
            policy_decision: match self.quota.verdict {
                _ if refused => "deny",
                Some((Verdict::Clamped, _)) => "clamp",
                Some((Verdict::Degraded, _)) => "degrade",
                Some((Verdict::Template, _)) => "template",
                Some((Verdict::Shadowed, _)) => "shadow_deny",
                // The request ended before a decision.
                None if routed.is_none() && answered.is_none() => "none",
                Some((Verdict::Rejected, _)) | None => "allow",
            },
            quota_window: self.quota.verdict.map(|(_, window)| window),
            error_code: self.state.outcome().map(Outcome::code),
        }
        .line()
    }

    /// The metrics of an exchange that is over.
    pub(super) fn metrics(&self, policy: &Policy, failed: &[(usize, Outcome)], now_ms: u64) -> Vec<(Metric, u64)> {
        let mut all = Vec::with_capacity(8);
        if self.endpoint == Endpoint::Health {
            return all;
        }
        let routed = self.routed();
        let task = self.plan().and_then(|plan| plan.task);
        let served = routed.and_then(|r| r.served);
        let tier = self.caller.as_ref().map(|c| policy.tenant(c.tenant).tier);
        let status = self.state.status().unwrap_or(0);
        all.push((Metric::Requests { tier, task, model: served.map(|s| s.model), status }, 1));
        if let Some(reason) = routed.and_then(|r| r.form.as_ref()).and_then(Form::reason) {
            all.push((Metric::NotAssembled { task, reason }, 1));
        }
        self.cache_metrics(task, &mut all);
        if let Some(caller) = &self.caller {
            self.quota_metrics(caller.tenant, &mut all);
        }
        // The record has both; no provider failed.
        let is_failure = |why: Outcome| why != hedge::CANCELLED && !self.is_callers_deadline(why);
        for (model, why) in self.failed(policy, failed).into_iter().filter(|(_, why)| is_failure(*why)) {
            if why.kind() == Kind::RefusedGateway {
                all.push((Metric::ProviderRefusedGateway { model }, 1));
            }
            all.push((Metric::ProviderErrors { model, error: why.kind().label() }, 1));
        }
        if self.saved().is_some() {
            return all;
        }
        let answer = self.state.upstream().map(|upstream| &upstream.answer);
        let (Some(routed), Some(Served { model, attempts, .. }), Some(caller)) = (routed, served, &self.caller) else {
            return all;
        };
        all.push((Metric::Latency { task, model }, now_ms.saturating_sub(self.started_ms)));
        if let Some(ms) = self.time_to_first_token_ms() {
            all.push((Metric::TimeToFirstToken { task, model }, ms));
        }
        if attempts > 1 {
            all.push((Metric::Retries { task, model }, u64::from(attempts - 1)));
        }
        if let Some(from) = routed.plan.models.first().filter(|first| **first != model) {
            all.push((Metric::Fallbacks { task, from: *from, to: model }, 1));
        }
        if let (Some(Answer::Stream(_) | Answer::Whole { .. }), Some(error)) = (answer, self.state.outcome())
            && !error.has_lost_caller()
            && is_failure(error)
        {
            all.push((Metric::ProviderErrors { model, error: error.kind().label() }, 1));
        }
        let of_answer = self.usage().map(|(usage, _)| (model, usage, self.cost(policy, &usage).map(|cost| cost.usd)));
        let of_others = self.abandoned_others().iter().map(|estimate| (estimate.model, estimate.usage, estimate.cost));
        for (model, usage, cost) in of_answer.into_iter().chain(of_others) {
            let tenant = caller.tenant;
            all.push((Metric::InputTokens { tenant, task, model }, usage.input));
            all.push((Metric::OutputTokens { tenant, task, model }, usage.output));
            all.extend(cost.map(|cost| (Metric::Cost { tenant, task, model }, cost.0)));
        }
        all
    }
}
