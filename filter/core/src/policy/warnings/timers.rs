//! Timers that never end anything, because another timer always does before.

use crate::config::place::Place;
use crate::config::problem::Problem;
use crate::config::{Config, Resilience, Task, Time};
use crate::policy::Policy;

/// Reports them, in the general section and for each task that sets its own.
pub(super) fn check(config: &Config, policy: &Policy, warnings: &mut Vec<Problem>) {
    let general = &config.resilience;
    let place = Place::from("resilience");
    let defaults = Resilience::default();
    let own = |time: Time, default: Time| (time != default).then_some(time);
    let mut found = Vec::new();
    let has_next = config.tasks.values().any(|task| !task.fallback.is_empty());
    let own_request = own(general.request_timeout, defaults.request_timeout);
    for (name, time, default) in [
        ("first_token_timeout", general.first_token_timeout, defaults.first_token_timeout),
        ("attempt_timeout", general.attempt_timeout, defaults.attempt_timeout),
        ("chunk_timeout", general.chunk_timeout, defaults.chunk_timeout),
        ("backoff_base", general.backoff_base, defaults.backoff_base),
    ] {
        found.extend(unreachable(name, (own(time, default), time), (own_request, general.request_timeout), has_next));
    }
    if general.chunk_timeout < general.first_token_timeout && general.first_token_timeout < general.request_timeout {
        let effective = policy.resilience.idle_ms(1);
        let message = format!(
            "{} is below first_token_timeout ({}), and Envoy has one idle timer for both: a stream may be silent for \
             {}",
            written(general.chunk_timeout),
            written(general.first_token_timeout),
            written(Time(effective))
        );
        found.push(("chunk_timeout", message));
    }
    warnings.extend(found.into_iter().map(|(field, message)| Problem::new(place.name(field), message)));
    for (name, task) in &config.tasks {
        of_task(config, &Place::of(&["tasks", name]), task, warnings);
    }
}

fn of_task(config: &Config, place: &Place, task: &Task, warnings: &mut Vec<Problem>) {
    let (general, own) = (&config.resilience, &task.resilience);
    let section = place.name("resilience");
    let request = (own.request_timeout, own.request_timeout.unwrap_or(general.request_timeout));
    let mut found = Vec::new();
    for (name, own, general) in [
        ("first_token_timeout", own.first_token_timeout, general.first_token_timeout),
        ("attempt_timeout", own.attempt_timeout, general.attempt_timeout),
    ] {
        // What both take from the general section is reported there.
        if own.is_some() || request.0.is_some() {
            found.extend(unreachable(name, (own, own.unwrap_or(general)), request, !task.fallback.is_empty()));
        }
    }
    if task.cache.is_some() && request.0.is_some() && config.cache.wait >= request.1 {
        let message = format!(
            "{} is not above cache.wait ({}): a request that waits for an identical one ends before it can go to a \
             model",
            written(request.1),
            written(config.cache.wait)
        );
        found.push(("request_timeout", message));
    }
    if own.hedge && task.fallback.is_empty() {
        found.push(("hedge", "has no effect on a task without `fallback`".to_owned()));
    }
    warnings.extend(found.into_iter().map(|(field, message)| Problem::new(section.name(field), message)));
}

/// A time as written here, if it is, and as it applies.
type Timer = (Option<Time>, Time);

/// Returns the field to look at and the message if `request_timeout` always ends a request before this timer.
/// `has_next`: whether another model may follow a slow one.
fn unreachable(name: &str, timer: Timer, request: Timer, has_next: bool) -> Option<(&str, String)> {
    if timer.1 < request.1 {
        return None;
    }
    let is_of_attempt = matches!(name, "first_token_timeout" | "attempt_timeout");
    let consequence = if is_of_attempt && has_next { ", so a slow model is not followed by the next one" } else { "" };
    let (long, short) = (written(timer.1), written(request.1));
    match (timer.0, request.0) {
        // A short request needs no shorter timer unless another attempt should follow.
        (None, _) if consequence.is_empty() => None,
        (None, Some(_)) => {
            Some(("request_timeout", format!("{short} ends a request before {name} ({long}) can{consequence}")))
        }
        _ => Some((
            name,
            format!("{long} is never reached: request_timeout ({short}) ends a request before{consequence}"),
        )),
    }
}

/// Writes a time as people do.
fn written(time: Time) -> String {
    humantime::format_duration(std::time::Duration::from_millis(time.0)).to_string()
}
