//! Quotas and budgets: one atomic step reserves the worst case over all windows or refuses, settlement replaces it by what
//! was used.
//!
//! [`limits`] is what the policy says, [`counters`] the arithmetic of one scope, [`ledger`] the steps over all scopes of a
//! request, [`record`] their bytes in the local store, [`remote`] the same steps in Redis, [`gauges`] what is left at midnight.

pub mod calendar;
pub mod counters;
pub mod demand;
pub mod estimate;
pub mod exhausted;
#[cfg(test)]
pub(crate) mod fixture;
pub mod gauges;
pub mod ledger;
pub mod limits;
pub mod record;
pub mod remote;
pub mod standing;
pub mod unsettled;
pub mod window;
