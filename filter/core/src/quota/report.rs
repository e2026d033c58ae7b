//! How quotas are reported: to callers in headers and refusals, and to operators in gauges.

pub mod exhausted;
pub mod gauges;
pub mod usage;
