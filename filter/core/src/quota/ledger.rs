//! The steps over all scopes of a request: reserve, settle, look.
//!
//! The tenant and its models are one record, so that reserving over them is one atomic step. Its users are in a fixed
//! number of records beside it; a user's windows are reserved first, and given back where the tenant's have no room.

use super::counters::{Counters, Crossed};
use super::estimate::Correction;
use super::limits::{Limits, ScopeKey, TENANT};
use super::record;
use super::remote::Held;
use super::window::{Amount, Full, Moment, Standing, Want, Window, Windows};
use crate::policy::ModelId;

/// Where the counters of all workers are.
pub trait Store {
    /// Changes a record (empty at first) in one atomic step; `change` may be called again where another worker was faster.
    /// Returns whether it was changed: not where `change` returned nothing.
    fn update(&mut self, key: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool;
    /// The record; empty if there is none.
    fn read(&mut self, key: &str) -> Vec<u8>;
    /// Milliseconds since the Unix epoch.
    fn now_ms(&mut self) -> u64;
    /// What has been learned of a model's tokenizer.
    fn correction(&mut self, model: &str) -> Correction;
    /// Learns of a model's tokenizer, for all workers: [`Correction::learn`].
    fn learn(&mut self, model: &str, estimate: u64, counted: u64);
    /// A number that no other request of any Envoy has been given.
    fn unique(&mut self) -> u128;
}

/// Users of one record.
const USERS_PER_RECORD: u32 = 16;

/// Who asks, and what for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The tenant's name.
    pub tenant: &'a str,
    /// Its user: those who are not named are one user.
    pub user: &'a ScopeKey,
    /// The worst case of each model that may serve.
    pub models: &'a [(ModelId, Amount)],
    /// The longest that the request may take; `None` where nothing is held, as for an answer from the cache.
    pub lease_ms: Option<u64>,
    /// Whether reaching the share from which another model serves is a reason to refuse.
    pub heed_share: bool,
}

/// Whose window it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The tenant's.
    Tenant,
    /// One user's.
    User,
    /// The tenant's, of one model.
    Model(ModelId),
}

/// Why a request was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A window has no room.
    Full(Scope, Full),
    /// So much of a window is used that another model is to serve.
    Share(Scope, Window),
    /// More users than are counted apart.
    TooManyUsers,
    /// The store did not answer.
    Unavailable,
}

/// How the windows of a request that was refused stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The tenant's, the user's and the models' windows.
    pub standings: Vec<(Scope, Standing)>,
    /// Shares of budgets that were reached and that no caller had been told of.
    pub crossed: Vec<(Scope, Crossed)>,
}

impl View {
    /// Takes over a newer one: how windows stand is replaced, what is to be told adds up.
    pub fn add(&mut self, newer: Self) {
        self.standings = newer.standings;
        self.crossed.extend(newer.crossed);
    }
}

impl Refused {
    /// Whether it is a window of a day or a month: then another model or an answer of the policy's can take over.
    pub fn is_of_calendar(&self) -> bool {
        match self {
            Self::Full(_, full) => full.window.is_calendar(),
            Self::Share(..) => true,
            Self::TooManyUsers | Self::Unavailable => false,
        }
    }

    /// Whether there is room as soon as the requests under way have ended.
    pub fn is_momentary(&self) -> bool {
        matches!(self, Self::Full(_, full) if full.is_momentary)
    }

    /// Whether it is the day's tokens, of the tenant or its user, that are used up.
    pub fn is_of_days_tokens(&self) -> bool {
        let (whose, window) = match self {
            Self::Full(whose, full) => (whose, full.window),
            Self::Share(whose, window) => (whose, *window),
            Self::TooManyUsers | Self::Unavailable => return false,
        };
        window == Window::TokensPerDay && !matches!(whose, Scope::Model(_))
    }
}

/// What is reserved for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    tenant: String,
    user: Option<(ScopeKey, Amount, u32)>,
    all: Option<(Amount, u32)>,
    models: Vec<(ModelId, Amount, u32)>,
    /// What is reserved in Redis, or may be.
    pub(crate) remote: Option<Held>,
}

impl Reservation {
    /// One that Redis holds, or is to be told of in the end.
    pub(crate) fn remote(ask: &Ask, id: &str) -> Self {
        let models = ask.models.iter().map(|(id, _)| *id).collect();
        // Where nothing is held, nothing is settled.
        let remote = ask.lease_ms.map(|_| Held { id: id.to_owned(), user: *ask.user, models });
        Self { tenant: ask.tenant.to_owned(), user: None, all: None, models: Vec::new(), remote }
    }

