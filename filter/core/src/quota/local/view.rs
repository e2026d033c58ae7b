//! Reads the windows of a tenant and its users, and the alerts for callers.

use crate::policy::limits::{Limits, ScopeKey, TENANT};
use crate::quota::counters::Counters;
use crate::quota::local::{record, visit};
use crate::quota::reservation::{Ask, Scope, View, scope, tenant_record};
use crate::quota::store::Store;
use crate::quota::window::{Moment, WindowStatus, Windows};

/// Returns the status of all windows of a tenant and of one of its users.
pub fn look(store: &mut dyn Store, limits: &Limits, ask: &Ask, moment: &Moment) -> Vec<(Scope, WindowStatus)> {
    let mut all = Vec::new();
    let mut see = |known: Option<Counters>, whose: Scope, windows: &Windows| {
        let mut counters = known.unwrap_or_default();
        counters.catch_up(windows, moment);
        counters.each_status(windows, moment, |status| all.push((whose, status)));
    };
    let record = tenant_record(ask.tenant);
    let scopes = record::decode(&store.read(&record));
    let of = |key: &ScopeKey| scopes.iter().find(|(known, _)| known == key).map(|(_, counters)| counters.clone());
    see(of(&TENANT), Scope::Tenant, limits.tenant());
    for (id, key, windows) in limits.models() {
        see(of(key), Scope::Model(id), windows);
    }
    if let Some(windows) = limits.user(ask.user) {
        see(visit::find(store, &record, ask.user), Scope::User, windows);
    }
    all
}

/// Returns the status of the windows for a refused request, and the alerts for its caller. Each alert is told once.
pub fn view(store: &mut dyn Store, limits: &Limits, ask: &Ask, moment: &Moment) -> View {
    let mut statuses = look(store, limits, ask, moment);
    // The windows of other models do not concern this request.
    statuses.retain(|(scope, _)| match scope {
        Scope::Model(id) => ask.models.iter().any(|(asked, _)| asked == id),
        Scope::Tenant | Scope::User => true,
    });
    let key = tenant_record(ask.tenant);
    let has_news = |scopes: &[(ScopeKey, Counters)]| scopes.iter().any(|(key, c)| *key == TENANT && c.has_news());
    let mut crossed = Vec::new();
    if !limits.alert_at.is_empty() && has_news(&record::decode(&store.read(&key))) {
        store.update(&key, &mut |bytes| {
            let mut scopes = record::decode(bytes);
            let counters = scope(&mut scopes, &TENANT)?;
            counters.catch_up(limits.tenant(), moment);
            crossed = counters.tell(limits.tenant(), &limits.alert_at);
            Some(record::encode(&scopes))
        });
    }
    View { statuses, crossed: crossed.into_iter().map(|crossed| (Scope::Tenant, crossed)).collect() }
}
