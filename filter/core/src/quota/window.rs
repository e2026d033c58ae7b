//! The windows that a limit can have, and what is asked of them.

use crate::policy::calendar::{CalendarMemo, Period, Zone};

/// One kind of limit. In [`Window::ALL`] they are in the order in which Redis's script reads them.
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

/// When what is used of a window comes back.
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

/// A row of the table of windows.
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

    /// The windows of a calendar day or month.
    pub const CALENDAR: [Self; 3] = [Self::TokensPerDay, Self::BudgetPerDay, Self::BudgetPerMonth];

    /// The table of windows.
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

    /// Its name in the policy, in messages and in metrics.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// What it counts.
    pub fn unit(self) -> Unit {
        self.row().unit
    }

    /// When what is used of it comes back.
    pub fn span(self) -> Span {
        self.row().span
    }

    /// Whether it is of a calendar day or month: then another model or an answer of the policy's can take over.
    pub fn is_calendar(self) -> bool {
        matches!(self.span(), Span::Day | Span::Month)
    }

    /// Whether it counts money.
    pub fn is_budget(self) -> bool {
        self.unit() == Unit::MicroUsd
    }
}

/// The limits of one scope: a tenant, a user, or one model's use by a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// By [`Window`]; `None` is no limit.
    limits: [Option<u64>; Window::ALL.len()],
    /// How much of the minute limits fits at once, as the time in which it refills, in milliseconds.
    pub burst_ms: u64,
}

/// A minute, in milliseconds: the burst of a policy that sets none.
pub const MINUTE_MS: u64 = 60_000;

impl Default for Windows {
    fn default() -> Self {
        Self { limits: Default::default(), burst_ms: MINUTE_MS }
    }
}

impl Windows {
    /// The windows with these limits, in requests, tokens or micro-USD.
    pub fn new(burst_ms: u64, limit: impl FnMut(Window) -> Option<u64>) -> Self {
        Self { limits: Window::ALL.map(limit), burst_ms }
    }

    /// The limit of a window, in requests, tokens or micro-USD; `None` is no limit.
    pub fn limit(&self, window: Window) -> Option<u64> {
        self.limits.get(window as usize).copied().flatten()
    }

    /// The windows that have a limit, and the limits.
    pub fn limited(&self) -> impl Iterator<Item = (Window, u64)> {
        Window::ALL.into_iter().filter_map(|window| Some((window, self.limit(window)?)))
    }

    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.limited().next().is_none()
    }

    /// Whether tokens, or what they cost, are limited.
    pub fn counts_tokens(&self) -> bool {
        self.limited().any(|(window, _)| window.unit() != Unit::Requests)
    }
}

/// What is asked of every window of a scope, or was used of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Input and output tokens, for the minute's limit.
    pub tokens: u64,
    /// The same for the day's limit; nothing where a degraded model serves.
    pub day_tokens: u64,
    /// Micro-USD.
    pub cost: u64,
}

/// What one request asks of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// How much.
    pub amount: Amount,
    /// Whether it runs for a time, so that it counts among the concurrent ones; an answer of the cache does not.
    pub runs: bool,
}

/// The largest number that every store holds exactly: Lua's numbers are doubles.
pub const MAX: u64 = (1 << 53) - 1;

/// The largest amount of one request, so that scaled sums stay within [`MAX`].
const MAX_TOKENS: u64 = 4_000_000_000;
const MAX_COST: u64 = 1_000_000_000_000_000;

impl Amount {
    /// Tokens and their cost, held within what can be counted.
    pub fn new(tokens: u64, cost: u64) -> Self {
        let tokens = tokens.min(MAX_TOKENS);
        Self { tokens, day_tokens: tokens, cost: cost.min(MAX_COST) }
    }

    /// What a window counts of it.
    pub fn of(&self, window: Window) -> u64 {
        match window {
            Window::RequestsPerMinute | Window::Concurrent => 1,
            Window::TokensPerMinute => self.tokens,
            Window::TokensPerDay => self.day_tokens,
            Window::BudgetPerDay | Window::BudgetPerMonth => self.cost,
        }
    }

    /// The larger of each.
    pub fn max(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.max(other.tokens),
            day_tokens: self.day_tokens.max(other.day_tokens),
            cost: self.cost.max(other.cost),
        }
    }

    /// The smaller of each.
    pub fn min(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.min(other.tokens),
            day_tokens: self.day_tokens.min(other.day_tokens),
            cost: self.cost.min(other.cost),
        }
    }

    /// As the windows of one model count it: all that it serves.
    pub fn of_model(self) -> Self {
        Self { day_tokens: self.tokens, ..self }
    }

    /// As a degraded model uses it: outside the day's tokens, which are what is used up.
    pub fn degraded(self) -> Self {
        Self { day_tokens: 0, ..self }
    }
}

/// A moment: its day and its month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Its day.
    pub day: Period,
    /// Its month.
    pub month: Period,
}

impl Moment {
    /// The moment `now_ms` in a time zone.
    pub fn new(zone: &Zone, now_ms: u64) -> Self {
        Self::remembered(zone, now_ms, &mut CalendarMemo::default())
    }

    /// The same, by what is remembered of this zone.
    pub fn remembered(zone: &Zone, now_ms: u64, memo: &mut CalendarMemo) -> Self {
        let (day, month) = zone.day_and_month(now_ms, memo);
        Self { now_ms, day, month }
    }

    /// Milliseconds until the day or the month of a window ends; 0 for one that has neither.
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
    /// Which one.
    pub window: Window,
    /// Its limit, in requests, tokens or micro-USD.
    pub limit: u64,
    /// What is used and reserved of it.
    pub taken: u64,
    /// What was asked.
    pub asked: u64,
    /// Milliseconds until there is room, as far as is known; `None`: there never will be. What is reserved comes back
    /// when its request ends, at a time that nobody knows: a second stands for it.
    pub wait_ms: Option<u64>,
    /// Whether there is room once the requests under way have ended, however much they have reserved: of a day's or
    /// month's window that is full of reservations, but not used up.
    pub is_momentary: bool,
}

/// How long to wait for a reservation to come back, in milliseconds.
pub const MOMENT_MS: u64 = 1000;

/// How a window stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowStatus {
    /// Which one.
    pub window: Window,
    /// Its limit, in requests, tokens or micro-USD; of a minute's limit what fits at once.
    pub limit: u64,
    /// What is used.
    pub used: u64,
    /// What is reserved for requests that are under way.
    pub reserved: u64,
    /// Milliseconds until nothing is used any more.
    pub reset_ms: u64,
}

impl WindowStatus {
    /// What is left.
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
            assert!(!one.is_empty());
        }
        assert!(Windows::default().is_empty() && !Windows::default().counts_tokens());
        let calendar: Vec<_> = Window::ALL.into_iter().filter(|window| window.is_calendar()).collect();
        assert_eq!(calendar, Window::CALENDAR);
    }
}
