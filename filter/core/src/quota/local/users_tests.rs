//! Users and the table they are counted in: as many as the policy says have room, none is refused because of others,
//! and every user is counted once, whatever other workers and policies do meanwhile.

use super::*;
use crate::ids::ModelId;
use crate::policy::Policy;
use crate::policy::calendar::Zone;
use crate::policy::limits::{Limits, ScopeKey};
use crate::quota::fixture::{Random, START, Shared};
use crate::quota::local::user_record::{MAX_RUNNING, PLACES, UserRecord};
use crate::quota::rate::{Pace, Rate};
use crate::quota::reservation::*;
use crate::quota::store::Store;
use crate::quota::users::UserTable;
use crate::quota::window::{Amount, Moment, Window, WindowStatus};
use crate::tokens::Correction;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::rc::Rc;

fn policy(limits: Value) -> (Policy, Limits, ModelId) {
    let policy = crate::quota::fixture::policy(&limits, 16);
    let limits = policy.quota_of(policy.find_tenant("acme").unwrap()).unwrap().clone();
    let model = policy.find_model("small").unwrap();
    (policy, limits, model)
}

fn key(n: u64) -> ScopeKey {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&n.to_le_bytes());
    key
}

fn moment(now_ms: u64) -> Moment {
    Moment::new(&Zone::fixed(0), now_ms)
}

fn store(users: u32) -> Shared {
    Shared { now_ms: START, users: Rc::new(UserTable::new(users)), ..Shared::default() }
}

/// Reserves some tokens for a user.
fn hold(
    store: &mut dyn Store,
    limits: &Limits,
    model: ModelId,
    user: u64,
    tokens: u64,
) -> Result<(Grant, Charge), Refused> {
    let (models, user) = ([(model, Amount::new(tokens, 0))], key(user));
    let ask = Ask {
        tenant: "acme",
        user: &user,
        models: &models,
        lease_ms: Some(600_000),
        adds_up: false,
        stop_at_degrade_threshold: false,
        is_rough: false,
    };
    let now = moment(store.now_ms());
    let grant = reserve(store, limits, &ask, &now)?;
    Ok((grant, Charge { model, used: Amount::new(tokens, 0) }))
}

/// Uses some tokens for a user. Returns how many users made room.
fn take(store: &mut dyn Store, limits: &Limits, model: ModelId, user: u64, tokens: u64) -> Result<u64, Refused> {
    let (grant, charge) = hold(store, limits, model, user, tokens)?;
    let now = moment(store.now_ms());
    settle(store, limits, &grant.reservation, &[charge], &now);
    Ok(grant.evicted)
}

/// Returns what a user has used and reserved of its day.
fn day(store: &mut dyn Store, limits: &Limits, user: u64) -> (u64, u64) {
    let user = key(user);
    let ask = Ask {
        tenant: "acme",
        user: &user,
        models: &[],
        lease_ms: None,
        adds_up: false,
        stop_at_degrade_threshold: false,
        is_rough: false,
    };
    let now = moment(store.now_ms());
    let all = look(store, limits, &ask, &now);
    let of_day = |(scope, status): &(Scope, WindowStatus)| {
        (*scope == Scope::User && status.window == Window::TokensPerDay).then_some((status.used, status.reserved))
    };
    all.iter().find_map(of_day).unwrap()
}

/// Returns in how many records each user is counted, and checks that no record holds too many.
fn counted(store: &Shared) -> BTreeMap<ScopeKey, usize> {
    let mut all = BTreeMap::new();
    for (name, bytes) in store.records.iter().filter(|(name, _)| name.contains('#')) {
        let record = UserRecord::decode(bytes);
        assert!(record.len() <= MAX_RUNNING, "{name}");
        record.keys().for_each(|key| *all.entry(*key).or_default() += 1);
    }
    all
}

#[test]
fn as_many_users_as_the_policy_says_are_counted_at_a_time_and_half_as_many_again_nearly_always() {
    let (_policy, limits, model) = policy(json!({"per_user": {"tokens_per_day": 100}}));
    for users in [16, 17, 100, 1024, 1024, 1024, 1024, 8192] {
        let mut store = store(users);
        for user in 0..u64::from(users) {
            assert_eq!(take(&mut store, &limits, model, user, 60), Ok(0), "{user} of {users}");
        }
        for user in 0..u64::from(users) {
            assert_eq!(day(&mut store, &limits, user), (60, 0), "{user} of {users}");
        }
        let more = u64::from(users)..u64::from(users) * 3 / 2;
        let evicted: u64 = more.map(|user| take(&mut store, &limits, model, user, 60).unwrap()).sum();
        assert!(evicted <= u64::from(users / 50), "{evicted} of {users}");
        assert!(counted(&store).values().all(|records| *records == 1));
    }
}

