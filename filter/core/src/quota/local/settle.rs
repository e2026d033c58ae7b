//! Settlement: replaces a reservation by what was used.

use crate::policy::limits::{Limits, TENANT};
use crate::quota::local::record;
use crate::quota::local::visit::{User, revisit};
use crate::quota::reservation::{Charge, Reservation, Settled, UserReservation, scope};
use crate::quota::store::Store;
use crate::quota::window::{Amount, Moment};

/// Replaces a reservation by what was used. Without charges, nothing was used.
pub fn settle(
    store: &mut dyn Store,
    limits: &Limits,
    reservation: &Reservation,
    charges: &[Charge],
    moment: &Moment,
) -> Settled {
    let used = Charge::sum(charges);
    if let Some(UserReservation { key, amount, expires, place }) = &reservation.user
        && let Some(windows) = limits.user(key)
    {
        let user = User { tenant_record: &reservation.record, key, limits, windows, moment };
        revisit(store, &user, *place, used != Amount::default(), &mut |counters| {
            counters.settle(windows, amount, *expires, &used);
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
                counters.settle(windows, held, *expires, &Charge::of_model(charges, *id));
            }
        }
        Some(record::encode(&scopes))
    });
    settled
}
