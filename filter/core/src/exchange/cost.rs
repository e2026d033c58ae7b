//! What an answer costs: its tokens at the price of the service tier that served, and what the request asked for.

use crate::exchange::Exchange;
use crate::ids::ModelId;
use crate::policy::Policy;
use crate::policy::price::{Asked, Cost};
use crate::service_tier::ServedTier;
use crate::usage::Usage;

impl Exchange {
    /// What `usage` of the model that answered costs; `None` if no model answered, or it has no price.
    pub(super) fn cost(&self, policy: &Policy, usage: &Usage) -> Option<Cost> {
        if let Some(abandoned) = self.abandoned_last() {
            return abandoned.cost.map(|usd| Cost { usd, is_guess: false });
        }
        self.cost_of(policy, self.routed()?.served?.model, usage)
    }

    /// What `usage` of `model` costs; `None` if it has no price.
    pub(super) fn cost_of(&self, policy: &Policy, model: ModelId, usage: &Usage) -> Option<Cost> {
        let price = policy.model(model).price.as_ref()?;
        Some(price.cost(usage, self.asked(policy, model).unwrap_or_default(), self.served_tier()))
    }

    /// The service tier of the answer of `model`: the one that its provider names, or else the one that it was asked
    /// for.
    pub(super) fn service_tier(&self, policy: &Policy, model: ModelId) -> Option<ServedTier> {
        self.served_tier().or_else(|| self.asked(policy, model)?.tier.map(ServedTier::Other))
    }

    fn served_tier(&self) -> Option<ServedTier> {
        self.state.upstream().and_then(|upstream| upstream.answer.service_tier())
    }

    /// What `model` is asked for.
    pub(super) fn asked(&self, policy: &Policy, model: ModelId) -> Option<Asked> {
        let routed = &self.state.upstream()?.routed;
        let has_budget = self.caller.as_ref().is_some_and(|caller| policy.has_budget(caller.tenant));
        Some(policy.model(model).asked(routed.service_tier, routed.needs, has_budget))
    }
}
