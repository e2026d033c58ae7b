//! What the gateway does not do right yet. The native test fails when a file on this list comes out right.

/// Files whose expectation does not hold yet, and what is wrong.
pub const PENDING: &[(&str, &str)] = &[];
