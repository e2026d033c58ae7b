//! The quota steps in Redis: the script, and the settlements on their way to it.

pub mod script;
pub mod settlement;
