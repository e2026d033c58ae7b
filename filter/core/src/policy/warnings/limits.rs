//! Limits that can never be reached, because another one is always reached before.

use crate::config::place::Place;
use crate::config::problem::{Problem, quoted};
use crate::config::{Config, Limits};

/// Reports them for models, tasks, tiers and tenants.
pub(super) fn check(config: &Config, warnings: &mut Vec<Problem>) {
    for (name, model) in &config.models {
        let (output, context) = (model.max_output_tokens, model.context);
        if output >= context {
            let message = if output > context {
                format!("{output} is above the model's context of {context} tokens, which prompt and output share")
            } else {
                format!("{output} is the model's whole context, which prompt and output share; no prompt would fit")
            };
            warnings.push(Problem::new(Place::of(&["models", name, "max_output_tokens"]), message));
        }
    }
    for (name, task) in &config.tasks {
        let chain = std::iter::once(&task.primary).chain(&task.fallback);
        let of_chain = chain.filter_map(|model| config.models.get(model)).map(|model| model.max_output_tokens).max();
        if let (Some(own), Some(of_chain)) = (task.max_output_tokens, of_chain)
            && own > of_chain
        {
            let message = format!("{own} has no effect: the models of the task have {of_chain} at most");
            warnings.push(Problem::new(Place::of(&["tasks", name, "max_output_tokens"]), message));
        }
    }
    for (name, tier) in &config.tiers {
        whole(&tier.limits, &tier.limits, &Place::of(&["tiers", name, "limits"]), warnings);
    }
    for (name, tenant) in &config.tenants {
        // What the tier alone gets wrong is reported there.
        if !tenant.limits.is_empty()
            && let Some(tier) = config.tiers.get(&tenant.tier)
        {
            let merged = tenant.limits.or(&tier.limits);
            whole(&tenant.limits, &merged, &Place::of(&["tenants", name, "limits"]), warnings);
        }
    }
}

/// Checks the limits of a tier or a tenant. `merged`: with those that it inherits.
fn whole(own: &Limits, merged: &Limits, place: &Place, warnings: &mut Vec<Problem>) {
    scope(own, merged, place, warnings);
    if let (Some(own), Some(merged)) = (&own.per_user, &merged.per_user) {
        scope(own, merged, &place.name("per_user"), warnings);
    }
    for (user, own) in &own.users {
        let merged = merged.per_user.as_ref().map_or_else(|| own.clone(), |general| own.or(general));
        scope(own, &merged, &place.name("users").name(user), warnings);
    }
    for (model, own) in &own.per_model {
        scope(own, merged.per_model.get(model).unwrap_or(own), &place.name("per_model").name(model), warnings);
    }
}

fn scope(own: &Limits, merged: &Limits, place: &Place, warnings: &mut Vec<Problem>) {
    let mut compare = |short: (&str, Option<f64>, Option<f64>), long: (&str, Option<f64>, Option<f64>), unit: &str| {
        let (Some(shorter), Some(longer)) = (short.2, long.2) else { return };
        let field = match (short.1, long.1) {
            (Some(_), _) => short.0,
            (None, Some(_)) => long.0,
            (None, None) => return,
        };
        if shorter > longer {
            let message = format!(
                "{} of {shorter}{unit} is never reached: {} ends at {longer}{unit}",
                quoted(short.0),
                quoted(long.0)
            );
            warnings.push(Problem::new(place.name(field), message));
        }
    };
    compare(
        ("budget_usd_per_day", own.budget_usd_per_day, merged.budget_usd_per_day),
        ("budget_usd_per_month", own.budget_usd_per_month, merged.budget_usd_per_month),
        " USD",
    );
    let tokens = |count: Option<u64>| count.map(|count| count as f64);
    compare(
        ("tokens_per_minute", tokens(own.tokens_per_minute), tokens(merged.tokens_per_minute)),
        ("tokens_per_day", tokens(own.tokens_per_day), tokens(merged.tokens_per_day)),
        " tokens",
    );
}
