//! State that workers share and remember, whatever its purpose.

pub mod quick_hash;
pub mod secret;
pub mod shared_data;
pub mod versions;
