//! Valid settings of a policy that are probably not meant. The gateway runs with them.

use super::Policy;
use crate::config::Config;
use crate::config::place::Place;
use crate::config::problem::Problem;

mod catalogue;
mod credential;
mod limits;
mod streams;
mod timers;
mod unpriced;
mod use_of_names;

/// Returns every suspicious setting of a valid policy.
pub fn warnings(config: &Config, policy: &Policy) -> Vec<Problem> {
    let mut warnings = Vec::new();
    credential::check(config, &mut warnings);
    catalogue::check(config, &mut warnings);
    timers::check(config, policy, &mut warnings);
    limits::check(config, &mut warnings);
    streams::check(policy, &mut warnings);
    unpriced::check(config, &mut warnings);
    use_of_names::check(config, &mut warnings);
    for (name, _) in config.models.iter().filter(|(_, model)| model.tier.is_some()) {
        let place = Place::of(&["models", name, "tier"]);
        warnings.push(Problem::of_name(place, "a former name; call it `level`"));
    }
    warnings
}

#[cfg(test)]
mod tests;
