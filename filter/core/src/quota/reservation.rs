//! The quota steps over all scopes of a request (reserve, settle, look): their inputs, their results and their records.
//!
//! A tenant and its models share one record, so reserving over them is one atomic step. Its users are in a fixed number
//! of other records: [`crate::quota::users`]. The user's windows are reserved first, and given back if the tenant's
//! have no room.

use crate::ids::ModelId;
use crate::policy::limits::ScopeKey;
use crate::quota::counters::{Counters, Crossed};
use crate::quota::window::{Amount, Full, Unit, Want, Window, WindowStatus};

/// A request to reserve or to look.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The tenant's name.
    pub tenant: &'a str,
    /// The user. All requests without a user share one key.
    pub user: &'a ScopeKey,
    /// The worst case of each model that may serve.
    pub models: &'a [(ModelId, Amount)],
    /// The longest time that the request may take, in milliseconds. `None` if nothing is held, as for an answer from
    /// the cache.
    pub lease_ms: Option<u64>,
    /// Whether every model may be charged, so that the sum is reserved. Otherwise, it is the largest.
    pub adds_up: bool,
    /// Whether to refuse when a window has reached the share at which the degraded model takes over.
    pub stop_at_degrade_threshold: bool,
    /// Whether the worst cases are rough. Then every window must have room for [`ROUGH_ROOM`] times as much, or the
    /// request is refused, to ask again with better ones.
    pub is_rough: bool,
}

/// How many times a rough worst case must fit.
const ROUGH_ROOM: u64 = 16;

/// What a window belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The tenant.
    Tenant,
    /// A user of the tenant.
    User,
    /// The tenant's use of one model.
    Model(ModelId),
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A window has no room.
    Full(Scope, Full),
    /// A window has reached the share at which the degraded model takes over.
    Share(Scope, Window),
    /// The store did not answer.
    Unavailable,
}

/// The windows of a refused request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// The status of the tenant's, the user's and the models' windows.
    pub statuses: Vec<(Scope, WindowStatus)>,
    /// Shares of budgets that were reached and had not been reported to a caller yet.
    pub crossed: Vec<(Scope, Crossed)>,
}

impl View {
    /// Merges a newer view: its statuses replace the older ones, and its reached shares are appended.
    pub fn add(&mut self, newer: Self) {
        self.statuses = newer.statuses;
        self.crossed.extend(newer.crossed);
    }
}

impl Refused {
    /// Returns whether a daily or monthly window refused. Then the degraded model or a template answer can take over.
    pub fn is_of_calendar(&self) -> bool {
        match self {
            Self::Full(_, full) => full.window.is_calendar(),
            Self::Share(..) => true,
            Self::Unavailable => false,
        }
    }

    /// Returns whether a window of tokens or money refused. A request with a lower output limit may fit.
    pub fn is_of_tokens(&self) -> bool {
        matches!(self, Self::Full(_, full) if full.window.unit() != Unit::Requests)
    }

    /// Returns whether a smaller request might not have been refused.
    pub fn depends_on_amount(&self) -> bool {
        match self {
            Self::Full(Scope::Model(_), _) => true,
            Self::Full(_, full) => !matches!(full.window, Window::RequestsPerMinute | Window::Concurrent),
            Self::Share(..) | Self::Unavailable => false,
        }
    }

    /// Returns whether there is room once the running requests have ended.
    pub fn is_momentary(&self) -> bool {
        matches!(self, Self::Full(_, full) if full.is_momentary)
    }

    /// Returns the milliseconds until there is room, as far as known. `u64::MAX` means never.
    pub(super) fn wait_ms(&self) -> u64 {
        match self {
            Self::Full(_, full) => full.wait_ms.unwrap_or(u64::MAX),
            Self::Share(..) | Self::Unavailable => 0,
        }
    }

    /// Returns the refusal with the longer wait if `self` is a full window, otherwise `self`.
    pub(super) fn or_longer(self, other: Option<Self>) -> Self {
        match (self, other) {
            (Self::Full(..), Some(other)) if other.wait_ms() > self.wait_ms() => other,
            _ => self,
        }
    }