#[test]
fn more_users_than_have_room_evict_those_who_used_the_least_and_none_is_refused() {
    let (_policy, limits, model) = policy(json!({"per_user": {"tokens_per_day": 100, "requests_per_minute": 600}}));
    let mut store = store(64);
    for user in 0..40 {
        assert_eq!(take(&mut store, &limits, model, user, 90), Ok(0));
    }
    let evicted: u64 = (40..5000).map(|user| take(&mut store, &limits, model, user, 1).unwrap()).sum();
    assert!(evicted > 4000, "{evicted}");
    for user in 0..40 {
        assert_eq!(day(&mut store, &limits, user), (90, 0), "{user}");
    }
    let all = counted(&store);
    assert!(all.len() <= 8 * PLACES && all.values().all(|records| *records == 1), "{}", all.len());
    // A user that made room is let through as a new one.
    assert!((40..200).all(|user| take(&mut store, &limits, model, user, 50).is_ok()));
    // Who has used nothing in its windows makes room without being counted as evicted, day after day.
    for day in 1..4 {
        store.now_ms += 86_400_000;
        let users = 9000 * day..9000 * day + 64;
        assert_eq!(users.map(|user| take(&mut store, &limits, model, user, 100).unwrap()).sum::<u64>(), 0, "{day}");
    }
}

#[test]
fn a_request_that_the_tenant_has_no_room_for_evicts_nobody() {
    let (_policy, limits, model) = policy(json!({"tokens_per_day": 40, "per_user": {"tokens_per_day": 10}}));
    let mut store = store(16);
    for user in 0..20 {
        take(&mut store, &limits, model, user, 1).unwrap();
    }
    let before = counted(&store);
    for user in 100..400 {
        let _ = hold(&mut store, &limits, model, user, 9).inspect_err(|why| assert!(matches!(why, Refused::Full(..))));
    }
    take(&mut store, &limits, model, 0, 2).unwrap();
    let now = counted(&store);
    assert!(before.keys().filter(|key| now.contains_key(*key)).count() >= 18, "{before:?} {now:?}");
}

#[test]
fn users_with_running_requests_keep_their_places_until_very_many_run() {
    let (_policy, limits, model) = policy(json!({"per_user": {"tokens_per_day": 100, "concurrent": 1}}));
    let mut store = store(16);
    let held: Vec<_> = (0..100).map(|user| hold(&mut store, &limits, model, user, 10).unwrap()).collect();
    assert_eq!(held.iter().map(|(grant, _)| grant.evicted).sum::<u64>(), 0);
    for user in 0..100 {
        assert!(matches!(hold(&mut store, &limits, model, user, 10), Err(Refused::Full(Scope::User, _))), "{user}");
    }
    let more: Vec<_> = (100..1000).map(|user| hold(&mut store, &limits, model, user, 10).unwrap()).collect();
    assert!(more.iter().map(|(grant, _)| grant.evicted).sum::<u64>() > 800);
    counted(&store);
    // What an evicted user used is counted when its request ends. Of those, only the least used make room again.
    for (grant, charge) in held.iter().chain(&more) {
        settle(&mut store, &limits, &grant.reservation, &[*charge], &moment(START));
    }
    let all = counted(&store);
    assert!(all.values().all(|records| *records == 1));
    assert_eq!(all.len(), (0..1000).filter(|user| day(&mut store, &limits, *user) == (10, 0)).count());
    // Once they have ended, no record grows.
    assert!((2000..2200).all(|user| take(&mut store, &limits, model, user, 1).is_ok()));
    assert!(counted(&store).len() <= all.len());
}

