//! All scopes of a request: one atomic step, undone as a whole, under every interleaving.

use super::*;
use crate::ids::ModelId;
use crate::policy::Policy;
use crate::policy::calendar::Zone;
use crate::policy::limits::Limits;
use crate::policy::limits::ScopeKey;
use crate::quota::fixture::{Random, START, Shared};
use crate::quota::reservation::*;
use crate::quota::window::Moment;
use crate::quota::window::{Amount, Full, Window, WindowStatus};
use serde_json::json;

const ANY: ScopeKey = [0xff; 32];

fn policy(tier: serde_json::Value) -> Policy {
    crate::quota::fixture::policy(&tier, 16)
}

fn limits(policy: &Policy) -> &Limits {
    policy.quota_of(policy.find_tenant("acme").unwrap()).unwrap()
}

fn model(policy: &Policy, name: &str) -> ModelId {
    policy.find_model(name).unwrap()
}

fn moment(now_ms: u64) -> Moment {
    Moment::new(&Zone::fixed(0), now_ms)
}

fn ask<'a>(user: &'a ScopeKey, models: &'a [(ModelId, Amount)]) -> Ask<'a> {
    Ask {
        tenant: "acme",
        user,
        models,
        lease_ms: Some(600_000),
        adds_up: false,
        stop_at_degrade_threshold: true,
        is_rough: false,
    }
}

fn used(store: &mut Shared, limits: &Limits, whose: Scope, window: Window) -> (u64, u64) {
    let now = moment(store.now_ms);
    let all = look(store, limits, &ask(&ANY, &[]), &now);
    let found = all.iter().find(|(scope, status)| *scope == whose && status.window == window);
    found.map_or((0, 0), |(_, status)| (status.used, status.reserved))
}

#[test]
fn a_users_reservation_is_given_back_where_the_tenant_has_no_room() {
    let policy = policy(json!({"tokens_per_day": 10, "per_user": {"tokens_per_day": 8, "requests_per_minute": 2}}));
    let (limits, mut store) = (limits(&policy), Shared { now_ms: START, ..Shared::default() });
    let small = model(&policy, "small");
    let eight = [(small, Amount::new(8, 0))];
    let other = [1; 32];
    reserve(&mut store, limits, &ask(&ANY, &eight), &moment(START)).unwrap();
    for _ in 0..5 {
        let refused = reserve(&mut store, limits, &ask(&other, &eight), &moment(START)).unwrap_err();
        assert!(
            matches!(refused, Refused::Full(Scope::Tenant, Full { window: Window::TokensPerDay, .. })),
            "{refused:?}"
        );
    }
    // The refusals cost the other user neither tokens nor requests.
    let two = [(small, Amount::new(2, 0))];
    let grant = reserve(&mut store, limits, &ask(&other, &two), &moment(START)).unwrap();
    let own = |window| grant.statuses.iter().find(|(s, st)| *s == Scope::User && st.window == window).unwrap().1;
    assert_eq!(own(Window::TokensPerDay).reserved, 2);
    assert_eq!(own(Window::RequestsPerMinute).used, 1);
    let refused = reserve(&mut store, limits, &ask(&ANY, &two), &moment(START)).unwrap_err();
    assert!(matches!(refused, Refused::Full(Scope::User, _)), "{refused:?}");
}

#[test]
fn a_model_whose_windows_are_full_is_left_out_and_the_others_are_reserved_at_their_worst() {
    let policy = policy(json!({"tokens_per_day": 100, "per_model": {"big": {"tokens_per_day": 10}}}));
    let (limits, mut store) = (limits(&policy), Shared { now_ms: START, ..Shared::default() });
    let (small, big) = (model(&policy, "small"), model(&policy, "big"));
    let both = [(small, Amount::new(5, 0)), (big, Amount::new(9, 0))];
    let first = reserve(&mut store, limits, &ask(&ANY, &both), &moment(START)).unwrap();
    assert_eq!(used(&mut store, limits, Scope::Tenant, Window::TokensPerDay), (0, 9));
    let second = reserve(&mut store, limits, &ask(&ANY, &both), &moment(START)).unwrap();
    assert_eq!(second.full_models, [big]);
    assert_eq!(used(&mut store, limits, Scope::Tenant, Window::TokensPerDay), (0, 14));
    let only = [(big, Amount::new(9, 0))];
    let refused = reserve(&mut store, limits, &ask(&ANY, &only), &moment(START)).unwrap_err();
    assert!(matches!(refused, Refused::Full(Scope::Model(id), _) if id == big));
    // The small model answered, so the big model's window gets its reservation back.
    let charge = Charge { model: small, used: Amount::new(4, 0) };
    settle(&mut store, limits, &first.reservation, &[charge], &moment(START));
    assert_eq!(used(&mut store, limits, Scope::Tenant, Window::TokensPerDay), (4, 5));
    assert_eq!(used(&mut store, limits, Scope::Model(big), Window::TokensPerDay), (0, 0));
}

