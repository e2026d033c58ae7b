//! Mistakes of meaning: which of them follow from a mistake of shape, and what would be right in their place.

use super::explain::unknown_reference;
use super::sections::{refers_to, value_at};
use super::values::decimal;
use crate::config::place::Step;
use crate::config::problem::{Part, Problem, looks_secret};
use crate::identity::keys::SAME_KEY;
use serde_json::Value;
use std::collections::BTreeMap;

/// Returns whether a problem of a repaired policy has a cause of its own. `refused`: the places of the mistakes that
/// were repaired. What stands there now was not written by anyone.
pub(super) fn is_independent(problem: &Problem, refused: &[Vec<Step>], tree: &Value) -> bool {
    let place = problem.place.steps();
    let names: Vec<&str> = place.iter().filter_map(Step::as_name).collect();
    let referent = refers_to(place).map(|section| (section, name_at(place, tree).unwrap_or_default()));
    !refused.iter().any(|refused| {
        let was: Vec<&str> = refused.iter().filter_map(Step::as_name).collect();
        let is_here = place.starts_with(refused) || (refused.starts_with(place) && problem.part != Part::Name);
        let is_referent = referent.is_some_and(|(section, name)| match was.as_slice() {
            [refused] => *refused == section,
            [refused, entry] => *refused == section && *entry == name,
            _ => false,
        });
        is_here || is_referent || follows(&names, &was)
    })
}

/// Returns whether a problem at one place can be caused by a mistake at another one, which it does not contain.
fn follows(place: &[&str], refused: &[&str]) -> bool {
    match place {
        [.., "limits", "degrade_at"] => {
            refused.contains(&"on_exhausted") || matches!(refused, ["models"] | ["models", _])
        }
        [.., "on_exhausted", "degrade"] => matches!(refused, ["tiers", _, "models", ..]),
        // A budget needs a price.
        ["tiers" | "tenants", _, "limits"] => {
            refused == ["quota"] || refused.iter().any(|name| ["price", "default_price"].contains(name))
        }
        ["cache" | "quota", "store"] => refused.first() == Some(&"redis"),
        ["tenants"] | ["tasks", _, "cache", "scope"] => refused.first() == Some(&"identity"),
        ["resilience", "backoff_max"] => matches!(refused, ["resilience", "backoff_base"]),
        _ => false,
    }
}

/// Removes problems that follow from others of the same policy, and adds what would be right.
pub(super) fn explain(problems: Vec<Problem>, tree: &Value) -> Vec<Problem> {
    let may_cause = |place: &&[Step]| {
        let names = || place.iter().filter_map(Step::as_name);
        names().next() != Some("tenants") || names().any(|name| name == "on_exhausted")
    };
    let causes: Vec<Vec<Step>> =
        problems.iter().map(|problem| problem.place.steps()).filter(may_cause).map(<[Step]>::to_vec).collect();
    let mut problems = once_per_name(problems, tree);
    problems.retain(|(problem, _)| {
        let place = problem.place.steps();
        let names: Vec<&str> = place.iter().filter_map(Step::as_name).collect();
        causes.iter().filter(|cause| cause.as_slice() != place).all(|cause| {
            let was: Vec<&str> = cause.iter().filter_map(Step::as_name).collect();
            !follows(&names, &was)
        })
    });
    for (problem, more) in &mut problems {
        let place = problem.place.steps();
        if problem.message.starts_with("unknown ")
            && let Some(message) = unknown_reference(place, tree)
        {
            problem.message = message;
        } else if let Some(message) = value_at(tree, place).and_then(|value| time(&problem.message, value)) {
            problem.message = message;
        } else if !problem.message.starts_with(SAME_KEY)
            && let Some(message) = value_at(tree, place).and_then(|value| of_a_secret(place, value))
        {
            problem.message = message;
        } else if let Some(remedy) = remedy(problem, value_at(tree, place)) {
            problem.message = format!("{}; {remedy}", problem.message);
        }
        if let Some(index) = wrong_status(problem, tree) {
            problem.place = problem.place.index(index);
        }
        if *more > 0 {
            let places = if *more == 1 { "place names" } else { "places name" };
            problem.message = format!("{} ({more} more {places} it)", problem.message);
        }
    }
    problems.into_iter().map(|(problem, _)| problem).collect()
}

/// Keeps the first reference to each unknown name, with the number of the others.
fn once_per_name(problems: Vec<Problem>, tree: &Value) -> Vec<(Problem, usize)> {
    let mut kept: Vec<(Problem, usize)> = Vec::with_capacity(problems.len());
    let mut first: BTreeMap<(&str, String), usize> = BTreeMap::new();
    for problem in problems {
        let reference = refers_to(problem.place.steps()).filter(|_| problem.message.starts_with("unknown "));
        let name = reference.and_then(|section| Some((section, name_at(problem.place.steps(), tree)?.to_owned())));
        if let Some(name) = name {
            if let Some((_, more)) = first.get(&name).and_then(|at| kept.get_mut(*at)) {
                *more += 1;
                continue;
            }
            first.insert(name, kept.len());
        }
        kept.push((problem, 0));
    }
    kept
}

