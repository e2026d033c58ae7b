//! Which models serve a request, in which order, and what the gateway stage sends the model stage about it.

pub mod attempt;
pub mod begun;
pub mod dispatch;
pub mod eligibility;
pub mod in_flight;
pub mod next;
pub mod plan;
