//! Anthropic's rate-limit headers for the state of the windows.

use crate::quota::reservation::Scope;
use crate::quota::window::{Unit, Window, WindowStatus};
use crate::wire::header::HeaderLine;
use std::time::{Duration, UNIX_EPOCH};

/// Returns `anthropic-ratelimit-*` for requests and for tokens, each for the window with the least left. `now_ms`:
/// milliseconds since the Unix epoch.
///
/// Format: Anthropic's documentation, "Rate limits", "Response headers": `limit` and `remaining` are numbers, and
/// `reset` is a time in RFC 3339's format.
pub fn headers(statuses: &[(Scope, WindowStatus)], now_ms: u64) -> Vec<HeaderLine> {
    let mut headers = Vec::with_capacity(7);
    let tightest = |wanted: fn(Window) -> bool| {
        let all = statuses.iter().map(|(_, status)| status).filter(|status| wanted(status.window));
        all.min_by_key(|status| status.remaining())
    };
    let requests = tightest(|window| window == Window::RequestsPerMinute);
    let tokens = tightest(|window| window.unit() == Unit::Tokens);
    for (status, [limit, remaining, reset]) in [
        (
            requests,
            [
                "anthropic-ratelimit-requests-limit",
                "anthropic-ratelimit-requests-remaining",
                "anthropic-ratelimit-requests-reset",
            ],
        ),
        (
            tokens,
            [
                "anthropic-ratelimit-tokens-limit",
                "anthropic-ratelimit-tokens-remaining",
                "anthropic-ratelimit-tokens-reset",
            ],
        ),
    ] {
        if let Some(status) = status {
            let decimal = |number: u64| itoa::Buffer::new().format(number).to_owned().into();
            headers.push((limit, decimal(status.limit)));
            headers.push((remaining, decimal(status.remaining())));
            headers.extend(time(now_ms.saturating_add(status.reset_ms)).map(|time| (reset, time.into())));
        }
    }
    headers
}

/// Returns a time in RFC 3339's format, rounded up to the second.
fn time(at_ms: u64) -> Option<String> {
    // The format ends with the year 9999.
    const LAST_S: u64 = 253_402_300_799;
    let at_s = at_ms.div_ceil(1000);
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(at_s)).filter(|_| at_s <= LAST_S)?;
    Some(humantime::format_rfc3339_seconds(at).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_of_the_window_with_the_least_left() {
        let status = |window, limit, used, reset_ms| WindowStatus { window, limit, used, reserved: 1, reset_ms };
        let all = [
            (Scope::Tenant, status(Window::RequestsPerMinute, 60, 9, 1000)),
            (Scope::User, status(Window::RequestsPerMinute, 10, 9, 500)),
            (Scope::Tenant, status(Window::TokensPerDay, 1000, 0, 3_600_000)),
            (Scope::Tenant, status(Window::BudgetPerDay, 5, 0, 1)),
        ];
        let headers = headers(&all, 1_800_000_000_000);
        let get = |name| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| &**value);
        assert_eq!(get("anthropic-ratelimit-requests-limit"), Some("10"));
        assert_eq!(get("anthropic-ratelimit-requests-remaining"), Some("0"));
        assert_eq!(get("anthropic-ratelimit-requests-reset"), Some("2027-01-15T08:00:01Z"));
        assert_eq!(get("anthropic-ratelimit-tokens-remaining"), Some("999"));
        assert_eq!(get("anthropic-ratelimit-tokens-reset"), Some("2027-01-15T09:00:00Z"));
        assert_eq!(headers.len(), 6);
        assert_eq!(time(u64::MAX), None);
    }
}
