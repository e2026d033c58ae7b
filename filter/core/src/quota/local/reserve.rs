//! Reserves the worst case in all windows in one atomic step, or reports the window that has no room.

use crate::policy::limits::{Limits, ScopeKey, TENANT};
use crate::quota::counters::Counters;
use crate::quota::local::record;
use crate::quota::reservation::{
    Ask, Grant, Refused, Reservation, Scope, USERS_PER_RECORD, scope, tenant_record, user_record,
};
use crate::quota::store::Store;
use crate::quota::window::{Full, Moment, Windows};

/// How long an idle user keeps its place in a record that is not full, in milliseconds.
const IDLE_MS: u64 = 3_600_000;

/// Reserves the worst case in all windows, or refuses.
///
/// # Errors
/// The reason of the refusal. Nothing stays reserved.
pub fn reserve(
    store: &mut dyn Store,
    limits: &Limits,
    users: u32,
    ask: &Ask,
    moment: &Moment,
) -> Result<Grant, Refused> {
    let record = tenant_record(ask.tenant);
    let mut grant = Grant::unheld(Reservation::none());
    if let Some(windows) = limits.user(ask.user)
        && let Err(why) =
            reserve_user(store, limits, windows, &user_record(&record, ask.user, users), ask, moment, &mut grant)
    {
        // The tenant may have to wait longer than the user.
        let of_tenant = tenant_is_full(&record::decode(&store.read(&record)), limits, ask, moment);
        return Err(why.or_longer(of_tenant));
    }
    if limits.tenant().is_empty() && limits.models().next().is_none() {
        grant.reservation.record = record;
        return Ok(grant);
    }
    let before = (grant.statuses.len(), grant.shadowed);
    let mut outcome = Err(Refused::Unavailable);
    let is_stored = store.update(&record, &mut |bytes| {
        begin(&mut grant, before);
        let mut scopes = record::decode(bytes);
        outcome = reserve_tenant(&mut scopes, limits, ask, moment, &mut grant);
        outcome.is_ok().then(|| record::encode(&scopes))
    });
    if outcome.is_ok() && !is_stored {
        outcome = Err(Refused::Unavailable);
    }
    if let Err(why) = outcome {
        if let Some((user, amount, expires)) = &grant.reservation.user
            && let Some(windows) = limits.user(user)
        {
            let record = user_record(&record, user, users);
            super::settle::change(store, &record, user, windows, moment, |counters| {
                counters.cancel(windows, amount, *expires);
            });
        }
        return Err(why);
    }
    grant.reservation.record = record;
    if ask.lease_ms.is_none() {
        // If nothing is held, nothing is settled.
        grant.reservation.user = None;
    }
    Ok(grant)
}

/// Returns the tenant's window that has no room, according to this record.
fn tenant_is_full(scopes: &[(ScopeKey, Counters)], limits: &Limits, ask: &Ask, moment: &Moment) -> Option<Refused> {
    let mut counters = scopes.iter().find(|(key, _)| *key == TENANT)?.1.clone();
    counters.catch_up(limits.tenant(), moment);
    counters.full(limits.tenant(), &ask.want(ask.worst(&[])), moment).map(|full| Refused::Full(Scope::Tenant, full))
}

/// Resets the grant to its state before the tenant's record was read. The update may run several times.
fn begin(grant: &mut Grant, (statuses, shadowed): (usize, Option<Refused>)) {
    grant.statuses.truncate(statuses);
    grant.shadowed = shadowed;
    grant.full_models.clear();
    grant.crossed.clear();
    grant.reservation.all = None;
    grant.reservation.models.clear();
}

/// Turns a reason to refuse into an error. In shadow mode, only notes it.
fn judge(limits: &Limits, why: Option<Refused>, grant: &mut Grant) -> Result<(), Refused> {
    match why {
        Some(why) if !limits.shadow => Err(why),
        Some(why) => {
            grant.shadowed.get_or_insert(why);
            Ok(())
        }
        None => Ok(()),
    }
}

fn why(
    whose: Scope,
    counters: &Counters,
    windows: &Windows,
    limits: &Limits,
    ask: &Ask,
    full: Option<Full>,
) -> Option<Refused> {
    let share = || {
        let at = limits.degrade_at.filter(|_| ask.stop_at_degrade_threshold)?;
        counters.reached(windows, at).map(|window| Refused::Share(whose, window))
    };
    full.map(|full| Refused::Full(whose, full)).or_else(share)
}

