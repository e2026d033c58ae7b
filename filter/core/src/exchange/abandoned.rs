//! Attempts that were abandoned before anything of their answer was seen: what each is charged, as an estimate.
//!
//! The caller left, or a timeout or deadline passed, or another attempt of a hedged request answered first. The
//! provider may have worked on such an attempt all the same. One that the provider refused, or that never reached it,
//! costs nothing.

use crate::config::Abandoned;
use crate::exchange::abandoned::state::{Estimate, Estimates};
use crate::exchange::answer::Answer;
use crate::exchange::state::Upstream;
use crate::exchange::{Exchange, Observer};
use crate::ids::ModelId;
use crate::outcome::outcome::Outcome;
use crate::policy::Policy;
use crate::policy::price::MicroUsd;
use crate::quota::demand;
use crate::quota::store::Store;
use crate::routing::begun::End;
use crate::usage::{Usage, input_tokens};

/// By how much Envoy's timers and the clock may differ, in milliseconds.
const TOLERANCE_MS: u64 = 20;

impl Exchange {
    /// Notes which attempts were abandoned. Only the host knows, and not for long. `answered`: the number of the
    /// attempt that answers; `None` if none does.
    pub(super) fn note_attempts(&mut self, policy: &Policy, host: &impl Observer, answered: Option<u32>) {
        let is_given_up = answered.is_none() && self.is_given_up(policy);
        let is_hedged = self.is_hedged(policy);
        let Some(Upstream { routed, attempts, .. }) = self.state.upstream_mut() else { return };
        if attempts.are_noted || policy.counting.abandoned == Abandoned::Prompt && !is_given_up {
            return;
        }
        attempts.are_noted = true;
        let now_ms = host.now_ms();
        if routed.skips_model_stage {
            let ran_ms = now_ms.saturating_sub(attempts.sent_ms);
            attempts.last_ms = (is_given_up && host.has_connection()).then_some(ran_ms);
            return;
        }
        let timer_ms = routed.plan.resilience(policy).attempt_ms(routed.stream);
        let all = host.attempts();
        let main = answered.or(all.last().map(|attempt| attempt.number));
        for attempt in all {
            let began_ms = if attempt.began_ms == 0 { attempts.sent_ms } else { attempt.began_ms };
            let is_main = Some(attempt.number) == main;
            if is_main {
                attempts.began_ms = began_ms;
            }
            let ended_ms = match attempt.end {
                Some(End::Failed) => continue,
                Some(End::Unanswered(at_ms)) => at_ms,
                None if is_main && !host.has_connection() => continue,
                None => now_ms,
            };
            let ran_ms = ended_ms.saturating_sub(began_ms);
            // Without a timer and without us, it was the provider that ended it.
            let timed_out = ran_ms.saturating_add(TOLERANCE_MS.min(timer_ms / 4)) >= timer_ms;
            let was_cancelled = ended_ms.saturating_add(TOLERANCE_MS) >= now_ms;
            match (is_main, routed.plan.models.get(attempt.index)) {
                (true, _) if answered.is_some() => {}
                (true, _) if timed_out || was_cancelled => attempts.last_ms = is_given_up.then_some(ran_ms),
                (false, Some(model)) if timed_out || was_cancelled && (is_hedged || is_given_up) => {
                    attempts.others.push((*model, ran_ms));
                }
                _ => {}
            }
        }
        if policy.counting.abandoned == Abandoned::Prompt {
            attempts.others.clear();
        }
    }

    /// The number of the attempt that answers, if one does.
    pub(super) fn answering_attempt(&self) -> Option<u32> {
        let Upstream { routed, answer, .. } = self.state.upstream()?;
        let answers = matches!(answer, Answer::Stream(_) | Answer::Whole { .. });
        routed.served.filter(|_| answers).map(|served| served.attempts)
    }

    /// The exchange is over: notes what was not known when the answer began.
    pub(super) fn note_end(&mut self, policy: &Policy, host: &impl Observer) {
        let is_given_up = self.is_given_up(policy);
        let has_others = self.has_failed_attempts();
        match self.state.upstream_mut() {
            // Its stream had begun, so the other attempts are noted.
            Some(Upstream { answer: Answer::Stream(_), attempts, .. }) if is_given_up => {
                attempts.last_ms = Some(host.now_ms().saturating_sub(attempts.began_ms));
            }
            Some(_) if is_given_up || has_others => self.note_attempts(policy, host, None),
            _ => {}
        }
    }

