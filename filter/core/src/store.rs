//! What workers share and remember, whatever it is about.

pub mod quick_hash;
pub mod secret;
pub mod shared_data;
pub mod versions;