fn reserve_tenant(
    scopes: &mut Vec<(ScopeKey, Counters)>,
    limits: &Limits,
    ask: &Ask,
    moment: &Moment,
    grant: &mut Grant,
) -> Result<(), Refused> {
    // Models first: a model whose own windows are full leaves the plan, and the others may serve.
    let (mut first_full, mut soonest) = (None, None::<Refused>);
    for (id, amount) in ask.models {
        let Some((key, windows)) = limits.model(*id) else { continue };
        let Some(counters) = scope(scopes, key) else { continue };
        counters.advance(windows, moment);
        if let Some(full) = counters.full(windows, &ask.want(amount.of_model()), moment)
            && !grant.full_models.contains(id)
        {
            let refused = Refused::Full(Scope::Model(*id), full);
            first_full.get_or_insert(refused);
            if soonest.is_none_or(|soonest| refused.wait_ms() < soonest.wait_ms()) {
                soonest = Some(refused);
            }
            grant.full_models.push(*id);
        }
    }
    if limits.shadow {
        grant.full_models.clear();
        judge(limits, first_full, grant)?;
    } else if let Some(full) = soonest
        && ask.models.iter().all(|(id, _)| grant.full_models.contains(id))
    {
        return Err(full);
    }
    let worst = ask.worst(&grant.full_models);
    if let Some(counters) = scope(scopes, &TENANT) {
        let windows = limits.tenant();
        counters.advance(windows, moment);
        let full = counters.full(windows, &ask.want(worst), moment);
        judge(limits, why(Scope::Tenant, counters, windows, limits, ask, full), grant)?;
        let expires = counters.reserve(windows, &worst, ask.lease_ms);
        grant.reservation.all = ask.lease_ms.map(|_| (worst, expires));
        counters.each_status(windows, moment, |status| grant.statuses.push((Scope::Tenant, status)));
        grant.crossed.extend(counters.tell(windows, &limits.alert_at).into_iter().map(|c| (Scope::Tenant, c)));
    }
    for (id, amount) in ask.models {
        let seen = grant.reservation.models.iter().any(|(reserved, ..)| reserved == id);
        let Some((key, windows)) = limits.model(*id) else { continue };
        if seen || grant.full_models.contains(id) {
            continue;
        }
        let Some(counters) = scope(scopes, key) else { continue };
        let amount = amount.of_model();
        let expires = counters.reserve(windows, &amount, ask.lease_ms);
        if ask.lease_ms.is_some() {
            grant.reservation.models.push((*id, amount, expires));
        }
        counters.each_status(windows, moment, |status| grant.statuses.push((Scope::Model(*id), status)));
    }
    Ok(())
}

fn reserve_user(
    store: &mut dyn Store,
    limits: &Limits,
    windows: &Windows,
    record: &str,
    ask: &Ask,
    moment: &Moment,
    grant: &mut Grant,
) -> Result<(), Refused> {
    let worst = ask.worst(&[]);
    let mut outcome = Err(Refused::Unavailable);
    let is_stored = store.update(record, &mut |bytes| {
        begin(grant, (0, None));
        grant.reservation.user = None;
        let mut scopes = record::decode(bytes);
        // Advance each user by its own limits, or by none if it has none now.
        let unlimited = Windows::default();
        for (key, counters) in scopes.iter_mut().filter(|(_, counters)| !counters.is_idle()) {
            counters.advance(limits.user(key).unwrap_or(&unlimited), moment);
        }
        let known = scopes.iter().any(|(key, _)| key == ask.user);
        // An idle user needs no place. Its day is remembered for a while, because the clock may jump back to the day
        // before.
        let is_needed = !known && scopes.len() >= USERS_PER_RECORD as usize;
        let is_old = |counters: &Counters| moment.now_ms.saturating_sub(counters.at_ms()) >= IDLE_MS;
        scopes.retain(|(key, counters)| key == ask.user || !counters.is_idle() || !is_needed && !is_old(counters));
        if !known && scopes.len() >= USERS_PER_RECORD as usize {
            outcome = Err(Refused::TooManyUsers);
            if limits.shadow {
                grant.shadowed = Some(Refused::TooManyUsers);
                outcome = Ok(());
            }
            return None;
        }
        let counters = scope(&mut scopes, ask.user)?;
        counters.advance(windows, moment);
        let full = counters.full(windows, &ask.want(worst), moment);
        let judged = judge(limits, why(Scope::User, counters, windows, limits, ask, full), grant);
        outcome = judged;
        outcome.ok()?;
        let expires = counters.reserve(windows, &worst, ask.lease_ms);
        grant.reservation.user = Some((*ask.user, worst, expires));
        counters.each_status(windows, moment, |status| grant.statuses.push((Scope::User, status)));
        Some(record::encode(&scopes))
    });
    let nothing_to_store = limits.shadow && grant.reservation.user.is_none();
    if outcome.is_ok() && !is_stored && !nothing_to_store {
        outcome = Err(Refused::Unavailable);
    }
    outcome
}
