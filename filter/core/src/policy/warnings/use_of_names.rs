//! Providers, models, tasks, tiers and tenants that no request can use.

use crate::config::place::Place;
use crate::config::problem::Problem;
use crate::config::{Config, Identity};
use std::collections::BTreeSet;

/// Reports each once: a model of an unused tier is not reported with the tier.
pub(super) fn check(config: &Config, warnings: &mut Vec<Problem>) {
    let mut warn = |section: &str, name: &str, message: String| {
        warnings.push(Problem::of_name(Place::of(&[section, name]), message));
    };
    let hosting: BTreeSet<&str> = config.models.values().map(|model| model.provider.as_str()).collect();
    for name in config.providers.keys().filter(|name| !hosting.contains(name.as_str())) {
        warn("providers", name, "no model has this provider, so it is never used".to_owned());
    }
    let allowed: BTreeSet<&str> = config.tiers.values().flat_map(|tier| &tier.models).map(String::as_str).collect();
    for name in config.models.keys().filter(|name| !allowed.contains(name.as_str())) {
        warn("models", name, "no tier lists this model, so no tenant can use it".to_owned());
    }
    for (name, task) in &config.tasks {
        let mut chain = std::iter::once(&task.primary).chain(&task.fallback);
        if !chain.any(|model| allowed.contains(model.as_str())) {
            warn("tasks", name, "no tier lists a model of this task, so no tenant can use it".to_owned());
        }
    }
    let given: BTreeSet<&str> = config.tenants.values().map(|tenant| tenant.tier.as_str()).collect();
    for name in config.tiers.keys().filter(|name| !given.contains(name.as_str())) {
        warn("tiers", name, "no tenant has this tier".to_owned());
    }
    let by_key = config.identity == Identity::ApiKey;
    for (name, tenant) in &config.tenants {
        match (by_key, tenant.keys.is_empty()) {
            (true, true) => warn("tenants", name, "has no key, so no request can come from it; add `keys`".to_owned()),
            (false, false) => {
                let message = "its keys are not used: a header names the tenant (`identity`)";
                warn("tenants", name, message.to_owned());
            }
            _ => {}
        }
    }
}
