//! Settlement: replaces a reservation by what was used.

use crate::policy::limits::{Limits, ScopeKey, TENANT};
use crate::quota::counters::Counters;
use crate::quota::local::record;
use crate::quota::reservation::{Charge, Reservation, Settled, scope, user_record};
use crate::quota::store::Store;
use crate::quota::window::{Amount, Moment, Windows};

/// Replaces a reservation by what was used. Without a charge, nothing was used.
pub fn settle(
    store: &mut dyn Store,
    limits: &Limits,
    users: u32,
    reservation: &Reservation,
    charge: Option<Charge>,
    moment: &Moment,
) -> Settled {
    let used = charge.map_or_else(Amount::default, |charge| charge.used);
    if let Some((user, held, expires)) = &reservation.user
        && let Some(windows) = limits.user(user)
    {
        change(store, &user_record(&reservation.record, user, users), user, windows, moment, |counters| {
            counters.settle(windows, held, *expires, &used);
        });
    }
    let mut settled = Settled::default();
    if reservation.all.is_none() && reservation.models.is_empty() {
        return settled;
    }
    store.update(&reservation.record, &mut |bytes| {
        let mut scopes = record::decode(bytes);
        if let Some((held, expires)) = &reservation.all
            && let Some(counters) = scope(&mut scopes, &TENANT)
        {
            counters.catch_up(limits.tenant(), moment);
            counters.settle(limits.tenant(), held, *expires, &used);
            settled.crossed = counters.report(limits.tenant(), &limits.alert_at);
            settled.statuses = counters.statuses(limits.tenant(), moment);
        }
        for (id, held, expires) in &reservation.models {
            let Some((key, windows)) = limits.model(*id) else { continue };
            if let Some(counters) = scope(&mut scopes, key) {
                counters.catch_up(windows, moment);
                let is_charged = charge.is_some_and(|charge| charge.model == *id);
                let used = if is_charged { used.of_model() } else { Amount::default() };
                counters.settle(windows, held, *expires, &used);
            }
        }
        Some(record::encode(&scopes))
    });
    settled
}

/// Changes one scope of a record.
pub(super) fn change(
    store: &mut dyn Store,
    record_key: &str,
    key: &ScopeKey,
    windows: &Windows,
    moment: &Moment,
    mut apply: impl FnMut(&mut Counters),
) {
    store.update(record_key, &mut |bytes| {
        let mut scopes = record::decode(bytes);
        let counters = scope(&mut scopes, key)?;
        counters.catch_up(windows, moment);
        apply(counters);
        Some(record::encode(&scopes))
    });
}
