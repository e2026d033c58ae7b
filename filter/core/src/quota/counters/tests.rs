//! The counters of one scope: each window with and without room, and every edge of time.

use super::*;
use crate::policy::calendar::Zone;
use crate::quota::window::MINUTE_MS;

const DAY_MS: u64 = 86_400_000;
/// 2026-01-30T00:00:00Z
const START: u64 = 1_769_731_200_000;
const LEASE: Option<u64> = Some(600_000);

fn at(now_ms: u64) -> Moment {
    Moment::new(&Zone::fixed(0), now_ms)
}

fn windows(limits: &[(Window, u64)]) -> Windows {
    let find = |window| limits.iter().find(|(limited, _)| *limited == window).map(|(_, limit)| *limit);
    Windows::new(MINUTE_MS, find)
}

/// Reserves if there is room. Returns when the reservation expires.
fn ask(counters: &mut Counters, limits: &Windows, want: Amount, now: u64) -> Result<u32, Full> {
    counters.advance(limits, &at(now));
    match counters.full(limits, &Want { amount: want, runs: true }, &at(now)) {
        Some(full) => Err(full),
        None => Ok(counters.reserve(limits, &want, LEASE)),
    }
}

fn settle(counters: &mut Counters, limits: &Windows, held: Amount, expires: u32, used: Amount, now: u64) {
    counters.catch_up(limits, &at(now));
    counters.settle(limits, &held, expires, &used);
}

#[test]
fn a_request_that_ends_under_older_limits_does_not_empty_the_buckets_of_newer_ones() {
    let newer = windows(&[(Window::RequestsPerMinute, 5), (Window::TokensPerMinute, 500)]);
    let lavish = windows(&[(Window::RequestsPerMinute, 60_000), (Window::TokensPerMinute, 1_000_000)]);
    for older in [windows(&[]), lavish, windows(&[(Window::Concurrent, 100)])] {
        let mut counters = Counters::default();
        let (want, used) = (Amount::new(10, 0), Amount::new(100, 0));
        let begun: Vec<u32> = (0..20).map(|_| ask(&mut counters, &older, want, START).unwrap()).collect();
        let mut passed = 0;
        for (n, expires) in begun.into_iter().enumerate() {
            let now = START + 1000 + 100 * n as u64;
            passed += usize::from(ask(&mut counters, &newer, want, now).is_ok());
            settle(&mut counters, &older, want, expires, used, now);
            passed += usize::from(ask(&mut counters, &newer, want, now).is_ok());
        }
        assert!(passed <= 5, "{passed}");
        // Room returns at the rate of the newer limits.
        assert!(ask(&mut counters, &newer, Amount::new(1, 0), START + 300_000).is_ok());
    }
    // After a limit is removed, its level still drains at the old rate. When the limit returns, it starts from there.
    let mut counters = Counters::default();
    while ask(&mut counters, &newer, Amount::default(), START).is_ok() {}
    ask(&mut counters, &windows(&[]), Amount::default(), START + 12_000).unwrap();
    assert!(ask(&mut counters, &newer, Amount::default(), START + 12_000).is_ok());
    assert!(ask(&mut counters, &newer, Amount::default(), START + 12_000).is_err());
}

#[test]
fn a_minute_refills_smoothly_and_says_exactly_when() {
    let limits = windows(&[(Window::RequestsPerMinute, 6)]);
    let mut counters = Counters::default();
    for _ in 0..6 {
        ask(&mut counters, &limits, Amount::default(), START).unwrap();
    }
    let full = ask(&mut counters, &limits, Amount::default(), START).unwrap_err();
    assert_eq!((full.window, full.limit, full.wait_ms), (Window::RequestsPerMinute, 6, Some(10_000)));
    assert!(ask(&mut counters, &limits, Amount::default(), START + 9_999).is_err());
    assert!(ask(&mut counters, &limits, Amount::default(), START + 10_000).is_ok());
    assert!(ask(&mut counters, &limits, Amount::default(), START + 10_000).is_err());
}

#[test]
fn burst_bounds_what_fits_at_once_but_never_below_one() {
    for (burst_ms, fits) in [(60_000, 60), (10_000, 10), (1, 1), (120_000, 120)] {
        let limits = Windows::new(burst_ms, |window| (window == Window::RequestsPerMinute).then_some(60));
        let mut counters = Counters::default();
        let passed = (0..200).filter(|_| ask(&mut counters, &limits, Amount::default(), START).is_ok()).count();
        assert_eq!(passed, fits);
    }
}

