//! Identifies callers: tenants by their API keys, and end users by a hash.

pub mod keys;
