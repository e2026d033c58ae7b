//! The telemetry of a request: its audit record and its metrics.

pub mod audit;
pub mod metrics;
pub mod refusal_log;