#[test]
fn what_is_held_does_not_drain_and_what_was_used_does() {
    let limits = windows(&[(Window::TokensPerMinute, 600)]);
    let mut counters = Counters::default();
    let want = Amount::new(600, 0);
    let expires = ask(&mut counters, &limits, want, START).unwrap();
    // After half a minute nothing has drained, because the request may still use everything.
    assert!(ask(&mut counters, &limits, Amount::new(1, 0), START + 30_000).is_err());
    settle(&mut counters, &limits, want, expires, Amount::new(300, 0), START + 30_000);
    assert!(ask(&mut counters, &limits, Amount::new(301, 0), START + 30_000).is_err());
    assert!(ask(&mut counters, &limits, Amount::new(300, 0), START + 30_000).is_ok());
    let too_large =
        counters.full(&limits, &Want { amount: Amount::new(601, 0), runs: true }, &at(START + 30_000)).unwrap();
    assert_eq!(too_large.wait_ms, None, "never");
}

#[test]
fn a_day_and_a_month_end_where_they_end_and_a_request_across_is_charged_where_it_ends() {
    let limits = windows(&[(Window::TokensPerDay, 100), (Window::BudgetPerMonth, 50)]);
    let mut counters = Counters::default();
    // One second before the end of January.
    let late = START + 2 * DAY_MS - 1000;
    let first = Amount::new(60, 40);
    let expires = ask(&mut counters, &limits, first, late).unwrap();
    let full = ask(&mut counters, &limits, Amount::new(41, 1), late).unwrap_err();
    assert_eq!((full.window, full.used + full.reserved, full.wait_ms), (Window::TokensPerDay, 60, Some(1000)));
    // In February the request still holds its reservation, and is charged there.
    assert!(ask(&mut counters, &limits, Amount::new(41, 1), late + 2000).is_err());
    settle(&mut counters, &limits, first, expires, Amount::new(30, 20), late + 2000);
    let statuses = counters.statuses(&limits, &at(late + 2000));
    let used: Vec<_> = statuses.iter().map(|s| (s.used, s.reserved)).collect();
    assert_eq!(used, [(30, 0), (20, 0)]);
    assert_eq!(statuses[1].reset_ms, 28 * DAY_MS - 1000);
}

#[test]
fn a_window_full_of_reservations_is_full_for_the_moment_and_one_that_is_used_up_until_it_ends() {
    let limits = windows(&[(Window::TokensPerDay, 100), (Window::BudgetPerDay, 50)]);
    let mut counters = Counters::default();
    let (held, want) = (Amount::new(90, 40), Amount::new(20, 20));
    let expires = ask(&mut counters, &limits, held, START).unwrap();
    let full = ask(&mut counters, &limits, want, START).unwrap_err();
    assert_eq!((full.is_momentary, full.wait_ms), (true, Some(MOMENT_MS)));
    // A request above the limit never fits, whatever is given back.
    let never = ask(&mut counters, &limits, Amount::new(101, 0), START).unwrap_err();
    assert_eq!((never.is_momentary, never.wait_ms), (false, None));
    settle(&mut counters, &limits, held, expires, Amount::new(81, 40), START);
    let full = ask(&mut counters, &limits, want, START).unwrap_err();
    assert_eq!((full.is_momentary, full.wait_ms), (false, Some(DAY_MS)));
    // Part is used and part is reserved. For a request above the unused part, the window is used up.
    ask(&mut counters, &limits, Amount::new(10, 5), START).unwrap();
    assert!(ask(&mut counters, &limits, Amount::new(19, 0), START).unwrap_err().is_momentary);
    assert!(!ask(&mut counters, &limits, Amount::new(20, 0), START).unwrap_err().is_momentary);
}

#[test]
fn a_clock_that_jumps_back_frees_nothing_and_brings_no_old_window_back() {
    let limits = windows(&[(Window::RequestsPerMinute, 1), (Window::TokensPerDay, 10), (Window::BudgetPerMonth, 10)]);
    let mut counters = Counters::default();
    let want = Amount::new(10, 10);
    let expires = ask(&mut counters, &limits, want, START + 40 * DAY_MS).unwrap();
    settle(&mut counters, &limits, want, expires, want, START + 40 * DAY_MS);
    for back in [1, 60_000, DAY_MS, 40 * DAY_MS] {
        assert!(ask(&mut counters, &limits, Amount::new(1, 0), START + 40 * DAY_MS - back).is_err(), "{back}");
        let money = windows(&[(Window::BudgetPerMonth, 10)]);
        assert!(ask(&mut counters.clone(), &money, Amount::new(0, 1), START + 40 * DAY_MS - back).is_err());
    }
    assert!(ask(&mut counters, &limits, Amount::new(1, 0), START + 41 * DAY_MS).is_ok());
}

