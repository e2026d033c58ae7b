//! The usage reports for callers, the same in every dialect: the answer to `GET /v1/usage`, and the alert header.

use crate::policy::Policy;
use crate::policy::price::MicroUsd;
use crate::quota::counters::Crossed;
use crate::quota::reservation::Scope;
use crate::quota::window::WindowStatus;
use crate::wire::header::HeaderLine;
use serde_json::{Value, json};

/// Returns the header that names the reached shares of budgets, or `None` if there are none.
pub fn alert_header(crossed: &[(Scope, Crossed)]) -> Option<HeaderLine> {
    alerts(crossed).map(|alerts| ("x-pointsman-quota-alert", alerts.into()))
}

/// Formats the reached shares of budgets as a header value: `budget_usd_per_day=80%`.
fn alerts(crossed: &[(Scope, Crossed)]) -> Option<String> {
    let one = |(_, c): &(Scope, Crossed)| {
        let percent = format!("{}.{}", c.share / 10, c.share % 10);
        format!("{}={}%", c.window.name(), percent.trim_end_matches(".0"))
    };
    (!crossed.is_empty()).then(|| crossed.iter().map(one).collect::<Vec<_>>().join(", "))
}

/// Returns the body of `GET /v1/usage`. Amounts are requests, tokens or US dollars.
pub fn usage(policy: &Policy, tenant: &str, statuses: &[(Scope, WindowStatus)], now_ms: u64) -> Vec<u8> {
    let windows: Vec<Value> = statuses.iter().map(|(scope, status)| one(policy, *scope, status, now_ms)).collect();
    json!({"object": "usage", "tenant": tenant, "windows": windows}).to_string().into_bytes()
}

fn one(policy: &Policy, scope: Scope, status: &WindowStatus, now_ms: u64) -> Value {
    let amount = |amount: u64| match status.window.is_budget() {
        // Exactly six decimals.
        true => serde_json::from_str(&MicroUsd(amount).to_decimal()).unwrap_or(Value::Null),
        false => Value::from(amount),
    };
    let resets = std::time::UNIX_EPOCH
        + std::time::Duration::from_millis(now_ms.saturating_add(status.reset_ms).min(253_402_300_799_999));
    let mut value = json!({
        "window": status.window.name(),
        "scope": match scope { Scope::Tenant => "tenant", Scope::User => "user", Scope::Model(_) => "model" },
        "limit": amount(status.limit),
        "used": amount(status.used),
        "reserved": amount(status.reserved),
        "remaining": amount(status.remaining()),
        "resets_at": humantime::format_rfc3339_seconds(resets).to_string(),
    });
    if let (Scope::Model(id), Some(map)) = (scope, value.as_object_mut()) {
        map.insert("model".to_owned(), Value::from(&*policy.model(id).name));
    }
    value
}
