//! Hedged requests: concurrent attempts. The attempt that answers need not be the last, and the others have not failed.

use crate::exchange::Exchange;
use crate::exchange::state::{Routed, Served, Upstream};
use crate::ids::ModelId;
use crate::outcome::outcome::Outcome;
use crate::policy::Policy;
use crate::wire::header::HeaderLine;

/// What the model stage records for an attempt that has not answered when the next one begins.
const NO_RESPONSE: Outcome = Outcome::NoResponse;
/// The attempt did not answer in time, so another one started beside it and answered first.
const HEDGED: Outcome = Outcome::Hedged;
/// The attempt started beside another one that answered first. It has not failed.
pub(super) const CANCELLED: Outcome = Outcome::Cancelled;

impl Exchange {
    /// Whether this request's attempts can run concurrently.
    pub(super) fn is_hedged(&self, policy: &Policy) -> bool {
        let task = self.routed().and_then(|routed| routed.plan.task);
        task.is_some_and(|task| policy.task(task).resilience.is_hedged())
    }

    /// An answer to a hedged request has begun. `last`: the last attempt to start (place in the plan, number), from the
    /// model stage's record. If an earlier one answers, returns the header with the number of attempts made.
    pub(super) fn hedge_won_by_other(&mut self, last: Option<(usize, u32)>) -> Option<HeaderLine> {
        let Upstream { routed: Routed { plan, served, .. }, cancelled, .. } = self.state.upstream_mut()?;
        let (index, made) = last?;
        let served = served.as_mut().filter(|served| served.attempts < made)?;
        served.attempts = made;
        *cancelled = plan.models.get(index).copied();
        Some(("x-pointsman-attempts", made.to_string().into()))
    }

    /// The failed attempts of a hedged request. `recorded`: the model stage's record, by place in the plan.
    pub(super) fn failed_of_hedged(
        &self,
        recorded: &[(usize, Outcome)],
        model: impl Fn(usize) -> Option<ModelId>,
        served: Option<Served>,
    ) -> Vec<(ModelId, Outcome)> {
        let mut all = Vec::new();
        for (index, why) in recorded {
            let Some(id) = model(*index) else { continue };
            // Silent at first, it then answered after all, with success or with its own error.
            let answered = served.is_some_and(|served| served.model == id)
                || recorded.iter().any(|(other, why)| other == index && *why != NO_RESPONSE);
            match *why {
                NO_RESPONSE if answered => {}
                NO_RESPONSE => all.push((id, HEDGED)),
                why => all.push((id, why)),
            }
        }
        all.extend(self.state.upstream().and_then(|upstream| upstream.cancelled).map(|id| (id, CANCELLED)));
        all
    }
}
