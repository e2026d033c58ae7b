//! Quotas and budgets: a request reserves its worst case before it is sent and settles what it used afterwards.
//!
//! One atomic step either reserves in all windows or refuses. [`counters`] is the arithmetic of one scope.
//! [`reservation`] defines the types of the steps over all scopes of a request. [`local`] runs these steps in Envoy's
//! shared data and [`redis`] in Redis. [`report`] is what callers and gauges see. The limits themselves belong to the
//! policy: [`crate::policy::limits`].

pub mod counters;
pub mod demand;
#[cfg(test)]
pub(crate) mod fixture;
pub mod local;
pub mod rate;
pub mod redis;
pub mod report;
pub mod reservation;
pub mod store;
pub mod users;
pub mod window;