/// Returns the name with which a place refers to something: its value, or a name before a colon.
fn name_at<'a>(place: &'a [Step], tree: &'a Value) -> Option<&'a str> {
    value_at(tree, place).and_then(Value::as_str).or_else(|| place.last()?.as_name())
}

/// Returns which item of a list of statuses a problem is about.
fn wrong_status(problem: &Problem, tree: &Value) -> Option<usize> {
    let place = problem.place.steps();
    let (status, _) = problem.message.split_once(" cannot be retried")?;
    let status: u64 = status.parse().ok()?;
    value_at(tree, place)?.as_array()?.iter().position(|item| item.as_u64() == Some(status))
}

/// Returns the message for a key or its hash, or for where a key is. It repeats no part of the value that may be a key.
fn of_a_secret(place: &[Step], value: &Value) -> Option<String> {
    let names: Vec<&str> = place.iter().filter_map(Step::as_name).collect();
    match names.as_slice() {
        ["tenants", _, "keys"] if matches!(place.last(), Some(Step::Index(_))) => Some(key(value)),
        ["providers", _, "credential", "env"] => env(value.as_str()?),
        _ => None,
    }
}

/// Shows a time as it was written, not in milliseconds.
fn time(message: &str, value: &Value) -> Option<String> {
    let (ms, rest) = message.split_once("ms is ")?;
    let (ms, text): (u64, _) = (ms.parse().ok()?, value.as_str()?.trim());
    if text.len() > 32 || looks_secret(text) {
        return None;
    }
    let is_plain = !text.contains(['M', 'y', 'w']) && !text.contains("month");
    let length = match ms {
        _ if is_plain => String::new(),
        86_400_000.. => format!(" ({} days)", ms / 86_400_000),
        _ => format!(" ({} hours)", ms / 3_600_000),
    };
    let minutes = text.strip_suffix('M').filter(|number| number.bytes().all(|b| b.is_ascii_digit()));
    let remedy = minutes.map(|n| format!("; M is months: write {n}m for minutes")).unwrap_or_default();
    Some(format!("{text}{length} is {rest}{remedy}"))
}

/// Returns what would be right in place of a value, if it can be guessed.
fn remedy(problem: &Problem, value: Option<&Value>) -> Option<String> {
    let place = problem.place.steps();
    let names: Vec<&str> = place.iter().filter_map(Step::as_name).collect();
    let text = value.and_then(Value::as_str).unwrap_or_default();
    let number = value.and_then(Value::as_f64);
    match names.as_slice() {
        _ if problem.part == Part::Name && problem.message.starts_with("a name must") => {
            place.last().and_then(Step::as_name).and_then(valid_name)
        }
        [.., "alert_at"] => shares(value?),
        [.., "degrade_at"] => shares(&Value::Array(vec![value?.clone()])).map(|list| list.replace(['[', ']'], "")),
        ["providers", _, "base_path"] => base_path(text),
        ["providers", _, "credential", "header"] | ["identity", "tenant" | "user" | "permissions"] => {
            let lower = text.trim().trim_end_matches(':').to_ascii_lowercase();
            let is_word = lower.len() <= 32
                && !looks_secret(&lower)
                && lower.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
            (is_word && !lower.is_empty() && lower != text).then(|| format!("write {lower}"))
        }
        [.., "price" | "default_price", "web_search"] => (number? < 0.0).then(|| "for no cost, write 0".to_owned()),
        [.., "price" | "default_price", _] => price(number?),
        ["tenants", _, "keys", "expires"] => expiry(text),
        ["quota", "time_zone"] => time_zone(text),
        [.., field] if field.ends_with("_bytes") => {
            let size = number.filter(|size| (1.0..=1024.0).contains(size))?;
            Some(format!("it is in bytes: {size} MiB is {}", size * 1_048_576.0))
        }
        [.., "limits", _] | [.., "limits", "per_user", _] if number == Some(0.0) => {
            Some("for no limit, remove the line".to_owned())
        }
        _ => None,
    }
}

