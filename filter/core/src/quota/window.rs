//! The windows that a limit can have, and the amounts that requests ask of them.

use crate::policy::calendar::{CalendarMemo, Period, Zone};

/// One kind of limit. [`Window::ALL`] lists them in the order in which the Redis script reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the policy's.
pub enum Window {
    RequestsPerMinute,
    TokensPerMinute,
    TokensPerDay,
    BudgetPerDay,
    BudgetPerMonth,
    Concurrent,
}

/// What a window counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Requests.
    Requests,
    /// Input and output tokens.
    Tokens,
    /// Millionths of a US dollar.
    MicroUsd,
}

/// When the used part of a window becomes available again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// Steadily, all of it within a minute.
    Minute,
    /// At the end of the calendar day.
    Day,
    /// At the end of the calendar month.
    Month,
    /// When the request ends.
    Request,
}

/// The properties of a window.
struct Row {
    name: &'static str,
    unit: Unit,
    span: Span,
}

impl Window {
    /// All windows.
    pub const ALL: [Self; 6] = [
        Self::RequestsPerMinute,
        Self::TokensPerMinute,
        Self::TokensPerDay,
        Self::BudgetPerDay,
        Self::BudgetPerMonth,
        Self::Concurrent,
    ];

    /// The windows that follow a calendar day or month.
    pub const CALENDAR: [Self; 3] = [Self::TokensPerDay, Self::BudgetPerDay, Self::BudgetPerMonth];

    /// Returns the properties of the window.
    const fn row(self) -> Row {
        const fn row(name: &'static str, unit: Unit, span: Span) -> Row {
            Row { name, unit, span }
        }
        match self {
            Self::RequestsPerMinute => row("requests_per_minute", Unit::Requests, Span::Minute),
            Self::TokensPerMinute => row("tokens_per_minute", Unit::Tokens, Span::Minute),
            Self::TokensPerDay => row("tokens_per_day", Unit::Tokens, Span::Day),
            Self::BudgetPerDay => row("budget_usd_per_day", Unit::MicroUsd, Span::Day),
            Self::BudgetPerMonth => row("budget_usd_per_month", Unit::MicroUsd, Span::Month),
            Self::Concurrent => row("concurrent", Unit::Requests, Span::Request),
        }
    }

    /// Returns the name of the window in the policy, in messages and in metrics.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns what the window counts.
    pub fn unit(self) -> Unit {
        self.row().unit
    }

    /// Returns when the used part of the window becomes available again.
    pub fn span(self) -> Span {
        self.row().span
    }

    /// Returns whether the window follows a calendar day or month. If such a window has no room, the degraded model or
    /// a template answer can take over.
    pub fn is_calendar(self) -> bool {
        matches!(self.span(), Span::Day | Span::Month)
    }

    /// Returns whether the window counts money.
    pub fn is_budget(self) -> bool {
        self.unit() == Unit::MicroUsd
    }
}

/// The limits of one scope: a tenant, a user, or a tenant's use of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Indexed by [`Window`]. `None` means no limit.
    limits: [Option<u64>; Window::ALL.len()],
    /// The burst of the per-minute limits: the time in which a full bucket drains, in milliseconds.
    pub burst_ms: u64,
}

/// One minute, in milliseconds. Also the burst if the policy sets none.
pub const MINUTE_MS: u64 = 60_000;

impl Default for Windows {
    fn default() -> Self {
        Self { limits: Default::default(), burst_ms: MINUTE_MS }
    }
}

impl Windows {
    /// Creates windows with these limits, in requests, tokens or micro-USD.
    pub fn new(burst_ms: u64, limit: impl FnMut(Window) -> Option<u64>) -> Self {
        Self { limits: Window::ALL.map(limit), burst_ms }
    }

    /// Returns the limit of a window, in requests, tokens or micro-USD. `None` means no limit.
    pub fn limit(&self, window: Window) -> Option<u64> {
        self.limits.get(window as usize).copied().flatten()
    }

    /// Returns the windows that have a limit, with their limits.
    pub fn limited(&self) -> impl Iterator<Item = (Window, u64)> {
        Window::ALL.into_iter().filter_map(|window| Some((window, self.limit(window)?)))
    }

    /// Returns whether no window has a limit.
    pub fn is_empty(&self) -> bool {
        self.limited().next().is_none()
    }

    /// Returns whether a window limits tokens or their cost.
    pub fn counts_tokens(&self) -> bool {
        self.limited().any(|(window, _)| window.unit() != Unit::Requests)
    }

    /// Returns whether a window limits the cost.
    pub fn has_budget(&self) -> bool {
        self.limited().any(|(window, _)| window.is_budget())
    }
}

/// What a request asks of the windows of a scope, or what it used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Input and output tokens, for the limit per minute.
    pub tokens: u64,
    /// Input and output tokens, for the limit per day. 0 if a degraded model serves outside the daily limit.
    pub day_tokens: u64,
    /// Cost, in micro-USD.
    pub cost: u64,
}

/// What one request asks of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// The amount.
    pub amount: Amount,
    /// Whether the request runs for a time and counts as concurrent. An answer from the cache does not.
    pub runs: bool,
}

/// The largest integer that every store holds exactly. Lua's numbers are doubles.
pub const MAX: u64 = (1 << 53) - 1;

/// The largest amounts of one request. They keep scaled sums within [`MAX`].
const MAX_TOKENS: u64 = 4_000_000_000;
const MAX_COST: u64 = 1_000_000_000_000_000;

