//! The counters of one scope: what is used and reserved of every window, in integers.
//!
//! Every window holds a reservation until it is settled. The reserved part does not drain from the per-minute bucket,
//! and it moves into the next day or month together with its request: a request is charged to the period in which it
//! ends. Reservations with the same expiry are stored as one sum, so the record does not grow with the number of
//! requests.
//!
//! Time never runs backwards here. If the clock jumps back, the counters' time stands still until the clock catches up.

use crate::quota::window::{Amount, Full, MAX, MOMENT_MS, Moment, Span, Want, Window, WindowStatus, Windows};

/// The scale of the per-minute buckets. It makes them drain by a whole number every millisecond.
const SCALE: u64 = 60_000;

/// What a scope has used and reserved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// The latest time seen, in milliseconds since the Unix epoch.
    pub(super) at_ms: u64,
    /// Levels of the per-minute buckets, scaled.
    pub(super) requests: u64,
    pub(super) tokens: u64,
    /// What the two buckets drain per minute: the limits under which a request was last admitted.
    pub(super) rates: [Option<u64>; 2],
    pub(super) day: u32,
    pub(super) day_tokens: u64,
    pub(super) day_cost: u64,
    pub(super) month: u32,
    pub(super) month_cost: u64,
    /// The highest shares, in thousandths, that were reported, and those that were announced to a caller: of daily
    /// tokens, daily cost and monthly cost. Use only grows within a period, so all lower shares were reported too.
    pub(super) reported: [u16; 3],
    pub(super) told: [u16; 3],
    pub(super) leases: Vec<Lease>,
}

/// The reservations that expire at the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lease {
    /// The expiry, in seconds since the Unix epoch.
    pub(super) expires: u32,
    pub(super) count: u32,
    pub(super) held: Amount,
}

/// A share of a calendar window that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossed {
    /// The window.
    pub window: Window,
    /// The share, in thousandths of the limit.
    pub share: u64,
}

fn add(to: &mut u64, amount: u64) {
    *to = to.saturating_add(amount).min(MAX);
}

impl Counters {
    /// Brings all counters up to `moment` for a new request, and makes its limits the current ones. Drains the buckets,
    /// begins new periods and drops expired reservations.
    pub fn advance(&mut self, limits: &Windows, moment: &Moment) {
        let [requests, tokens] = self.rates;
        self.rates =
            [limits.limit(Window::RequestsPerMinute).or(requests), limits.limit(Window::TokensPerMinute).or(tokens)];
        self.catch_up(limits, moment);
    }

    /// Like `advance`, but for the end of a request, which may have begun under older limits. The buckets keep draining
    /// at the current limits.
    pub fn catch_up(&mut self, limits: &Windows, moment: &Moment) {
        let [requests, tokens] = self.rates;
        self.rates =
            [requests.or(limits.limit(Window::RequestsPerMinute)), tokens.or(limits.limit(Window::TokensPerMinute))];
        let elapsed = match self.at_ms {
            0 => 0,
            at => moment.now_ms.saturating_sub(at),
        };
        self.at_ms = self.at_ms.max(moment.now_ms);
        let drain = |level: &mut u64, limit: Option<u64>| {
            *level = limit.map_or(0, |limit| level.saturating_sub(limit.saturating_mul(elapsed)));
        };
        let [requests, tokens] = self.rates;
        drain(&mut self.requests, requests);
        drain(&mut self.tokens, tokens);
        if moment.day.number > self.day {
            (self.day, self.day_tokens, self.day_cost) = (moment.day.number, 0, 0);
            for shares in [&mut self.reported, &mut self.told] {
                let [tokens, day, _] = shares;
                (*tokens, *day) = (0, 0);
            }
        }
        if moment.month.number > self.month {
            (self.month, self.month_cost) = (moment.month.number, 0);
            for shares in [&mut self.reported, &mut self.told] {
                let [_, _, month] = shares;
                *month = 0;
            }
        }
        let now = self.at_ms / 1000;
        self.leases.retain(|lease| u64::from(lease.expires) > now);
    }

    /// Returns the latest time seen, in milliseconds since the Unix epoch.
    pub(super) fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// Returns whether nothing is used or reserved.
    pub fn is_idle(&self) -> bool {
        let Self { requests, tokens, day_tokens, day_cost, month_cost, leases, .. } = self;
        [requests, tokens, day_tokens, day_cost, month_cost].iter().all(|used| **used == 0) && leases.is_empty()
    }

