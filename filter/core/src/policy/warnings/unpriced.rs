//! Capabilities of models under a budget that their prices do not cover.

use crate::config::place::Place;
use crate::config::problem::Problem;
use crate::config::{Capability, Config, Limits, Price};

/// Reports listed capabilities only: a model without a list is asked for nothing that its price does not cover.
pub(super) fn check(config: &Config, warnings: &mut Vec<Problem>) {
    for (name, model) in &config.models {
        let Some(listed) = &model.capabilities else { continue };
        let price = model.price.as_ref().or(config.quota.default_price.as_ref());
        if price.is_none_or(is_free) || !has_budget(config, name) {
            continue;
        }
        for capability in listed {
            if let Some(message) = lacks(*capability, price) {
                warnings.push(Problem::new(Place::of(&["models", name, "capabilities"]), message));
            }
        }
    }
}

/// Returns what the price lacks for a capability.
fn lacks(capability: Capability, price: Option<&Price>) -> Option<&'static str> {
    match capability {
        Capability::Audio if price.is_none_or(|price| price.audio_input.is_none() || price.audio_output.is_none()) => {
            Some(
                "`audio` needs `audio_input` and `audio_output` in the price: under a budget, requests for audio \
                 without them are refused",
            )
        }
        Capability::WebSearch if price.is_none_or(|price| price.web_search.is_none()) => {
            Some("`web_search` needs `web_search` in the price: under a budget, requests for a search are refused")
        }
        Capability::Other => Some(
            "`other` lets through what no price covers: a budget is charged for its tokens alone, whatever the \
             provider charges",
        ),
        Capability::Routing => Some(
            "`routing` lets the provider choose another model: a budget is charged this model's price, whatever the \
             provider charges",
        ),
        _ => None,
    }
}

fn is_free(price: &Price) -> bool {
    let beside = [price.audio_input, price.audio_output, price.web_search, price.cached_input, price.cache_write];
    price.input == 0.0
        && price.output == 0.0
        && price.tiers.is_empty()
        && beside.into_iter().all(|price| price.unwrap_or(0.0) == 0.0)
}

/// Returns whether a budget can apply to a request that the model serves.
fn has_budget(config: &Config, model: &str) -> bool {
    config.tenants.values().any(|tenant| {
        config.tiers.get(&tenant.tier).is_some_and(|tier| {
            tier.models.iter().any(|name| name == model) && (bounds_cost(&tenant.limits) || bounds_cost(&tier.limits))
        })
    })
}

fn bounds_cost(limits: &Limits) -> bool {
    let own = |limits: &Limits| limits.budget_usd_per_day.is_some() || limits.budget_usd_per_month.is_some();
    own(limits)
        || limits.per_user.as_deref().is_some_and(own)
        || limits.users.values().any(own)
        || limits.per_model.values().any(own)
}
