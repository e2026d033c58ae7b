//! A request before any decision: its headers, and what its headers and body say.

pub mod cache_control;
pub mod endpoint;
pub mod facts;
pub mod field;
pub mod head;
pub mod integer;
pub mod needs;
pub mod prompt;
pub mod splice;
pub mod strange;
pub mod uploads;