    /// Returns whether anything is reserved.
    pub(super) fn is_running(&self) -> bool {
        !self.leases.is_empty()
    }

    /// Returns the highest share of a window that is used or reserved, in millionths of its limit.
    pub(super) fn share(&self, limits: &Windows) -> u64 {
        let held = self.held();
        let share = |(window, limit): (Window, u64)| {
            let (used, reserved) = self.taken(window, &held);
            let (taken, limit) = match window.span() {
                Span::Minute => (used.saturating_add(reserved.saturating_mul(SCALE)), capacity(limit, limits.burst_ms)),
                Span::Day | Span::Month | Span::Request => (used.saturating_add(reserved), limit),
            };
            u128::from(taken) * 1_000_000 / u128::from(limit.max(1))
        };
        limits.limited().map(share).max().map_or(0, |share| u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// Adds what other counters of the same scope hold. Both must be brought up to the same time.
    pub(super) fn merge(&mut self, other: &Self) {
        self.at_ms = self.at_ms.max(other.at_ms);
        add(&mut self.requests, other.requests);
        add(&mut self.tokens, other.tokens);
        if other.day >= self.day {
            if other.day > self.day {
                (self.day, self.day_tokens, self.day_cost) = (other.day, 0, 0);
            }
            add(&mut self.day_tokens, other.day_tokens);
            add(&mut self.day_cost, other.day_cost);
        }
        if other.month >= self.month {
            if other.month > self.month {
                (self.month, self.month_cost) = (other.month, 0);
            }
            add(&mut self.month_cost, other.month_cost);
        }
        for lease in &other.leases {
            match self.leases.iter_mut().find(|own| own.expires == lease.expires) {
                Some(own) => {
                    own.count = own.count.saturating_add(lease.count);
                    add(&mut own.held.tokens, lease.held.tokens);
                    add(&mut own.held.day_tokens, lease.held.day_tokens);
                    add(&mut own.held.cost, lease.held.cost);
                }
                None => self.leases.push(*lease),
            }
        }
    }

    fn held(&self) -> Amount {
        let mut sum = Amount::default();
        for lease in &self.leases {
            add(&mut sum.tokens, lease.held.tokens);
            add(&mut sum.day_tokens, lease.held.day_tokens);
            add(&mut sum.cost, lease.held.cost);
        }
        sum
    }

    fn running(&self) -> u64 {
        self.leases.iter().map(|lease| u64::from(lease.count)).sum()
    }

    /// Returns how much of a window is used and how much is reserved. The used part of a per-minute window is scaled.
    fn taken(&self, window: Window, held: &Amount) -> (u64, u64) {
        match window {
            Window::RequestsPerMinute => (self.requests, 0),
            Window::TokensPerMinute => (self.tokens, held.of(window)),
            Window::TokensPerDay => (self.day_tokens, held.of(window)),
            Window::BudgetPerDay => (self.day_cost, held.of(window)),
            Window::BudgetPerMonth => (self.month_cost, held.of(window)),
            Window::Concurrent => (0, self.running()),
        }
    }

    /// Returns the window that has no room for one more request of this amount. If there are several, returns the one
    /// with the longest wait.
    pub fn full(&self, limits: &Windows, want: &Want, moment: &Moment) -> Option<Full> {
        let held = self.held();
        let mut worst: Option<Full> = None;
        for (window, limit) in limits.limited() {
            let asked = match window {
                Window::Concurrent if !want.runs => 0,
                window => want.amount.of(window),
            };
            let (used, reserved) = self.taken(window, &held);
            let full = match window.span() {
                _ if asked == 0 => None,
                Span::Minute => bucket(window, limit, limits.burst_ms, used, reserved, asked),
                Span::Day | Span::Month | Span::Request => total(window, limit, used, reserved, asked, moment),
            };
            let wait = |full: &Full| full.wait_ms.unwrap_or(u64::MAX);
            if let Some(full) = full
                && worst.as_ref().is_none_or(|worst| wait(&full) > wait(worst))
            {
                worst = Some(full);
            }
        }
        worst
    }

    /// Reserves this amount for one request. Returns when the reservation expires, in seconds since the Unix epoch;
    /// pass it to [`Counters::settle`]. `lease_ms`: the longest time that the request may take. Without it, nothing is
    /// held and the request only counts as a request.
    pub fn reserve(&mut self, limits: &Windows, want: &Amount, lease_ms: Option<u64>) -> u32 {
        if limits.limit(Window::RequestsPerMinute).is_some() {
            add(&mut self.requests, SCALE);
        }
        let Some(lease_ms) = lease_ms else { return 0 };
        let expires = expiry(self.at_ms, lease_ms);
        let lease = match self.leases.iter_mut().find(|lease| lease.expires == expires) {
            Some(lease) => lease,
            None => {
                self.leases.push(Lease { expires, ..Lease::default() });
                match self.leases.last_mut() {
                    Some(lease) => lease,
                    None => return 0,
                }
            }
        };
        lease.count = lease.count.saturating_add(1);
        add(&mut lease.held.tokens, want.tokens);
        add(&mut lease.held.day_tokens, want.day_tokens);
        add(&mut lease.held.cost, want.cost);
        expires
    }

    /// Replaces a reservation by what was used. If the reservation has expired, it has already been given back, but the
    /// use still counts.
    pub fn settle(&mut self, limits: &Windows, held: &Amount, expires: u32, used: &Amount) {
        if let Some(lease) = self.leases.iter_mut().find(|lease| lease.expires == expires) {
            lease.count = lease.count.saturating_sub(1);
            lease.held.tokens = lease.held.tokens.saturating_sub(held.tokens);
            lease.held.day_tokens = lease.held.day_tokens.saturating_sub(held.day_tokens);
            lease.held.cost = lease.held.cost.saturating_sub(held.cost);
        }
        self.leases.retain(|lease| lease.count > 0);
        for (window, level, scale) in [
            (Window::TokensPerMinute, &mut self.tokens, SCALE),
            (Window::TokensPerDay, &mut self.day_tokens, 1),
            (Window::BudgetPerDay, &mut self.day_cost, 1),
            (Window::BudgetPerMonth, &mut self.month_cost, 1),
        ] {
            if limits.limit(window).is_some() {
                add(level, used.of(window).saturating_mul(scale));
            }
        }
    }

    /// Removes a reservation from counters that hold all reservations as one sum, as Redis reports them.
    pub(super) fn take_back(&mut self, limits: &Windows, held: &Amount, is_held: bool) {
        let nothing = Amount::default();
        let expires = self.leases.first().map_or(0, |lease| lease.expires);
        self.settle(limits, if is_held { held } else { &nothing }, if is_held { expires } else { 0 }, &nothing);
        if limits.limit(Window::RequestsPerMinute).is_some() {
            self.requests = self.requests.saturating_sub(SCALE);
        }
    }

    /// Undoes a reservation completely, because another scope had no room.
    pub fn cancel(&mut self, limits: &Windows, held: &Amount, expires: u32) {
        self.settle(limits, held, expires, &Amount::default());
        self.requests = self.requests.saturating_sub(SCALE);
    }

    /// Returns a calendar window of which at least `share` thousandths are used or reserved.
    pub fn reached(&self, limits: &Windows, share: u64) -> Option<Window> {
        let held = self.held();
        let is_reached = |window: &Window| {
            let (used, reserved) = self.taken(*window, &held);
            limits.limit(*window).is_some_and(|limit| is_share(used.saturating_add(reserved), share, limit))
        };
        Window::CALENDAR.into_iter().find(is_reached)
    }

    /// Returns the shares (thousandths, ascending) of calendar windows that are used and were not reported in this
    /// period, and marks them as reported.
    pub fn report(&mut self, limits: &Windows, shares: &[u64]) -> Vec<Crossed> {
        let (nothing, mut all) = (Amount::default(), Vec::new());
        let mut reported = self.reported;
        for (window, seen) in Window::CALENDAR.into_iter().zip(&mut reported) {
            let Some(limit) = limits.limit(window) else { continue };
            let (used, _) = self.taken(window, &nothing);
            for share in shares {
                if *share > u64::from(*seen) && is_share(used, *share, limit) {
                    *seen = u16::try_from(*share).unwrap_or(u16::MAX);
                    all.push(Crossed { window, share: *share });
                }
            }
        }
        self.reported = reported;
        all
    }

    /// Returns the reported shares that no caller has been told yet, and marks them as told.
    pub fn tell(&mut self, limits: &Windows, shares: &[u64]) -> Vec<Crossed> {
        let mut all = Vec::new();
        if self.told == self.reported {
            return all;
        }
        for ((window, reported), told) in Window::CALENDAR.into_iter().zip(self.reported).zip(self.told) {
            let is_limited = limits.limit(window).is_some();
            let is_new = |share: &&u64| is_limited && (u64::from(told) + 1..=u64::from(reported)).contains(*share);
            all.extend(shares.iter().filter(is_new).map(|share| Crossed { window, share: *share }));
        }
        self.told = self.reported;
        all
    }

    /// Returns whether shares were reported that no caller has been told.
    pub fn has_news(&self) -> bool {
        self.told != self.reported
    }

    /// Returns the status of every window that has a limit.
    pub fn statuses(&self, limits: &Windows, moment: &Moment) -> Vec<WindowStatus> {
        let mut all = Vec::with_capacity(6);
        self.each_status(limits, moment, |status| all.push(status));
        all
    }

    /// Passes the status of every window that has a limit to `give`.
    pub fn each_status(&self, limits: &Windows, moment: &Moment, mut give: impl FnMut(WindowStatus)) {
        let held = self.held();
        for (window, limit) in limits.limited() {
            let (used, reserved) = self.taken(window, &held);
            give(match window.span() {
                Span::Minute => {
                    let (capacity, reset_ms) = (capacity(limit, limits.burst_ms), used.div_ceil(limit.max(1)));
                    WindowStatus { window, limit: capacity / SCALE, used: used.div_ceil(SCALE), reserved, reset_ms }
                }
                Span::Day | Span::Month | Span::Request => {
                    WindowStatus { window, limit, used, reserved, reset_ms: moment.left_ms(window) }
                }
            });
        }
    }
}

/// Returns whether `taken` is at least `share` thousandths of `limit`. A sum of two values up to [`MAX`], times a
/// thousand, fits in 64 bits. If `limit` times `share` does not fit, no use can reach it.
fn is_share(taken: u64, share: u64, limit: u64) -> bool {
    limit.checked_mul(share).is_some_and(|due| taken.saturating_mul(1000) >= due)
}

/// Returns the scaled capacity of a bucket. It always fits at least one unit.
pub(super) fn capacity(limit: u64, burst_ms: u64) -> u64 {
    limit.saturating_mul(burst_ms).clamp(SCALE, MAX)
}

fn bucket(window: Window, limit: u64, burst_ms: u64, level: u64, held: u64, asked: u64) -> Option<Full> {
    let capacity = capacity(limit, burst_ms);
    let (held_scaled, asked_scaled) = (held.saturating_mul(SCALE), asked.saturating_mul(SCALE));
    let needed = level.saturating_add(held_scaled).saturating_add(asked_scaled);
    if needed <= capacity {
        return None;
    }
    let wait_ms = (asked_scaled <= capacity).then(|| (needed - capacity).min(level.max(1)).div_ceil(limit.max(1)));
    let used = level.div_ceil(SCALE);
    // A reservation is given back when its request ends, and that time is unknown.
    let wait_ms = wait_ms
        .map(|ms| if held_scaled.saturating_add(asked_scaled) > capacity { ms.max(MOMENT_MS) } else { ms.max(1) });
    Some(Full { window, limit: capacity / SCALE, used, reserved: held, asked, wait_ms, is_momentary: false })
}

/// Checks a daily, monthly or concurrency window. Returns it if it has no room.
fn total(window: Window, limit: u64, used: u64, held: u64, asked: u64, moment: &Moment) -> Option<Full> {
    let taken = used.saturating_add(held);
    if taken.saturating_add(asked) <= limit {
        return None;
    }
    let is_momentary = window.is_calendar() && used.saturating_add(asked) <= limit;
    let wait_ms = match window.span() {
        Span::Request => Some(MOMENT_MS),
        _ if is_momentary => Some(MOMENT_MS),
        _ => (asked <= limit).then(|| moment.left_ms(window).max(1)),
    };
    Some(Full { window, limit, used, reserved: held, asked, wait_ms, is_momentary })
}

/// Returns when a reservation made at `now_ms` expires, in seconds since the Unix epoch. Rounded up, so that there are
/// few distinct expiries.
fn expiry(now_ms: u64, lease_ms: u64) -> u32 {
    let step = (lease_ms / 8 / 1000).max(60);
    let at = now_ms.saturating_add(lease_ms).div_ceil(1000);
    u32::try_from(at.div_ceil(step).saturating_mul(step)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