    /// Returns whether the daily tokens of the tenant or its user refused.
    pub fn is_of_days_tokens(&self) -> bool {
        let (whose, window) = match self {
            Self::Full(whose, full) => (whose, full.window),
            Self::Share(whose, window) => (whose, *window),
            Self::Unavailable => return false,
        };
        window == Window::TokensPerDay && !matches!(whose, Scope::Model(_))
    }
}

/// How a reservation is found in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteReservation {
    pub(super) id: String,
    pub(super) user: ScopeKey,
    pub(super) models: Vec<ModelId>,
}

/// What is reserved in the windows of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UserReservation {
    pub key: ScopeKey,
    pub amount: Amount,
    pub expires: u32,
    /// The record in which the user is counted.
    pub place: u32,
}

/// What is reserved for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// The name of the tenant's record.
    pub(super) record: String,
    pub(super) user: Option<UserReservation>,
    pub(super) all: Option<(Amount, u32)>,
    pub(super) models: Vec<(ModelId, Amount, u32)>,
    /// What is, or may be, reserved in Redis.
    pub(crate) remote: Option<RemoteReservation>,
}

impl Reservation {
    /// Creates a reservation that Redis holds, or may hold, and that is settled there.
    pub(crate) fn remote(ask: &Ask, id: &str) -> Self {
        let models = ask.models.iter().map(|(id, _)| *id).collect();
        // If nothing is held, nothing is settled.
        let remote = ask.lease_ms.map(|_| RemoteReservation { id: id.to_owned(), user: *ask.user, models });
        Self { remote, ..Self::none() }
    }

    pub(super) fn none() -> Self {
        Self { record: String::new(), user: None, all: None, models: Vec::new(), remote: None }
    }

    /// Returns what is, or may be, reserved in Redis.
    pub fn held(&self) -> Option<&RemoteReservation> {
        self.remote.as_ref()
    }
}

/// The result for an admitted request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What is reserved.
    pub reservation: Reservation,
    /// Models whose own windows have no room.
    pub full_models: Vec<ModelId>,
    /// The status of the tenant's, the user's and the models' windows after the reservation.
    pub statuses: Vec<(Scope, WindowStatus)>,
    /// Shares of budgets that were reached and had not been reported to a caller yet.
    pub crossed: Vec<(Scope, Crossed)>,
    /// What would have refused the request without `shadow`.
    pub shadowed: Option<Refused>,
    /// How many users lost their counters, to make room for this one's.
    pub evicted: u64,
}

impl Grant {
    /// Creates the grant of a request for which no window holds anything.
    pub(crate) fn unheld(reservation: Reservation) -> Self {
        let (full_models, statuses, crossed) = (Vec::new(), Vec::new(), Vec::new());
        Self { reservation, full_models, statuses, crossed, shadowed: None, evicted: 0 }
    }
}

/// What a request used of one model. A request may have used several, if attempts were abandoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// The model.
    pub model: ModelId,
    /// What it used.
    pub used: Amount,
}

impl Charge {
    /// Returns what all charges used together.
    pub(super) fn sum(charges: &[Self]) -> Amount {
        charges.iter().fold(Amount::default(), |sum, charge| sum.plus(charge.used))
    }

    /// Returns what they used of one model, as its windows count it.
    pub(super) fn of_model(charges: &[Self], model: ModelId) -> Amount {
        let own = charges.iter().filter(|charge| charge.model == model);
        own.fold(Amount::default(), |sum, charge| sum.plus(charge.used.of_model()))
    }
}

/// The result of a settlement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// Shares of the tenant's budgets that this settlement reached.
    pub crossed: Vec<Crossed>,
    /// The status of the tenant's windows.
    pub statuses: Vec<WindowStatus>,
}

pub(super) fn tenant_record(tenant: &str) -> String {
    ["pointsman.quota.", tenant].concat()
}

/// Returns the counters of a scope, and creates empty ones if there are none.
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
        let amount = if self.is_rough { amount.times(ROUGH_ROOM) } else { amount };
        Want { amount, runs: self.lease_ms.is_some() }
    }

    /// Returns what is reserved for the tenant and its user, without these models.
    pub(crate) fn worst(&self, without: &[ModelId]) -> Amount {
        let left = self.models.iter().filter(|(id, _)| !without.contains(id)).map(|(_, amount)| *amount);
        left.fold(Amount::default(), if self.adds_up { Amount::plus } else { Amount::max })
    }
}
