//! The attempts of a request and what the abandoned ones of them are charged.

use crate::ids::ModelId;
use crate::policy::price::MicroUsd;
use crate::quota::reservation::Charge;
use crate::quota::window::Amount;
use crate::usage::Usage;

/// The attempts of a request, as far as they matter for what it is charged.
#[derive(Debug, Default)]
pub(in crate::exchange) struct Attempts {
    /// When the request was sent, and when the attempt that answered (or the last one) began, in milliseconds since the
    /// Unix epoch.
    pub(super) sent_ms: u64,
    pub(super) began_ms: u64,
    /// How long the last attempt ran, in milliseconds, if it was abandoned.
    pub(super) last_ms: Option<u64>,
    /// The models of other abandoned attempts, and how long each ran, in milliseconds.
    pub(super) others: Vec<(ModelId, u64)>,
    pub(super) are_noted: bool,
    pub(super) estimates: Option<Estimates>,
}

/// What the abandoned attempts of a request are charged.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    pub(super) last: Option<Estimate>,
    pub(super) others: Vec<Estimate>,
}

/// What one abandoned attempt is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exchange) struct Estimate {
    pub(in crate::exchange) model: ModelId,
    pub(in crate::exchange) usage: Usage,
    /// What it costs; `None` if its model has no price.
    pub(in crate::exchange) cost: Option<MicroUsd>,
    pub(super) used: Amount,
}

impl Attempts {
    /// The attempts of a request that is sent at `now_ms` (milliseconds since the Unix epoch).
    pub(in crate::exchange) fn sent(now_ms: u64) -> Self {
        Self { sent_ms: now_ms, began_ms: now_ms, ..Self::default() }
    }

    /// When the attempt that answered began, in milliseconds since the Unix epoch.
    pub(in crate::exchange) fn began_ms(&self) -> u64 {
        self.began_ms
    }
}

impl From<&Estimate> for Charge {
    fn from(estimate: &Estimate) -> Self {
        Self { model: estimate.model, used: estimate.used }
    }
}