    /// Whether the request was given up, by its caller or by a timer, before anything of an answer was seen.
    pub(super) fn is_given_up(&self, policy: &Policy) -> bool {
        let Some(Upstream { answer, .. }) = self.state.upstream() else { return false };
        if answer.usage(0).is_some() {
            return false;
        }
        let Some(outcome) = self.state.outcome() else { return false };
        match outcome {
            lost if lost.has_lost_caller() => true,
            late if self.is_callers_deadline(late) => true,
            _ if policy.counting.abandoned == Abandoned::Prompt => false,
            Outcome::DeadlineExceeded
            | Outcome::AttemptTimeout
            | Outcome::FirstTokenTimeout
            | Outcome::ChunkTimeout => true,
            // It had begun, or the policy let its headers go early.
            Outcome::StreamReset | Outcome::StreamAborted => matches!(answer, Answer::Stream(_)),
            _ => false,
        }
    }

    /// Estimates what the abandoned attempts are charged: once, since the charge, the record and the metrics must
    /// agree.
    pub(super) fn estimate_abandoned(&mut self, policy: &Policy, store: &mut dyn Store) {
        let Some(Upstream { routed, attempts, .. }) = self.state.upstream() else { return };
        if attempts.estimates.is_some() {
            return;
        }
        let last = attempts.last_ms.and_then(|ms| Some((routed.charged_model()?, ms)));
        let mut one = |(model, ms): (ModelId, u64)| self.estimate(policy, store, model, ms);
        let others = attempts.others.iter().copied().map(&mut one).collect();
        let estimates = Estimates { last: last.map(one), others };
        if let Some(upstream) = self.state.upstream_mut() {
            upstream.attempts.estimates = Some(estimates);
        }
    }

    /// What an attempt at `model` is charged that was abandoned after this time.
    fn estimate(&self, policy: &Policy, store: &mut dyn Store, model: ModelId, ms: u64) -> Estimate {
        let worst = self.quota.worst.iter().find(|(id, _)| *id == model).map(|(_, worst)| *worst);
        let price = policy.model(model).price.as_ref();
        let (prompt_bytes, choices, most_output) = self.routed().map_or((0, 0, 0), |routed| {
            let place = routed.plan.models.iter().position(|id| *id == model);
            let most = place.and_then(|at| routed.most_output.get(at)).copied().unwrap_or(0);
            (routed.prompt_bytes, routed.choices, most)
        });
        let output = match policy.counting.abandoned {
            Abandoned::WorstCase => most_output,
            Abandoned::Elapsed => {
                store.rate(&policy.model(model).name).tokens(ms).saturating_mul(choices).min(most_output)
            }
            Abandoned::Prompt => 0,
        };
        let input = self.estimated_input().unwrap_or_else(|| input_tokens(prompt_bytes));
        match (worst, policy.counting.abandoned) {
            (Some(worst), Abandoned::WorstCase) => {
                let output = output.min(worst.tokens);
                let usage = Usage { input: worst.tokens - output, output, ..Usage::default() };
                Estimate { model, usage, cost: price.map(|_| MicroUsd(worst.cost)), used: worst }
            }
            (worst, _) => {
                let most = worst.map_or(u64::MAX, |worst| worst.tokens);
                let input = input.min(most);
                let usage = Usage { input, output: output.min(most - input), ..Usage::default() };
                let asked = self.asked(policy, model).unwrap_or_default();
                let cost = price.map_or(MicroUsd(0), |price| price.worst(usage.input, usage.output, asked));
                let used = demand::amount(&usage, cost);
                let used = worst.map_or(used, |worst| used.min(worst));
                Estimate { model, usage, cost: price.map(|_| MicroUsd(used.cost)), used }
            }
        }
    }

    /// What the last attempt is charged, if it was abandoned.
    pub(super) fn abandoned_last(&self) -> Option<&Estimate> {
        self.state.upstream()?.attempts.estimates.as_ref()?.last.as_ref()
    }

    /// What the other abandoned attempts cost, if there are any with a price.
    pub(super) fn abandoned_cost(&self) -> Option<MicroUsd> {
        let costs = self.abandoned_others().iter().filter_map(|estimate| estimate.cost);
        costs.reduce(|sum, cost| MicroUsd(sum.0.saturating_add(cost.0)))
    }

    /// What the other abandoned attempts are charged.
    pub(super) fn abandoned_others(&self) -> &[Estimate] {
        let estimates = self.state.upstream().and_then(|upstream| upstream.attempts.estimates.as_ref());
        estimates.map_or(&[], |estimates| &estimates.others)
    }
}

pub(super) mod state;