#[test]
fn counters_move_along_when_the_policy_changes_how_many_users_have_room() {
    let (_policy, limits, model) = policy(json!({"per_user": {"tokens_per_day": 100, "requests_per_minute": 10}}));
    let mut store = store(100);
    let mut data = Agreed::default();
    let mut table = UserTable::new(100);
    let mut resize = |store: &mut Shared, users| {
        table.agree(&mut data, users);
        store.users = Rc::new(table.clone());
    };
    resize(&mut store, 100);
    let open: Vec<_> = (0..100).map(|user| hold(&mut store, &limits, model, user, 40).unwrap()).collect();
    for (round, users) in [1024, 64, 8192, 300].into_iter().enumerate() {
        resize(&mut store, users);
        for user in 0..100 {
            let used = 5 * round as u64;
            assert_eq!(day(&mut store, &limits, user), (used, 40), "{users}: {user}");
            // A request that has no room moves them too, and takes nothing.
            assert!(take(&mut store, &limits, model, user, 61).is_err());
            assert_eq!(take(&mut store, &limits, model, user, 5), Ok(0));
            assert_eq!(day(&mut store, &limits, user), (used + 5, 40), "{users}: {user}");
        }
        assert!(counted(&store).values().all(|records| *records == 1));
    }
    // Requests that began under the first table give back what they hold.
    for (user, (grant, charge)) in open.into_iter().enumerate() {
        settle(&mut store, &limits, &grant.reservation, &[charge], &moment(START));
        assert_eq!(day(&mut store, &limits, user as u64), (60, 0));
    }
}

/// The record on which workers agree.
#[derive(Default)]
struct Agreed(Vec<u8>);

impl crate::store::shared_data::SharedData for Agreed {
    fn get(&mut self, _: &str) -> (Vec<u8>, u32) {
        (self.0.clone(), 1)
    }
    fn set(&mut self, _: &str, record: &[u8], _: u32) -> bool {
        self.0 = record.to_vec();
        true
    }
}

/// A worker beside another one, which may do whole steps between any two reads and writes of this one.
struct Raced<'a> {
    shared: Shared,
    random: Random,
    other: &'a dyn Fn(&mut Shared, &mut Random),
}

impl Raced<'_> {
    fn other(&mut self) {
        for _ in 0..self.random.below(3) {
            (self.other)(&mut self.shared, &mut self.random);
        }
    }
}

impl Store for Raced<'_> {
    fn update(&mut self, key: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool {
        for _ in 0..20 {
            let before = self.shared.read(key);
            let after = change(&before);
            self.other();
            if self.shared.read(key) == before {
                let Some(after) = after else { return false };
                self.shared.records.insert(key.to_owned(), after);
                return true;
            }
        }
        false
    }
    fn read(&mut self, key: &str) -> Vec<u8> {
        self.other();
        self.shared.read(key)
    }
    fn users(&mut self) -> Rc<UserTable> {
        self.shared.users()
    }
    fn now_ms(&mut self) -> u64 {
        self.shared.now_ms()
    }
    fn correction(&mut self, _: &str) -> Correction {
        Correction::default()
    }
    fn learn(&mut self, _: &str, _: u64, _: u64) {}
    fn rate(&mut self, _: &str) -> Rate {
        Rate::default()
    }
    fn learn_rate(&mut self, _: &str, _: &Pace) {}
    fn unique(&mut self) -> u128 {
        0
    }
}

#[test]
fn two_workers_count_every_user_once_whenever_they_see_it_first() {
    let (_policy, limits, model) = policy(json!({"per_user": {"tokens_per_day": 1_000_000}}));
    let mut doubled = 0;
    for seed in 0..60 {
        // Users of both workers, so few that they meet, in a table that has room for them.
        let others = std::cell::RefCell::new(BTreeMap::<u64, u64>::new());
        let other = |store: &mut Shared, random: &mut Random| {
            let user = random.below(48);
            take(store, &limits, model, user, 1).unwrap();
            *others.borrow_mut().entry(user).or_default() += 1;
        };
        let mut raced = Raced { shared: store(48), random: Random(seed), other: &other };
        let mut own = BTreeMap::<u64, u64>::new();
        for _ in 0..100 {
            let user = raced.random.below(48);
            // The other worker may win every race.
            if take(&mut raced, &limits, model, user, 1).is_ok() {
                *own.entry(user).or_default() += 1;
            }
        }
        let mut shared = raced.shared;
        doubled += counted(&shared).values().filter(|records| **records > 1).count();
        for user in 0..48 {
            let used: u64 = [&own, &*others.borrow()].iter().filter_map(|all| all.get(&user)).sum();
            let (counted, reserved) = day(&mut shared, &limits, user);
            assert_eq!(counted + reserved, used, "seed {seed}, user {user}");
        }
    }
    assert_eq!(doubled, 0);
}