/// A name with other characters in place of those that are not allowed.
fn valid_name(name: &str) -> Option<String> {
    if looks_secret(name) {
        return None;
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    let valid: String = name.trim().chars().map(plain).take(64).collect();
    let valid = valid.trim_matches(['-', '_']);
    (!valid.is_empty()).then(|| format!("write {valid}"))
}

/// Shares that were written as percentages.
fn shares(value: &Value) -> Option<String> {
    let all: Option<Vec<f64>> = value.as_array()?.iter().map(Value::as_f64).collect();
    let all = all?;
    let are_percent = all.iter().any(|share| *share > 1.0) && all.iter().all(|share| (1.0..=100.0).contains(share));
    let shares: Vec<_> = all.iter().map(|percent| decimal(percent / 100.0)).collect();
    (are_percent && all.len() <= 8).then(|| format!("for percentages, write [{}]", shares.join(", ")))
}

fn base_path(text: &str) -> Option<String> {
    let (address, path) = match text.split_once("://") {
        Some((_, rest)) => (true, rest.split_once('/').map_or("", |(_, path)| path)),
        None => (false, text),
    };
    let path = path.trim().trim_matches('/');
    if looks_secret(path) || !path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~".contains(&b)) {
        return None;
    }
    let right = if path.is_empty() { "\"\"".to_owned() } else { format!("/{path}") };
    Some(match address {
        true => format!("the address belongs to the provider's Envoy cluster; write {right}"),
        false => format!("write {right}"),
    })
}

/// The name of a variable in another notation. It is shown only if it cannot be a key.
fn env(text: &str) -> Option<String> {
    let name =
        ["os.environ/", "os.getenv/", "env:", "env.", "$", "env/"].iter().find_map(|start| text.strip_prefix(start))?;
    let name = name.trim_matches(['{', '}', ' ', ':']);
    let is_name = name.len() <= 40 && name.contains('_') && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    is_name.then(|| format!("expected the name of an environment variable alone; write {name}"))
}

fn price(usd: f64) -> Option<String> {
    if usd < 0.0 {
        return Some("for no cost, write 0".to_owned());
    }
    let million = usd * 1e6;
    (usd > 0.0 && usd < 0.001).then(|| format!("if this is the price of one token, write {}", decimal(million)))
}

/// What a text that is no hash is instead.
fn key(value: &Value) -> String {
    let text = value.as_str().or_else(|| value.get("hash")?.as_str()).unwrap_or_default().trim();
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_hexdigit());
    let expected = "expected sha256: and 64 hexadecimal digits, the SHA-256 of the key";
    if let Some(digits) = text.strip_prefix("sha256:") {
        return match digits.len() {
            count if is_hex(digits) && count > 0 => format!("{expected}; this one has {count} digits"),
            64 => format!("{expected}; one character is not such a digit"),
            _ => format!("{expected}, which `pointsman hash-key` prints"),
        };
    }
    let lower = text.to_ascii_lowercase();
    let is_prefixed = ["sha256:", "sha256-", "sha-256:", "sha256=", "sha256 ", "{sha256}", "sha-256-"]
        .iter()
        .any(|start| lower.starts_with(start));
    let other = match text.len() {
        32 => Some("an MD5"),
        40 => Some("a SHA-1"),
        128 => Some("a SHA-512"),
        _ if ["$2", "$argon", "$scrypt", "$5$", "$6$", "$pbkdf2"].iter().any(|start| lower.starts_with(start)) => {
            Some("the hash of a password")
        }
        _ => None,
    };
    match other {
        _ if is_prefixed => format!("{expected}; write `sha256:` before the digits, in lower case"),
        _ if text.len() == 64 && is_hex(text) => format!("{expected}; write `sha256:` before the digits"),
        Some(other) if is_hex(text) || text.starts_with('$') => {
            format!("{expected}, which `pointsman hash-key` prints; this looks like {other}")
        }
        _ if looks_secret(text) => {
            format!("{expected}, which `pointsman hash-key` prints; this looks like the key itself; revoke it")
        }
        _ => format!("{expected}, which `pointsman hash-key` prints; never write the key itself"),
    }
}

fn expiry(text: &str) -> Option<String> {
    let is_date = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    if is_date && humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).is_ok() {
        return Some(format!("write {text}T00:00:00Z"));
    }
    let (date, rest) = text.split_at_checked(10)?;
    let is_day = date.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    let clock = rest.get(1..9).filter(|clock| clock.bytes().all(|b| b.is_ascii_digit() || b == b':'))?;
    let zone = rest.get(9..).unwrap_or_default();
    Some(match zone {
        "" if is_day => format!("write {date}T{clock}Z"),
        _ if is_day && zone.starts_with(['+', '-']) => "give the time in UTC, with Z at its end".to_owned(),
        _ => return None,
    })
}

/// `UTC+7` and the like.
fn time_zone(text: &str) -> Option<String> {
    let offset = ["UTC", "GMT", "Etc/GMT", "Etc/UTC"].iter().find_map(|start| text.strip_prefix(start))?;
    let (sign, hours) = (offset.get(..1).filter(|sign| ["+", "-"].contains(sign))?, offset.get(1..)?);
    let hours: u32 = hours.trim_end_matches(":00").parse().ok().filter(|hours| *hours <= 14)?;
    Some(format!("write {sign}{hours:02}:00"))
}