    /// What is reserved in Redis, or may be.
    pub fn held(&self) -> Option<&Held> {
        self.remote.as_ref()
    }
}

/// A request that was let through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What is reserved.
    pub reservation: Reservation,
    /// Models whose own windows have no room.
    pub full_models: Vec<ModelId>,
    /// How the tenant's, the user's and the models' windows stand after it.
    pub standings: Vec<(Scope, Standing)>,
    /// Shares of budgets that were reached and that no caller has been told of.
    pub crossed: Vec<(Scope, Crossed)>,
    /// What would have been refused, if it were not for `shadow`.
    pub shadowed: Option<Refused>,
}

impl Grant {
    /// Of a request for which no window holds anything.
    pub(crate) fn unheld(reservation: Reservation) -> Self {
        let (full_models, standings, crossed) = (Vec::new(), Vec::new(), Vec::new());
        Self { reservation, full_models, standings, crossed, shadowed: None }
    }
}

/// What was used in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// The model that answered.
    pub model: ModelId,
    /// What that took.
    pub used: Amount,
}

/// What a settlement led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Shares of the tenant's budgets that were reached by it.
    pub crossed: Vec<Crossed>,
    /// How the tenant's windows stand.
    pub standings: Vec<Standing>,
}

fn tenant_key(tenant: &str) -> String {
    format!("pointsman.quota.{tenant}")
}

/// The record of a user, whose number is bounded. `users`: how many users a tenant has records for.
fn user_key(tenant: &str, user: &ScopeKey, users: u32) -> String {
    let first = user.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let records = u64::from((users / USERS_PER_RECORD).max(1));
    // A tenant's name has no `#`.
    format!("pointsman.quota.{tenant}#{}", first % records)
}

/// The counters of a scope, which begin with nothing used.
fn scope<'a>(scopes: &'a mut Vec<(ScopeKey, Counters)>, key: &ScopeKey) -> Option<&'a mut Counters> {
    let at = match scopes.iter().position(|(known, _)| known == key) {
        Some(at) => at,
        None => {
            scopes.push((*key, Counters::default()));
            scopes.len() - 1
        }
    };
    scopes.get_mut(at).map(|(_, counters)| counters)
}

impl Ask<'_> {
    pub(super) fn want(&self, amount: Amount) -> Want {
        Want { amount, runs: self.lease_ms.is_some() }
    }

    fn worst(&self, without: &[ModelId]) -> Amount {
        let left = self.models.iter().filter(|(id, _)| !without.contains(id));
        left.fold(Amount::default(), |worst, (_, amount)| worst.max(*amount))
    }
}

/// Reserves the worst case over all windows, or refuses.
///
/// # Errors
/// The window that has no room. Nothing is reserved then.
pub fn reserve(
    store: &mut dyn Store,
    limits: &Limits,
    users: u32,
    ask: &Ask,
    moment: &Moment,
) -> Result<Grant, Refused> {
    let mut grant = Grant {
        reservation: Reservation {
            tenant: ask.tenant.to_owned(),
            user: None,
            all: None,
            models: Vec::new(),
            remote: None,
        },
        full_models: Vec::new(),
        standings: Vec::new(),
        crossed: Vec::new(),
        shadowed: None,
    };
    if let Some(windows) = limits.user(ask.user) {
        reserve_user(store, limits, windows, users, ask, moment, &mut grant)?;
    }
    if limits.tenant.is_empty() && limits.models.is_empty() {
        return Ok(grant);
    }
    let before = grant.clone();
    let mut outcome = Err(Refused::Unavailable);
    let is_stored = store.update(&tenant_key(ask.tenant), &mut |bytes| {
        let mut next = before.clone();
        let mut scopes = record::decode(bytes);
        outcome = reserve_tenant(&mut scopes, limits, ask, moment, &mut next).map(|()| next);
        outcome.is_ok().then(|| record::encode(scopes.iter()))
    });
    if outcome.is_ok() && !is_stored {
        outcome = Err(Refused::Unavailable);
    }
    if outcome.is_err() {
        cancel_user(store, limits, users, &before.reservation, moment);
    }
    outcome.map(|mut grant| {
        // Where nothing is held, nothing is settled.
        grant.reservation.user = grant.reservation.user.filter(|_| ask.lease_ms.is_some());
        grant
    })
}

