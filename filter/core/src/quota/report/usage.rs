//! How windows stand, as callers are told: OpenAI's rate-limit headers and the answer to `GET /v1/usage`.

use crate::policy::Policy;
use crate::policy::price::MicroUsd;
use crate::quota::counters::Crossed;
use crate::quota::reservation::Scope;
use crate::quota::window::{Standing, Window};
use crate::wire::header::HeaderLine;
use serde_json::{Value, json};

/// `x-ratelimit-*` for requests and for tokens, each of the window with the least left; and shares of budgets that were
/// reached.
///
/// Form: OpenAI, "Rate limits", "Rate limits in headers": `limit` and `remaining` are numbers, `reset` is like `6m0s`.
pub fn headers(standings: &[(Scope, Standing)], crossed: &[(Scope, Crossed)]) -> Vec<HeaderLine> {
    let mut headers = Vec::with_capacity(7);
    let tightest = |wanted: fn(Window) -> bool| {
        let all = standings.iter().map(|(_, standing)| standing).filter(|standing| wanted(standing.window));
        all.min_by_key(|standing| standing.remaining())
    };
    let requests = tightest(|window| window == Window::RequestsPerMinute);
    let tokens = tightest(|window| matches!(window, Window::TokensPerMinute | Window::TokensPerDay));
    for (standing, [limit, remaining, reset]) in [
        (requests, ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]),
        (tokens, ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]),
    ] {
        if let Some(standing) = standing {
            let decimal = |number: u64| itoa::Buffer::new().format(number).to_owned().into();
            headers.push((limit, decimal(standing.limit)));
            headers.push((remaining, decimal(standing.remaining())));
            headers.push((reset, go_duration(standing.reset_ms).into()));
        }
    }
    headers.extend(alerts(crossed).map(|alerts| ("x-pointsman-quota-alert", alerts.into())));
    headers
}

/// Shares of budgets that were reached, as a header's value: `budget_usd_per_day=80%`.
fn alerts(crossed: &[(Scope, Crossed)]) -> Option<String> {
    let one = |(_, c): &(Scope, Crossed)| {
        let percent = format!("{}.{}", c.share / 10, c.share % 10);
        format!("{}={}%", c.window.name(), percent.trim_end_matches(".0"))
    };
    (!crossed.is_empty()).then(|| crossed.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// The body of `GET /v1/usage`. Amounts are requests, tokens, or US dollars; a tenant sees its own only.
pub fn usage(policy: &Policy, tenant: &str, standings: &[(Scope, Standing)], now_ms: u64) -> Vec<u8> {
    let windows: Vec<Value> = standings.iter().map(|(scope, standing)| one(policy, *scope, standing, now_ms)).collect();
    json!({"object": "usage", "tenant": tenant, "windows": windows}).to_string().into_bytes()
}

fn one(policy: &Policy, scope: Scope, standing: &Standing, now_ms: u64) -> Value {
    let amount = |amount: u64| match standing.window.is_budget() {
        // Six decimals, exactly.
        true => serde_json::from_str(&MicroUsd(amount).to_decimal()).unwrap_or(Value::Null),
        false => Value::from(amount),
    };
    let resets = std::time::UNIX_EPOCH
        + std::time::Duration::from_millis(now_ms.saturating_add(standing.reset_ms).min(253_402_300_799_999));
    let mut value = json!({
        "window": standing.window.name(),
        "scope": match scope { Scope::Tenant => "tenant", Scope::User => "user", Scope::Model(_) => "model" },
        "limit": amount(standing.limit),
        "used": amount(standing.used),
        "reserved": amount(standing.reserved),
        "remaining": amount(standing.remaining()),
        "resets_at": humantime::format_rfc3339_seconds(resets).to_string(),
    });
    if let (Scope::Model(id), Some(map)) = (scope, value.as_object_mut()) {
        map.insert("model".to_owned(), Value::from(&*policy.model(id).name));
    }
    value
}

/// A length of time as Go writes it, and OpenAI after it: `120ms`, `1s`, `6m0s`, `1h0m0s`.
pub fn go_duration(ms: u64) -> String {
    if ms < 1000 {
        return if ms == 0 { "0s".to_owned() } else { [itoa::Buffer::new().format(ms), "ms"].concat() };
    }
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    let mut text = String::with_capacity(24);
    if hours > 0 {
        push(&mut text, hours);
        text.push('h');
    }
    if hours > 0 || minutes > 0 {
        push(&mut text, minutes);
        text.push('m');
    }
    push(&mut text, seconds);
    match ms % 1000 {
        0 => {}
        rest => {
            text.push('.');
            // The leading zeros of three digits, and not those at the end.
            text.extend([rest / 100, rest / 10 % 10, rest % 10].map(|digit| char::from(b'0' + digit as u8)));
            text.truncate(text.trim_end_matches('0').len());
        }
    }
    text.push('s');
    text
}

fn push(text: &mut String, number: u64) {
    text.push_str(itoa::Buffer::new().format(number));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_writes_them() {
        for (ms, text) in [
            (0, "0s"),
            (20, "20ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (10_050, "10.05s"),
            (61_007, "1m1.007s"),
            (360_000, "6m0s"),
            (3_600_000, "1h0m0s"),
            (90_061_000, "25h1m1s"),
        ] {
            assert_eq!(go_duration(ms), text);
        }
    }

    #[test]
    fn headers_are_of_the_window_with_the_least_left() {
        let standing = |window, limit, used, reset_ms| Standing { window, limit, used, reserved: 1, reset_ms };
        let all = [
            (Scope::Tenant, standing(Window::RequestsPerMinute, 60, 9, 1000)),
            (Scope::User, standing(Window::RequestsPerMinute, 10, 9, 500)),
            (Scope::Tenant, standing(Window::TokensPerDay, 1000, 0, 3_600_000)),
            (Scope::Tenant, standing(Window::BudgetPerDay, 5, 0, 1)),
        ];
        let headers = headers(&all, &[]);
        let get = |name| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| &**value);
        assert_eq!(get("x-ratelimit-limit-requests"), Some("10"));
        assert_eq!(get("x-ratelimit-remaining-requests"), Some("0"));
        assert_eq!(get("x-ratelimit-reset-requests"), Some("500ms"));
        assert_eq!(get("x-ratelimit-remaining-tokens"), Some("999"));
        assert_eq!(get("x-ratelimit-reset-tokens"), Some("1h0m0s"));
        assert_eq!(headers.len(), 6);
    }
}
