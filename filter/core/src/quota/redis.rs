//! The steps over all scopes of a request in Redis: one script, and the settlements on their way to it.

pub mod script;
pub mod settlement;