/// Whether a scope has room; where nothing is refused, that is only noted.
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
        let at = limits.degrade_at.filter(|_| ask.heed_share)?;
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
    // Models first: one whose own windows are full is left out of the plan, and the others may serve.
    let mut first_full = None;
    for (id, amount) in ask.models {
        let Some((_, key, windows)) = limits.models.iter().find(|(limited, ..)| limited == id) else { continue };
        let Some(counters) = scope(scopes, key) else { continue };
        counters.advance(windows, moment);
        if let Some(full) = counters.full(windows, &ask.want(amount.of_model()), moment)
            && !grant.full_models.contains(id)
        {
            first_full.get_or_insert(Refused::Full(Scope::Model(*id), full));
            grant.full_models.push(*id);
        }
    }
    if limits.shadow {
        grant.full_models.clear();
        judge(limits, first_full, grant)?;
    } else if let Some(full) = first_full
        && ask.models.iter().all(|(id, _)| grant.full_models.contains(id))
    {
        return Err(full);
    }
    let worst = ask.worst(&grant.full_models);
    if let Some(counters) = scope(scopes, &TENANT) {
        let windows = &limits.tenant;
        counters.advance(windows, moment);
        let full = counters.full(windows, &ask.want(worst), moment);
        judge(limits, why(Scope::Tenant, counters, windows, limits, ask, full), grant)?;
        let expires = counters.reserve(windows, &worst, ask.lease_ms);
        grant.reservation.all = ask.lease_ms.map(|_| (worst, expires));
        let standings = counters.standings(windows, moment);
        grant.standings.extend(standings.into_iter().map(|standing| (Scope::Tenant, standing)));
        grant.crossed.extend(counters.tell(windows, &limits.alert_at).into_iter().map(|c| (Scope::Tenant, c)));
    }
    for (id, amount) in ask.models {
        let seen = grant.reservation.models.iter().any(|(reserved, ..)| reserved == id);
        let Some((_, key, windows)) = limits.models.iter().find(|(limited, ..)| limited == id) else { continue };
        if seen || grant.full_models.contains(id) {
            continue;
        }
        let Some(counters) = scope(scopes, key) else { continue };
        let amount = amount.of_model();
        let expires = counters.reserve(windows, &amount, ask.lease_ms);
        if ask.lease_ms.is_some() {
            grant.reservation.models.push((*id, amount, expires));
        }
        let standings = counters.standings(windows, moment);
        grant.standings.extend(standings.into_iter().map(|standing| (Scope::Model(*id), standing)));
    }
    Ok(())
}

fn reserve_user(
    store: &mut dyn Store,
    limits: &Limits,
    windows: &Windows,
    users: u32,
    ask: &Ask,
    moment: &Moment,
    grant: &mut Grant,
) -> Result<(), Refused> {
    let worst = ask.worst(&[]);
    let before = grant.clone();
    let mut outcome = Err(Refused::Unavailable);
    let is_stored = store.update(&user_key(ask.tenant, ask.user, users), &mut |bytes| {
        let mut next = before.clone();
        let mut scopes = record::decode(bytes);
        // Each by its own limits. Whoever is limited no longer counts as one without any.
        let unlimited = Windows::default();
        for (key, counters) in &mut scopes {
            counters.advance(limits.user(key).unwrap_or(&unlimited), moment);
        }
        // Whoever uses nothing needs no place.
        scopes.retain(|(key, counters)| key == ask.user || !counters.is_idle());
        let known = scopes.iter().any(|(key, _)| key == ask.user);
        if !known && scopes.len() >= USERS_PER_RECORD as usize {
            outcome = Err(Refused::TooManyUsers);
            if limits.shadow {
                next.shadowed = Some(Refused::TooManyUsers);
                outcome = Ok(next);
            }
            return None;
        }
        let counters = scope(&mut scopes, ask.user)?;
        counters.advance(windows, moment);
        let full = counters.full(windows, &ask.want(worst), moment);
        let judged = judge(limits, why(Scope::User, counters, windows, limits, ask, full), &mut next);
        if let Err(why) = judged {
            outcome = Err(why);
            return None;
        }
        let expires = counters.reserve(windows, &worst, ask.lease_ms);
        next.reservation.user = Some((*ask.user, worst, expires));
        let standings = counters.standings(windows, moment);
        next.standings.extend(standings.into_iter().map(|standing| (Scope::User, standing)));
        outcome = Ok(next);
        Some(record::encode(scopes.iter()))
    });
    let nothing_to_store = limits.shadow && outcome.as_ref().is_ok_and(|next| next.reservation.user.is_none());
    if outcome.is_ok() && !is_stored && !nothing_to_store {
        outcome = Err(Refused::Unavailable);
    }
    outcome.map(|next| *grant = next)
}

