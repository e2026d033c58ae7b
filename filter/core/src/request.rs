//! A request before any decision: its headers, and what they and its body name.

pub mod cache_control;
pub mod endpoint;
pub mod facts;
pub mod head;
pub mod prompt;
pub mod splice;
