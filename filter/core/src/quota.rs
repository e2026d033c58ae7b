//! Quotas and budgets: one atomic step reserves the worst case over all windows or refuses, and settlement replaces it
//! by what was used.
//!
//! [`counters`] is the arithmetic of one scope, [`reservation`] the words of the steps over all scopes of a request,
//! [`local`] these steps in Envoy's shared data, [`redis`] the same steps in Redis, and [`report`] what callers and
//! gauges are told. The limits themselves are the policy's: [`crate::policy::limits`].

pub mod counters;
pub mod demand;
#[cfg(test)]
pub(crate) mod fixture;
pub mod local;
pub mod redis;
pub mod report;
pub mod reservation;
pub mod store;
pub mod window;
