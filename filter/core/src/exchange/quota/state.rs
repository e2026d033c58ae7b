//! The quota state of an exchange: what it reserved, what was decided, and which estimates that used.

use crate::ids::ModelId;
use crate::policy::Policy;
use crate::quota::demand;
use crate::quota::reservation::{RemoteReservation, Reservation, Settled, View};
use crate::quota::store::Store;
use crate::quota::window::{Amount, Moment};
use crate::request::facts::Facts;
use crate::tokens::Correction;
use crate::tokens::sample::Sample;
use crate::wire::header::HeaderLine;

/// How quotas treated a request.
#[derive(Debug, Default)]
pub(in crate::exchange) struct Quota {
    /// The open reservation, until it is settled.
    pub(in crate::exchange) reserved: Option<Reservation>,
    /// The worst case of each model in the plan, where tokens matter. No answer may exceed it unless its provider
    /// counted the tokens.
    pub(in crate::exchange) worst: Vec<(ModelId, Amount)>,
    /// Whether a degraded model serves, outside the day's tokens.
    pub(in crate::exchange) exempt_from_daily_tokens: bool,
    /// The bound of the input tokens, uncorrected, if it was needed.
    pub(in crate::exchange) input: Option<u64>,
    /// A higher bound that takes less time.
    rough_input: Option<u64>,
    /// What the input is estimated from if its bound was not needed.
    sample: Option<(Sample, u64)>,
    /// Whether a correction can be learned from that estimate.
    pub(in crate::exchange) is_estimate_comparable: bool,
    /// The corrections known in the first pass; every pass reserves the same.
    pub(super) corrections: Vec<(ModelId, Correction)>,
    /// The output limit of one choice, where a window had no room for the one that the request has.
    pub(in crate::exchange) output_limit: Option<u64>,
    /// The verdict and its window.
    pub(in crate::exchange) verdict: Option<(Verdict, &'static str)>,
    /// Headers for the caller.
    pub(in crate::exchange) headers: Vec<HeaderLine>,
    pub(in crate::exchange) settled: Settled,
    /// How many users lost their counters, to make room for this one's.
    pub(super) evicted: u64,
    /// Whether it was settled, which is done once.
    pub(in crate::exchange) is_settled: bool,
    /// The reservation's id in Redis, and when the request was first evaluated.
    pub(super) began: Option<(String, Moment)>,
    /// What may be reserved in Redis.
    pub(in crate::exchange) held: Option<RemoteReservation>,
    /// Whether Redis left a question unanswered, so its effect is unknown.
    pub(in crate::exchange) is_away: bool,
    /// The windows of a refused request, and the shares that were reached.
    pub(super) view: View,
}

impl Quota {
    /// Starts a new pass, with one answer more.
    pub(in crate::exchange) fn restart(&mut self) {
        self.is_away = false;
        self.view = View::default();
    }

    /// The id that tells this request's questions apart.
    pub(super) fn id(&mut self, moment: &Moment, store: &mut dyn Store) -> String {
        self.began.get_or_insert_with(|| (format!("{:032x}", store.unique()), *moment)).0.clone()
    }

    /// The bound of the input tokens, counted once.
    pub(super) fn input(&mut self, request: &Facts) -> u64 {
        *self.input.get_or_insert_with(|| demand::input_tokens(request))
    }

    /// A correction that this request has used.
    pub(super) fn known_correction(&self, id: ModelId) -> Correction {
        let known = self.corrections.iter().find(|(known, _)| *known == id);
        known.map_or_else(Correction::default, |(_, correction)| *correction)
    }

    /// The quick bound of the input tokens, counted once.
    pub(super) fn rough_input(&mut self, request: &Facts) -> u64 {
        *self.rough_input.get_or_insert_with(|| demand::rough_input_tokens(request))
    }

    /// Whether the input tokens are at most this many.
    pub(super) fn is_input_within(&mut self, request: &Facts, most: u64) -> bool {
        self.rough_input(request) <= most || self.input(request) <= most
    }

    /// Keeps what is needed to estimate the input later.
    pub(super) fn keep_sample(&mut self, request: &Facts, moment: &Moment) {
        if self.input.is_none() {
            self.sample = Some((demand::sample(request, moment.now_ms), demand::media(request)));
        }
    }

    /// Estimated input tokens, for a provider that does not count them.
    pub(super) fn estimated_input(&self) -> Option<u64> {
        let estimate = |(sample, media): &(Sample, u64)| {
            let tokens = sample.tokens().saturating_add(*media);
            self.rough_input.map_or(tokens, |rough| tokens.min(rough))
        };
        self.input.or_else(|| self.sample.as_ref().map(estimate))
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

/// What happened when a quota was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exchange) enum Verdict {
    Rejected,
    /// It got a lower output limit.
    Clamped,
    Degraded,
    Template,
    Shadowed,
}