fn cancel_user(store: &mut dyn Store, limits: &Limits, users: u32, reservation: &Reservation, moment: &Moment) {
    if let Some((user, amount, expires)) = &reservation.user
        && let Some(windows) = limits.user(user)
    {
        change(store, &user_key(&reservation.tenant, user, users), user, windows, moment, |counters| {
            counters.cancel(windows, amount, *expires);
        });
    }
}

/// Changes one scope of a record.
fn change(
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
        counters.advance(windows, moment);
        apply(counters);
        Some(record::encode(scopes.iter()))
    });
}

/// Replaces a reservation by what was used: by nothing, where no model answered.
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
        change(store, &user_key(&reservation.tenant, user, users), user, windows, moment, |counters| {
            counters.settle(windows, held, *expires, &used);
        });
    }
    let mut settled = Settled::default();
    if reservation.all.is_none() && reservation.models.is_empty() {
        return settled;
    }
    store.update(&tenant_key(&reservation.tenant), &mut |bytes| {
        let mut scopes = record::decode(bytes);
        if let Some((held, expires)) = &reservation.all
            && let Some(counters) = scope(&mut scopes, &TENANT)
        {
            counters.advance(&limits.tenant, moment);
            counters.settle(&limits.tenant, held, *expires, &used);
            settled.crossed = counters.report(&limits.tenant, &limits.alert_at);
            settled.standings = counters.standings(&limits.tenant, moment);
        }
        for (id, held, expires) in &reservation.models {
            let Some((_, key, windows)) = limits.models.iter().find(|(limited, ..)| limited == id) else { continue };
            if let Some(counters) = scope(&mut scopes, key) {
                counters.advance(windows, moment);
                let is_charged = charge.is_some_and(|charge| charge.model == *id);
                let used = if is_charged { used.of_model() } else { Amount::default() };
                counters.settle(windows, held, *expires, &used);
            }
        }
        Some(record::encode(scopes.iter()))
    });
    settled
}

/// How all windows of a tenant, and of one of its users, stand.
pub fn look(store: &mut dyn Store, limits: &Limits, users: u32, ask: &Ask, moment: &Moment) -> Vec<(Scope, Standing)> {
    let mut all = Vec::new();
    let mut see = |scopes: &[(ScopeKey, Counters)], whose: Scope, key: &ScopeKey, windows: &Windows| {
        let known = scopes.iter().find(|(known, _)| known == key).map(|(_, counters)| counters.clone());
        let mut counters = known.unwrap_or_default();
        counters.advance(windows, moment);
        all.extend(counters.standings(windows, moment).into_iter().map(|standing| (whose, standing)));
    };
    let scopes = record::decode(&store.read(&tenant_key(ask.tenant)));
    see(&scopes, Scope::Tenant, &TENANT, &limits.tenant);
    for (id, key, windows) in &limits.models {
        see(&scopes, Scope::Model(*id), key, windows);
    }
    if let Some(windows) = limits.user(ask.user) {
        let scopes = record::decode(&store.read(&user_key(ask.tenant, ask.user, users)));
        see(&scopes, Scope::User, ask.user, windows);
    }
    all
}

/// How the windows stand for a request that was refused, and what its caller is to be told, once.
pub fn view(store: &mut dyn Store, limits: &Limits, users: u32, ask: &Ask, moment: &Moment) -> View {
    let standings = look(store, limits, users, ask, moment);
    let key = tenant_key(ask.tenant);
    let has_news = |scopes: &[(ScopeKey, Counters)]| scopes.iter().any(|(key, c)| *key == TENANT && c.has_news());
    let mut crossed = Vec::new();
    if !limits.alert_at.is_empty() && has_news(&record::decode(&store.read(&key))) {
        store.update(&key, &mut |bytes| {
            let mut scopes = record::decode(bytes);
            let counters = scope(&mut scopes, &TENANT)?;
            counters.advance(&limits.tenant, moment);
            crossed = counters.tell(&limits.tenant, &limits.alert_at);
            Some(record::encode(scopes.iter()))
        });
    }
    View { standings, crossed: crossed.into_iter().map(|crossed| (Scope::Tenant, crossed)).collect() }
}

#[cfg(test)]
mod tests;
