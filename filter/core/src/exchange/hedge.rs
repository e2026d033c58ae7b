//! Hedged requests: attempts that run at once. The one that answers need not be the last, and the others have not failed.

use crate::exchange::Exchange;
use crate::exchange::state::{Routed, Served, Upstream};
use crate::ids::ModelId;
use crate::outcome::outcome::Outcome;
use crate::policy::Policy;
use crate::wire::header::HeaderLine;

/// What the model stage records of an attempt that has not answered when the next one begins.
const SILENT: Outcome = Outcome::NoResponse;
/// The attempt had not answered within its time, so another one was begun beside it, and answered first.
const OVERTAKEN: Outcome = Outcome::Hedged;
/// The attempt had been begun beside another one that answered first. It has not failed.
pub(super) const CANCELLED: Outcome = Outcome::Cancelled;

impl Exchange {
    /// Whether attempts of this request can run at once.
    pub(super) fn is_hedged(&self, policy: &Policy) -> bool {
        let task = self.routed().and_then(|routed| routed.plan.task);
        task.is_some_and(|task| policy.task(task).resilience.is_hedged())
    }

    /// An answer to a hedged request has begun. `last`: the attempt that was begun last (its place in the plan, its number),
    /// by the model stage's record. Where another one answers, the header with the number of attempts that were made.
    pub(super) fn overtaken(&mut self, last: Option<(usize, u32)>) -> Option<HeaderLine> {
        let Upstream { routed: Routed { plan, served, .. }, cancelled, .. } = self.state.upstream_mut()?;
        let (index, made) = last?;
        let served = served.as_mut().filter(|served| served.attempts < made)?;
        served.attempts = made;
        *cancelled = plan.models.get(index).copied();
        Some(("x-pointsman-attempts", made.to_string().into()))
    }

    /// The failed attempts of a hedged request. `recorded`: the model stage's record, by places in the plan.
    pub(super) fn failed_of_hedged(
        &self,
        recorded: &[(usize, Outcome)],
        model: impl Fn(usize) -> Option<ModelId>,
        served: Option<Served>,
    ) -> Vec<(ModelId, Outcome)> {
        let mut all = Vec::new();
        for (index, why) in recorded {
            let Some(id) = model(*index) else { continue };
            // Silent at first, and then it answered after all, well or with an error of its own.
            let answered = served.is_some_and(|served| served.model == id)
                || recorded.iter().any(|(other, why)| other == index && *why != SILENT);
            match *why {
                SILENT if answered => {}
                SILENT => all.push((id, OVERTAKEN)),
                why => all.push((id, why)),
            }
        }
        all.extend(self.state.upstream().and_then(|upstream| upstream.cancelled).map(|id| (id, CANCELLED)));
        all
    }
}