#[test]
fn shadow_counts_what_it_lets_through() {
    let policy = policy(json!({"tokens_per_day": 10, "shadow": true, "per_user": {"concurrent": 1}}));
    let (limits, mut store) = (limits(&policy), Shared { now_ms: START, ..Shared::default() });
    let eight = [(model(&policy, "small"), Amount::new(8, 0))];
    assert_eq!(reserve(&mut store, limits, &ask(&ANY, &eight), &moment(START)).unwrap().shadowed, None);
    let second = reserve(&mut store, limits, &ask(&[3; 32], &eight), &moment(START)).unwrap();
    assert!(matches!(second.shadowed, Some(Refused::Full(Scope::Tenant, _))));
    assert_eq!(used(&mut store, limits, Scope::Tenant, Window::TokensPerDay), (0, 16));
}

#[test]
fn a_share_asks_for_another_model_and_can_be_disregarded() {
    let policy = policy(json!({"tokens_per_day": 10, "degrade_at": 0.8, "on_exhausted": {"degrade": "small"}}));
    let (limits, mut store) = (limits(&policy), Shared { now_ms: START, ..Shared::default() });
    let (eight, one) = ([(model(&policy, "big"), Amount::new(8, 0))], [(model(&policy, "big"), Amount::new(1, 0))]);
    reserve(&mut store, limits, &ask(&ANY, &eight), &moment(START)).unwrap();
    let refused = reserve(&mut store, limits, &ask(&ANY, &one), &moment(START)).unwrap_err();
    assert_eq!(refused, Refused::Share(Scope::Tenant, Window::TokensPerDay));
    let heedless = Ask { stop_at_degrade_threshold: false, ..ask(&ANY, &one) };
    assert!(reserve(&mut store, limits, &heedless, &moment(START)).is_ok());
}

#[test]
fn a_user_who_is_named_is_held_to_limits_of_its_own_beside_others_in_its_record() {
    let mut document = crate::fixture::document();
    document["quota"] = json!({"users": 16, "default_price": {"input": 1, "output": 1}});
    document["tiers"]["pro"]["limits"]["per_user"] = json!({"requests_per_minute": 1, "tokens_per_day": 10});
    document["tenants"]["acme"]["limits"]["users"] = json!({"ann": {"tokens_per_day": 30, "requests_per_minute": 3}});
    document["tenants"]["clinic"]["limits"]["users"] = json!({"ann": {"requests_per_minute": 2}});
    let policy = crate::policy::parse::from_value(&document).unwrap().1;
    let key = |tenant: &str| crate::identity::keys::UserHash::new(tenant, b"ann").0;
    let mut store = Shared { now_ms: START, ..Shared::default() };
    let eight = [(model(&policy, "small"), Amount::new(8, 0))];
    let mut passes = |tenant: &str, user: &ScopeKey| {
        let limits = policy.quota_of(policy.find_tenant(tenant).unwrap()).unwrap();
        let ask = Ask { tenant, ..ask(user, &eight) };
        (0..9).take_while(|_| reserve(&mut store, limits, &ask, &moment(START)).is_ok()).count()
    };
    // A named user's limits replace the limits of each user. They do not apply to other users or in another tenant.
    assert_eq!((passes("acme", &key("acme")), passes("acme", &ANY), passes("acme", &key("clinic"))), (3, 1, 1));
    assert_eq!((passes("clinic", &key("clinic")), passes("clinic", &key("acme"))), (1, 1), "ten tokens, as each has");
    let limits = limits(&policy);
    let statuses = look(&mut store, limits, &ask(&key("acme"), &[]), &moment(START));
    let of_day = statuses.iter().find(|(_, status)| status.window == Window::TokensPerDay).unwrap().1;
    assert_eq!((of_day.limit, of_day.reserved), (30, 24));
}

