//! The response to a caller whose quota has no room.

use crate::outcome::error_body::ErrorBody;
use crate::outcome::outcome::Outcome;
use crate::outcome::refusal::Exhausted;
use crate::policy::Policy;
use crate::policy::price::MicroUsd;
use crate::quota::reservation::{Refused, Scope};
use crate::quota::window::{Full, Unit, Window};
use crate::wire::duration::go_duration;

/// The longest wait after which clients retry on their own, in milliseconds. OpenAI's clients do not wait longer.
const PATIENCE_MS: u64 = 60_000;

/// Returns the name of what refused, for metrics and the audit record.
pub fn reason(refused: &Refused) -> &'static str {
    match refused {
        Refused::Full(_, full) => full.window.name(),
        Refused::Share(_, window) => window.name(),
        Refused::Unavailable => "store_unavailable",
    }
}

/// Returns the refusal. The codes are OpenAI's: `rate_limit_exceeded` for rates, `insufficient_quota` for budgets.
pub fn exhausted(policy: &Policy, refused: &Refused) -> Exhausted {
    let mut headers = Vec::new();
    let error = |status, kind, code, message| ErrorBody { status, kind, code, param: None, message };
    let (scope, full) = match refused {
        Refused::Full(scope, full) => (*scope, *full),
        // The degraded model should have served but could not. For the caller, the window is as good as full.
        Refused::Share(scope, window) => {
            let (window, wait_ms) = (*window, Some(PATIENCE_MS));
            (*scope, Full { window, limit: 0, used: 0, reserved: 0, asked: 0, wait_ms, is_momentary: false })
        }
        Refused::Unavailable => {
            headers.push(("retry-after", "1".into()));
            let message = "Quotas cannot be checked at the moment. Try again in a moment.";
            return Exhausted {
                error: error(503, "server_error", Outcome::QuotaUnavailable, message.to_owned()),
                headers,
            };
        }
    };
    let (kind, code) = match full.window {
        // A budget that is only reserved is not spent.
        window if window.is_budget() && !full.is_momentary => ("insufficient_quota", Outcome::InsufficientQuota),
        window if window.unit() == Unit::Requests => ("requests", Outcome::RateLimitExceeded),
        _ => ("tokens", Outcome::RateLimitExceeded),
    };
    if let Some(wait) = full.wait_ms {
        headers.push(("retry-after", wait.div_ceil(1000).max(1).to_string().into()));
        headers.push(("retry-after-ms", wait.to_string().into()));
    }
    if full.wait_ms.is_none_or(|wait| wait > PATIENCE_MS) {
        headers.push(("x-should-retry", "false".into()));
    }
    Exhausted { error: error(429, kind, code, message(policy, scope, &full)), headers }
}

fn message(policy: &Policy, scope: Scope, full: &Full) -> String {
    let amount = |amount: u64| match full.window.is_budget() {
        true => format!("${}", MicroUsd(amount).to_decimal()),
        false => amount.to_string(),
    };
    let whose = match scope {
        Scope::Tenant => String::new(),
        Scope::User => " for this user".to_owned(),
        Scope::Model(id) => format!(" for the model '{}'", policy.model(id).name),
    };
    let is_spent = full.window.is_budget() && !full.is_momentary;
    let what = match is_spent {
        true if full.remaining() > 0 => "Your quota has no room for this request",
        true => "You exceeded your quota",
        false => "Rate limit reached",
    };
    if full.window == Window::Concurrent {
        return format!(
            "{what}: concurrent{whose}, limit {}. Try again when one of your requests has finished.",
            full.limit
        );
    }
    let window = format!("{}{whose}", full.window.name());
    // Nothing is known of a window whose degraded model could not serve.
    let numbers = match full.limit {
        0 => String::new(),
        _ => format!(
            ": {} of {} left ({} used, {} reserved), this request needs up to {}",
            amount(full.remaining()),
            amount(full.limit),
            amount(full.used),
            amount(full.reserved),
            amount(full.asked)
        ),
    };
    // A request asks for one request, but it may ask for fewer tokens.
    let is_smaller_possible = full.window.unit() != Unit::Requests && full.remaining() > 0;
    let smaller = if is_smaller_possible { "Ask for fewer output tokens (max_tokens), or try" } else { "Try" };
    let then = match full.wait_ms {
        Some(_) if full.is_momentary => format!("{smaller} again when one of your requests has finished."),
        Some(wait) => format!("{smaller} again in {}.", go_duration(wait)),
        None if is_smaller_possible => {
            "Waiting will not help, because it exceeds the limit: ask for fewer output tokens (max_tokens).".to_owned()
        }
        None => "The request exceeds the limit, so waiting will not help.".to_owned(),
    };
    format!("{what}: {window}{numbers}. {then}")
}
