//! Reserves the worst case in all windows in one atomic step, or reports the window that has no room.

use crate::policy::limits::{Limits, ScopeKey, TENANT};
use crate::quota::counters::Counters;
use crate::quota::local::record;
use crate::quota::local::visit::{User, Visit, revisit, visit};
use crate::quota::reservation::{Ask, Grant, Refused, Reservation, Scope, UserReservation, scope, tenant_record};
use crate::quota::store::Store;
use crate::quota::window::{Full, Moment, Windows};

/// Reserves the worst case in all windows, or refuses.
///
/// # Errors
/// The reason of the refusal. Nothing stays reserved.
pub fn reserve(store: &mut dyn Store, limits: &Limits, ask: &Ask, moment: &Moment) -> Result<Grant, Refused> {
    let record = tenant_record(ask.tenant);
    let mut grant = Grant::unheld(Reservation::none());
    if let Some(windows) = limits.user(ask.user)
        && let Err(why) = reserve_user(
            store,
            &User { tenant_record: &record, key: ask.user, limits, windows, moment },
            ask,
            &mut grant,
        )
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
        if let Some(UserReservation { key, amount, expires, place }) = &grant.reservation.user
            && let Some(windows) = limits.user(key)
        {
            let user = User { tenant_record: &record, key, limits, windows, moment };
            revisit(store, &user, *place, false, &mut |counters| counters.cancel(windows, amount, *expires));
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
    if ask.is_rough
        && let Some(full) = first_full
    {
        return Err(full);
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

fn reserve_user(store: &mut dyn Store, user: &User, ask: &Ask, grant: &mut Grant) -> Result<(), Refused> {
    let User { limits, windows, moment, .. } = *user;
    let worst = ask.worst(&[]);
    let (mut outcome, mut reserved) = (Ok(()), 0);
    let mut change = |counters: &mut Counters| {
        begin(grant, (0, None));
        counters.advance(windows, moment);
        let full = counters.full(windows, &ask.want(worst), moment);
        outcome = judge(limits, why(Scope::User, counters, windows, limits, ask, full), grant);
        if outcome.is_ok() {
            reserved = counters.reserve(windows, &worst, ask.lease_ms);
            counters.each_status(windows, moment, |status| grant.statuses.push((Scope::User, status)));
        }
        outcome.is_ok()
    };
    let mut visited = visit(store, user, false, &mut change);
    if visited == Visit::NoRoom {
        // A request that the tenant has no room for evicts no user.
        let mut scopes = record::decode(&store.read(user.tenant_record));
        reserve_tenant(&mut scopes, limits, ask, moment, &mut Grant::unheld(Reservation::none()))?;
        visited = visit(store, user, true, &mut change);
    }
    outcome?;
    let Visit::Changed { place, evicted } = visited else { return Err(Refused::Unavailable) };
    grant.evicted = evicted;
    grant.reservation.user = Some(UserReservation { key: *ask.user, amount: worst, expires: reserved, place });
    Ok(())
}