#[test]
fn a_reservation_that_nobody_settles_expires_and_is_charged_if_it_ends_after_all() {
    let limits = windows(&[(Window::BudgetPerDay, 10), (Window::Concurrent, 1)]);
    let mut counters = Counters::default();
    let want = Amount::new(1, 10);
    let expires = ask(&mut counters, &limits, want, START).unwrap();
    assert!(ask(&mut counters, &limits, Amount::default(), START + 599_999).is_err(), "one at a time");
    let again = ask(&mut counters, &limits, want, START + 660_001).unwrap();
    // The first request ends late: its use counts, and the second reservation stays.
    settle(&mut counters, &limits, want, expires, Amount::new(1, 7), START + 660_001);
    let statuses = counters.statuses(&limits, &at(START + 660_001));
    assert_eq!((statuses[0].used, statuses[0].reserved, statuses[1].reserved), (7, 10, 1));
    settle(&mut counters, &limits, want, again, Amount::default(), START + 660_001);
    assert_eq!(counters.statuses(&limits, &at(START + 660_001))[1].reserved, 0);
}

#[test]
fn the_window_to_wait_for_longest_is_named_and_what_costs_nothing_needs_no_budget() {
    let limits = windows(&[
        (Window::RequestsPerMinute, 1),
        (Window::BudgetPerDay, 5),
        (Window::BudgetPerMonth, 5),
        (Window::Concurrent, 1),
    ]);
    let mut counters = Counters::default();
    let expires = ask(&mut counters, &limits, Amount::new(0, 5), START).unwrap();
    settle(&mut counters, &limits, Amount::new(0, 5), expires, Amount::new(0, 5), START);
    let full = ask(&mut counters, &limits, Amount::new(0, 1), START).unwrap_err();
    assert_eq!(full.window, Window::BudgetPerMonth);
    assert!(ask(&mut counters, &limits, Amount::new(9, 0), START + 60_000).is_ok());
}

#[test]
fn shares_are_reported_once_in_each_window_and_told_once() {
    let limits = windows(&[(Window::BudgetPerDay, 100), (Window::BudgetPerMonth, 1000)]);
    let shares = [500, 800];
    let mut counters = Counters::default();
    let spend = |counters: &mut Counters, cost, now| {
        counters.advance(&limits, &at(now));
        counters.settle(&limits, &Amount::default(), 0, &Amount::new(0, cost));
        let names = |all: Vec<Crossed>| all.iter().map(|c| (c.window.name(), c.share)).collect::<Vec<_>>();
        let told = names(counters.tell(&limits, &shares));
        (names(counters.report(&limits, &shares)), told)
    };
    assert_eq!(spend(&mut counters, 49, START).0, []);
    assert_eq!(spend(&mut counters, 1, START).0, [("budget_usd_per_day", 500)]);
    assert_eq!(spend(&mut counters, 0, START), (vec![], vec![("budget_usd_per_day", 500)]));
    assert_eq!(spend(&mut counters, 0, START), (vec![], vec![]));
    assert_eq!(spend(&mut counters, 40, START).0, [("budget_usd_per_day", 800)]);
    assert_eq!(spend(&mut counters, 95, START + DAY_MS).0, [("budget_usd_per_day", 500), ("budget_usd_per_day", 800)]);
}

#[test]
fn absurd_amounts_and_times_neither_wrap_nor_panic() {
    let limits = Windows::new(u64::MAX, |window| Some(if window.is_calendar() { MAX } else { u64::MAX }));
    let mut counters = Counters::default();
    let want = Amount::new(u64::MAX, u64::MAX);
    for now in [0, START, u64::MAX, 5] {
        counters.advance(&limits, &at(now));
        let _ = counters.full(&limits, &Want { amount: want, runs: true }, &at(now));
        let expires = counters.reserve(&limits, &want, Some(u64::MAX));
        counters.settle(&limits, &Amount::default(), expires, &want);
        counters.settle(&limits, &want, expires, &Amount { tokens: u64::MAX, day_tokens: u64::MAX, cost: u64::MAX });
        let _ = counters.statuses(&limits, &at(now));
    }
    assert!(counters.day_cost <= MAX && counters.day_tokens <= MAX && counters.tokens <= MAX);
}

#[test]
fn an_answer_of_the_cache_counts_as_a_request_and_needs_no_place_among_the_concurrent() {
    let limits = windows(&[(Window::RequestsPerMinute, 2), (Window::Concurrent, 1), (Window::TokensPerDay, 1)]);
    let mut counters = Counters::default();
    ask(&mut counters, &limits, Amount::new(1, 0), START).unwrap();
    let hit = Want { amount: Amount::default(), runs: false };
    assert_eq!(counters.full(&limits, &hit, &at(START)), None);
    counters.reserve(&limits, &hit.amount, None);
    let full = counters.full(&limits, &hit, &at(START)).unwrap();
    assert_eq!(full.window, Window::RequestsPerMinute);
    assert_eq!(counters.statuses(&limits, &at(START)).last().unwrap().reserved, 1, "only the first one runs");
}
