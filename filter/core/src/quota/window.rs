//! The windows that a limit can have, and what is asked of them.

use crate::policy::calendar::{CalendarMemo, Period, Zone};

/// The limits of one scope: a tenant, a user, or one model's use by a tenant. `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows {
    /// Requests that refill in a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens that refill in a minute.
    pub tokens_per_minute: Option<u64>,
    /// How much of the minute limits fits at once, as the time in which it refills.
    pub burst_ms: u64,
    /// Tokens of a calendar day.
    pub tokens_per_day: Option<u64>,
    /// Micro-USD of a calendar day.
    pub budget_per_day: Option<u64>,
    /// Micro-USD of a calendar month.
    pub budget_per_month: Option<u64>,
    /// Requests at a time.
    pub concurrent: Option<u64>,
}

impl Windows {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        self.requests_per_minute.is_none() && self.concurrent.is_none() && !self.counts_tokens()
    }

    /// Whether tokens, or what they cost, are limited.
    pub fn counts_tokens(&self) -> bool {
        self.tokens_per_minute.is_some() || self.tokens_per_day.is_some() || self.has_budget()
    }

    /// Whether what tokens cost is limited.
    pub fn has_budget(&self) -> bool {
        self.budget_per_day.is_some() || self.budget_per_month.is_some()
    }
}

/// One kind of limit.
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

impl Window {
    /// Its name in the policy, in messages and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestsPerMinute => "requests_per_minute",
            Self::TokensPerMinute => "tokens_per_minute",
            Self::TokensPerDay => "tokens_per_day",
            Self::BudgetPerDay => "budget_usd_per_day",
            Self::BudgetPerMonth => "budget_usd_per_month",
            Self::Concurrent => "concurrent",
        }
    }

    /// Whether it is of a calendar day or month: then another model or an answer of the policy's can take over.
    pub fn is_calendar(self) -> bool {
        matches!(self, Self::TokensPerDay | Self::BudgetPerDay | Self::BudgetPerMonth)
    }

    /// Whether it counts money.
    pub fn is_budget(self) -> bool {
        matches!(self, Self::BudgetPerDay | Self::BudgetPerMonth)
    }

    /// Whether it counts requests.
    pub fn is_of_requests(self) -> bool {
        matches!(self, Self::RequestsPerMinute | Self::Concurrent)
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
pub const MOST: u64 = (1 << 53) - 1;

/// The largest amount of one request, so that scaled sums stay within [`MOST`].
const MOST_TOKENS: u64 = 4_000_000_000;
const MOST_COST: u64 = 1_000_000_000_000_000;

impl Amount {
    /// Tokens and their cost, held within what can be counted.
    pub fn new(tokens: u64, cost: u64) -> Self {
        let tokens = tokens.min(MOST_TOKENS);
        Self { tokens, day_tokens: tokens, cost: cost.min(MOST_COST) }
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
    /// Milliseconds until there is room, as far as is known; `None`: there never will be. What is reserved comes back when
    /// its request ends, at a time that nobody knows: a second stands for it.
    pub wait_ms: Option<u64>,
    /// Whether there is room once the requests under way have ended, however much they have reserved: of a day's or
    /// month's window that is full of reservations, but not used up.
    pub is_momentary: bool,
}

/// How long to wait for a reservation to come back, in milliseconds.
pub const MOMENT_MS: u64 = 1000;

/// How a window stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
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

impl Standing {
    /// What is left.
    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used).saturating_sub(self.reserved)
    }
}
