//! What an exchange remembers of quotas: what is reserved, what was decided, and what it was estimated by.

use crate::ids::ModelId;
use crate::policy::Policy;
use crate::quota::demand;
use crate::quota::reservation::{Held, Reservation, Settled, View};
use crate::quota::store::Store;
use crate::quota::window::{Amount, Moment};
use crate::request::facts::Facts;
use crate::tokens::Correction;
use crate::wire::header::HeaderLine;

/// What quotas did to a request.
#[derive(Debug, Default)]
pub(in crate::exchange) struct Quota {
    /// What is reserved, until it is settled.
    pub(in crate::exchange) reserved: Option<Reservation>,
    /// The worst case of each model of the plan, where tokens matter: no answer can have taken more, unless its provider counts it.
    pub(in crate::exchange) worst: Vec<(ModelId, Amount)>,
    /// Whether a degraded model serves, outside the day's tokens.
    pub(in crate::exchange) spares_day_tokens: bool,
    /// Input tokens by estimate, uncorrected.
    pub(in crate::exchange) input: Option<u64>,
    /// Whether a correction can be learned from that estimate.
    pub(in crate::exchange) is_estimate_comparable: bool,
    /// What had been learned when it was first asked: however often the request is worked out anew, it asks for the same.
    pub(super) corrections: Vec<(ModelId, Correction)>,
    /// What decided, and the window.
    pub(in crate::exchange) verdict: Option<(Verdict, &'static str)>,
    /// Headers for the caller.
    pub(in crate::exchange) headers: Vec<HeaderLine>,
    pub(in crate::exchange) settled: Settled,
    /// The reservation's id in Redis, and the moment when the request was first looked at.
    pub(super) began: Option<(String, Moment)>,
    /// What may be reserved in Redis.
    pub(in crate::exchange) held: Option<Held>,
    /// Whether Redis did not answer a question, so that what it did is unknown.
    pub(in crate::exchange) is_away: bool,
    /// How the windows of a request that was refused stand, and the shares that were reached.
    pub(super) view: View,
}

impl Quota {
    /// The request is worked out anew, with one answer more.
    pub(in crate::exchange) fn restart(&mut self) {
        self.is_away = false;
        self.view = View::default();
    }

    /// What the questions of this request are told apart by.
    pub(super) fn id(&mut self, moment: &Moment, store: &mut dyn Store) -> String {
        self.began.get_or_insert_with(|| (format!("{:032x}", store.unique()), *moment)).0.clone()
    }

    /// Input tokens by estimate, which are counted once.
    pub(super) fn input(&mut self, request: &Facts) -> u64 {
        *self.input.get_or_insert_with(|| demand::input_tokens(request))
    }

    pub(super) fn correction(&mut self, policy: &Policy, store: &mut dyn Store, id: ModelId) -> Correction {
        if let Some((_, known)) = self.corrections.iter().find(|(known, _)| *known == id) {
            return *known;
        }
        let correction = store.correction(&policy.model(id).name);
        self.corrections.push((id, correction));
        correction
    }
}

/// What a quota that is used up led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exchange) enum Verdict {
    Rejected,
    Degraded,
    Template,
    Shadowed,
}