/// The law: on every interleaving of reserve, settle, abort, expiry and clock steps, no window exceeds its limit,
/// nothing is charged twice, and no charge is lost.
#[test]
fn no_interleaving_exceeds_a_limit_charges_twice_or_loses_a_charge() {
    let policy = policy(json!({
        "requests_per_minute": 40, "tokens_per_minute": 3000, "tokens_per_day": 5000, "budget_usd_per_day": 0.006,
        "budget_usd_per_month": 0.03, "concurrent": 7,
        "per_user": {"tokens_per_day": 2500, "concurrent": 4}, "per_model": {"big": {"budget_usd_per_day": 0.003}}
    }));
    let limits = limits(&policy);
    let models = [model(&policy, "small"), model(&policy, "big")];
    let (mut granted, mut refused, mut expired) = (0, 0, 0);
    for seed in 0..300 {
        let mut random = Random(seed);
        let mut store = Shared { now_ms: START, ..Shared::default() };
        // The expected counts, computed differently: the sum of the charges since the current day and month began.
        let (mut high_water, mut seen, mut day, mut month) = (0, 0, 0, 0);
        let (mut day_tokens, mut day_cost, mut month_cost) = (0u64, 0u64, 0u64);
        let mut open = Vec::new();
        for _ in 0..400 {
            let now = moment(store.now_ms);
            match random.below(100) {
                0..45 => {
                    let tokens = 1 + random.below(400);
                    let plan = [(models[0], Amount::new(tokens, 0)), (models[1], Amount::new(tokens, tokens))];
                    let user = [random.below(3) as u8; 32];
                    match reserve(&mut store, limits, &ask(&user, &plan), &now) {
                        Ok(grant) => {
                            granted += 1;
                            seen = seen.max(store.now_ms);
                            open.push((grant.reservation, plan, high_water.max(store.now_ms)));
                        }
                        Err(_) => refused += 1,
                    }
                }
                45..85 if !open.is_empty() => {
                    let (reservation, plan, since) = open.swap_remove(random.below(open.len() as u64) as usize);
                    let (model, most) = plan[random.below(2) as usize];
                    let part = random.below(most.tokens + 1);
                    let spent = Amount::new(part, if most.cost > 0 { part } else { 0 });
                    // One request in four is aborted before it used anything.
                    let charge = (random.below(4) > 0).then_some(Charge { model, used: spent });
                    expired += u32::from(high_water.max(store.now_ms) > since + 720_000);
                    settle(&mut store, limits, &reservation, charge.as_slice(), &now);
                    seen = seen.max(store.now_ms);
                    let at = moment(seen);
                    if at.day.number > day {
                        (day, day_tokens, day_cost) = (at.day.number, 0, 0);
                    }
                    if at.month.number > month {
                        (month, month_cost) = (at.month.number, 0);
                    }
                    let spent = charge.map_or(Amount::default(), |charge| charge.used);
                    (day_tokens, day_cost, month_cost) =
                        (day_tokens + spent.tokens, day_cost + spent.cost, month_cost + spent.cost);
                }
                // A worker dies, so its request is never settled.
                85..87 if !open.is_empty() => drop(open.pop()),
                87..96 => store.now_ms += random.below(30_000),
                96 => store.now_ms += random.below(90_000_000),
                97..99 => store.now_ms = store.now_ms.saturating_sub(random.below(3_600_000)),
                _ => {}
            }
            high_water = high_water.max(store.now_ms);
            let latest = moment(high_water);
            let on_time = expired == 0;
            let counted = look(&mut store, limits, &ask(&[0; 32], &[]), &moment(high_water));
            for (scope, status) in &counted {
                let WindowStatus { window, limit, used, reserved, .. } = status;
                assert!(
                    !on_time || used + reserved <= *limit,
                    "seed {seed}: {scope:?} {window:?}: {used} + {reserved} of {limit}"
                );
            }
            let tenant = |wanted| {
                counted.iter().find(|(s, st)| *s == Scope::Tenant && st.window == wanted).map(|(_, st)| st.used)
            };
            let current = |number: u32, latest: u32, sum: u64| if number == latest { sum } else { 0 };
            assert_eq!(tenant(Window::TokensPerDay), Some(current(day, latest.day.number, day_tokens)), "seed {seed}");
            assert_eq!(tenant(Window::BudgetPerDay), Some(current(day, latest.day.number, day_cost)), "seed {seed}");
            let spent = current(month, latest.month.number, month_cost);
            assert_eq!(tenant(Window::BudgetPerMonth), Some(spent), "seed {seed}");
        }
        expired = 0;
        // At the end everything is settled or has expired, so nothing stays reserved.
        store.now_ms = high_water + 720_001;
        let last = moment(store.now_ms);
        for (_, status) in look(&mut store, limits, &ask(&[0; 32], &[]), &last) {
            assert_eq!(status.reserved, 0);
        }
    }
    assert!(granted > 10_000 && refused > 10_000, "{granted} granted, {refused} refused");
}
