//! Who is calling: tenants by their keys, and end users by a hash.

pub mod keys;
