//! The steps over all scopes of a request: reserve, settle, look. What they are about, and where it is kept.
//!
//! The tenant and its models are one record, so that reserving over them is one atomic step. Its users are in a fixed
//! number of records beside it; a user's windows are reserved first, and given back where the tenant's have no room.

use crate::ids::ModelId;
use crate::policy::limits::ScopeKey;
use crate::quota::counters::{Counters, Crossed};
use crate::quota::window::{Amount, Full, Want, Window, WindowStatus};

/// Users of one record.
pub(super) const USERS_PER_RECORD: u32 = 16;

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
    pub stop_at_degrade_threshold: bool,
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
    pub statuses: Vec<(Scope, WindowStatus)>,
    /// Shares of budgets that were reached and that no caller had been told of.
    pub crossed: Vec<(Scope, Crossed)>,
}

impl View {
    /// Takes over a newer one: how windows stand is replaced, what is to be told adds up.
    pub fn add(&mut self, newer: Self) {
        self.statuses = newer.statuses;
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

    /// Milliseconds until there is room, as far as is known; the largest number where there never will be.
    pub(super) fn wait_ms(&self) -> u64 {
        match self {
            Self::Full(_, full) => full.wait_ms.unwrap_or(u64::MAX),
            Self::Share(..) | Self::TooManyUsers | Self::Unavailable => 0,
        }
    }

    /// Of two windows without room the one to wait for longer.
    pub(super) fn or_longer(self, other: Option<Self>) -> Self {
        match (self, other) {
            (Self::Full(..), Some(other)) if other.wait_ms() > self.wait_ms() => other,
            _ => self,
        }
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

/// What is known of a reservation in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteReservation {
    pub(super) id: String,
    pub(super) user: ScopeKey,
    pub(super) models: Vec<ModelId>,
}

/// What is reserved for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The name of the tenant's record.
    pub(super) record: String,
    pub(super) user: Option<(ScopeKey, Amount, u32)>,
    pub(super) all: Option<(Amount, u32)>,
    pub(super) models: Vec<(ModelId, Amount, u32)>,
    /// What is reserved in Redis, or may be.
    pub(crate) remote: Option<RemoteReservation>,
}

impl Reservation {
    /// One that Redis holds, or is to be told of in the end.
    pub(crate) fn remote(ask: &Ask, id: &str) -> Self {
        let models = ask.models.iter().map(|(id, _)| *id).collect();
        // Where nothing is held, nothing is settled.
        let remote = ask.lease_ms.map(|_| RemoteReservation { id: id.to_owned(), user: *ask.user, models });
        Self { remote, ..Self::none() }
    }

    pub(super) fn none() -> Self {
        Self { record: String::new(), user: None, all: None, models: Vec::new(), remote: None }
    }

    /// What is reserved in Redis, or may be.
    pub fn held(&self) -> Option<&RemoteReservation> {
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
    pub statuses: Vec<(Scope, WindowStatus)>,
    /// Shares of budgets that were reached and that no caller has been told of.
    pub crossed: Vec<(Scope, Crossed)>,
    /// What would have been refused, if it were not for `shadow`.
    pub shadowed: Option<Refused>,
}

impl Grant {
    /// Of a request for which no window holds anything.
    pub(crate) fn unheld(reservation: Reservation) -> Self {
        let (full_models, statuses, crossed) = (Vec::new(), Vec::new(), Vec::new());
        Self { reservation, full_models, statuses, crossed, shadowed: None }
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
    pub statuses: Vec<WindowStatus>,
}

pub(super) fn tenant_record(tenant: &str) -> String {
    ["pointsman.quota.", tenant].concat()
}

/// The record of a user, whose number is bounded. `users`: how many users a tenant has records for.
pub(super) fn user_record(tenant_record: &str, user: &ScopeKey, users: u32) -> String {
    let first = user.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let records = u64::from((users / USERS_PER_RECORD).max(1));
    // A tenant's name has no `#`.
    format!("{tenant_record}#{}", first % records)
}

/// The counters of a scope, which begin with nothing used.
pub(super) fn scope<'a>(scopes: &'a mut Vec<(ScopeKey, Counters)>, key: &ScopeKey) -> Option<&'a mut Counters> {
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

    pub(super) fn worst(&self, without: &[ModelId]) -> Amount {
        let left = self.models.iter().filter(|(id, _)| !without.contains(id));
        left.fold(Amount::default(), |worst, (_, amount)| worst.max(*amount))
    }
}
