//! OpenAI's rate-limit headers for the state of the windows.

use crate::quota::reservation::Scope;
use crate::quota::window::{Unit, Window, WindowStatus};
use crate::wire::duration::go_duration;
use crate::wire::header::HeaderLine;

/// Returns `x-ratelimit-*` for requests and for tokens, each for the window with the least left.
///
/// Format: OpenAI, "Rate limits", "Rate limits in headers": `limit` and `remaining` are numbers, `reset` is like
/// `6m0s`.
pub fn headers(statuses: &[(Scope, WindowStatus)]) -> Vec<HeaderLine> {
    let mut headers = Vec::with_capacity(7);
    let tightest = |wanted: fn(Window) -> bool| {
        let all = statuses.iter().map(|(_, status)| status).filter(|status| wanted(status.window));
        all.min_by_key(|status| status.remaining())
    };
    let requests = tightest(|window| window == Window::RequestsPerMinute);
    let tokens = tightest(|window| window.unit() == Unit::Tokens);
    for (status, [limit, remaining, reset]) in [
        (requests, ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"]),
        (tokens, ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"]),
    ] {
        if let Some(status) = status {
            let decimal = |number: u64| itoa::Buffer::new().format(number).to_owned().into();
            headers.push((limit, decimal(status.limit)));
            headers.push((remaining, decimal(status.remaining())));
            headers.push((reset, go_duration(status.reset_ms).into()));
        }
    }
    headers
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
        let headers = headers(&all);
        let get = |name| headers.iter().find(|(n, _)| *n == name).map(|(_, value)| &**value);
        assert_eq!(get("x-ratelimit-limit-requests"), Some("10"));
        assert_eq!(get("x-ratelimit-remaining-requests"), Some("0"));
        assert_eq!(get("x-ratelimit-reset-requests"), Some("500ms"));
        assert_eq!(get("x-ratelimit-remaining-tokens"), Some("999"));
        assert_eq!(get("x-ratelimit-reset-tokens"), Some("1h0m0s"));
        assert_eq!(headers.len(), 6);
    }
}
