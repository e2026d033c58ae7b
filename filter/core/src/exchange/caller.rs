//! Who sends a request, and what its headers ask for.

use crate::config::DataClass;
use crate::exchange::cache::state::CacheRequest;
use crate::identity::keys::UserHash;
use crate::ids::TenantId;

/// The sender, and what its headers ask for.
#[derive(Debug)]
pub(in crate::exchange) struct Caller {
    pub(in crate::exchange) tenant: TenantId,
    pub(in crate::exchange) user: Option<UserHash>,
    pub(in crate::exchange) task: Option<String>,
    pub(in crate::exchange) data_class: Option<DataClass>,
    pub(in crate::exchange) deadline_ms: Option<u64>,
    pub(in crate::exchange) cache_request: CacheRequest,
    /// The headers of its dialect that go on to a provider, one line each: they can change the answer.
    pub(in crate::exchange) dialect_headers: Vec<u8>,
}
