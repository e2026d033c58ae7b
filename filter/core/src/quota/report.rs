//! What is told of quotas: to callers in headers and refusals, and to operators in gauges.

pub mod exhausted;
pub mod gauges;
pub mod usage;
