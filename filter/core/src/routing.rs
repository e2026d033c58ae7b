//! Which models serve a request, in which order, and what the model stage is told of it.

pub mod attempt;
pub mod dispatch;
pub mod eligibility;
pub mod in_flight;
pub mod plan;