impl Amount {
    /// Creates an amount of tokens and their cost in micro-USD, clamped to what can be counted.
    pub fn new(tokens: u64, cost: u64) -> Self {
        let tokens = tokens.min(MAX_TOKENS);
        Self { tokens, day_tokens: tokens, cost: cost.min(MAX_COST) }
    }

    /// Returns what a window counts of this amount.
    pub fn of(&self, window: Window) -> u64 {
        match window {
            Window::RequestsPerMinute | Window::Concurrent => 1,
            Window::TokensPerMinute => self.tokens,
            Window::TokensPerDay => self.day_tokens,
            Window::BudgetPerDay | Window::BudgetPerMonth => self.cost,
        }
    }

    /// Returns this many times the amount.
    pub fn times(self, times: u64) -> Self {
        Self {
            tokens: self.tokens.saturating_mul(times),
            day_tokens: self.day_tokens.saturating_mul(times),
            cost: self.cost.saturating_mul(times),
        }
    }

    /// Returns the larger value of each field.
    pub fn max(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.max(other.tokens),
            day_tokens: self.day_tokens.max(other.day_tokens),
            cost: self.cost.max(other.cost),
        }
    }

    /// Returns the smaller value of each field.
    pub fn min(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.min(other.tokens),
            day_tokens: self.day_tokens.min(other.day_tokens),
            cost: self.cost.min(other.cost),
        }
    }

    /// Returns the sum, clamped to what can be counted.
    pub fn plus(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.saturating_add(other.tokens).min(MAX_TOKENS),
            day_tokens: self.day_tokens.saturating_add(other.day_tokens).min(MAX_TOKENS),
            cost: self.cost.saturating_add(other.cost).min(MAX_COST),
        }
    }

    /// Returns the amount as the windows of one model count it. They count every token that the model serves.
    pub fn of_model(self) -> Self {
        Self { day_tokens: self.tokens, ..self }
    }

    /// Returns the amount as a degraded model uses it after the daily tokens are used up: without daily tokens.
    pub fn degraded(self) -> Self {
        Self { day_tokens: 0, ..self }
    }
}

/// A point in time, with its day and month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The calendar day.
    pub day: Period,
    /// The calendar month.
    pub month: Period,
}

impl Moment {
    /// Creates the moment `now_ms` in a time zone.
    pub fn new(zone: &Zone, now_ms: u64) -> Self {
        Self::remembered(zone, now_ms, &mut CalendarMemo::default())
    }

    /// Like `Moment::new`, with a memo for this time zone.
    pub fn remembered(zone: &Zone, now_ms: u64, memo: &mut CalendarMemo) -> Self {
        let (day, month) = zone.day_and_month(now_ms, memo);
        Self { now_ms, day, month }
    }

    /// Returns the milliseconds until the day or month of a window ends, and 0 for windows without one.
    pub fn left_ms(&self, window: Window) -> u64 {
        let ends_ms = match window.span() {
            Span::Day => self.day.ends_ms,
            Span::Month => self.month.ends_ms,
            Span::Minute | Span::Request => return 0,
        };
        ends_ms.saturating_sub(self.now_ms)
    }
}

/// A window that has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full {
    /// The window.
    pub window: Window,
    /// Its limit, in requests, tokens or micro-USD.
    pub limit: u64,
    /// How much of it is used.
    pub used: u64,
    /// How much of it is reserved for running requests.
    pub reserved: u64,
    /// How much was asked.
    pub asked: u64,
    /// Milliseconds until there is room, as far as known. `None` means never. It is unknown when a reservation will be
    /// given back, so `MOMENT_MS` stands for that.
    pub wait_ms: Option<u64>,
    /// Whether there is room once the running requests have ended. True for a daily or monthly window that has room for
    /// the request next to what is used, but not next to what is reserved.
    pub is_momentary: bool,
}

impl Full {
    /// Returns what is left of the limit.
    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used).saturating_sub(self.reserved)
    }
}

/// The suggested wait for a reservation to be given back, in milliseconds.
pub const MOMENT_MS: u64 = 1000;

/// The status of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowStatus {
    /// The window.
    pub window: Window,
    /// Its limit, in requests, tokens or micro-USD. For a per-minute window, the burst capacity.
    pub limit: u64,
    /// How much is used.
    pub used: u64,
    /// How much is reserved for running requests.
    pub reserved: u64,
    /// Milliseconds until nothing counts as used any more.
    pub reset_ms: u64,
}

impl WindowStatus {
    /// Returns what is left of the limit.
    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used).saturating_sub(self.reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_has_its_place_and_its_limit() {
        for (place, window) in Window::ALL.into_iter().enumerate() {
            assert_eq!(window as usize, place, "{window:?}");
            let one = Windows::new(MINUTE_MS, |other| (other == window).then_some(7));
            assert_eq!(one.limited().collect::<Vec<_>>(), [(window, 7)]);
            assert_eq!(one.counts_tokens(), window.unit() != Unit::Requests);
            assert_eq!(one.has_budget(), window.unit() == Unit::MicroUsd);
            assert!(!one.is_empty());
        }
        assert!(Windows::default().is_empty() && !Windows::default().counts_tokens());
        let calendar: Vec<_> = Window::ALL.into_iter().filter(|window| window.is_calendar()).collect();
        assert_eq!(calendar, Window::CALENDAR);
    }
}
