//! The local cache of one Envoy: the table that all workers share, and what each worker remembers in addition.

mod holdings;
pub mod key_index;
pub mod key_memo;
pub mod recording;
pub mod response_memo;
pub mod table;
