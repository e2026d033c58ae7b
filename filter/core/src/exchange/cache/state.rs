//! The cache state of an exchange: how the lookup went, and what to store of the answer.

use crate::cache::coalesce::Ticket;
use crate::cache::eligibility::Bypass;
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::local::key_memo::Fingerprint;
use crate::cache::local::response_memo::Slot;
use crate::config::CacheStore;
use crate::dialect::kept::KeptAnswer;
use crate::exchange::state::Routed;
use crate::ids::{ModelId, TaskId};
use crate::policy::Policy;
use crate::policy::price::MicroUsd;
use crate::request::cache_control::CacheControl;
use crate::request::head::RequestHead;
use crate::usage::Usage;
use std::sync::Arc;

/// How the lookup went.
#[derive(Debug, Default)]
pub(in crate::exchange) enum Cached {
    /// No lookup: the task has no cache.
    #[default]
    Off,
    /// The request bypasses the cache.
    Bypass(Bypass),
    /// Redis is being asked, or has answered.
    Asked(Box<Pending>),
    /// The request waits for another with the same question.
    Coalesced(Box<Pending>, Coalesced),
    /// An answer of this age in milliseconds, and whether the request waited for it; returned once the quota has
    /// counted it.
    Found(Arc<Entry>, u64, bool),
    /// No answer, for this reason; the one that arrives is stored.
    Miss(&'static str, Box<Pending>),
    /// The cache answered.
    Hit(Box<Hit>),
}

/// An answer to store.
#[derive(Debug)]
pub(in crate::exchange) struct Pending {
    pub(super) key: Key,
    /// Lets this worker remember the key, if it is not known and can be.
    pub(super) fingerprint: Option<Fingerprint>,
    /// All workers know the fingerprint.
    pub(super) is_shared: bool,
    /// Where this worker remembers the question, if it can.
    pub(super) slot: Option<Slot>,
    /// This worker has already seen it hit.
    pub(super) is_known: bool,
    /// This worker remembers the question verbatim.
    pub(super) is_hot: bool,
    /// The remembered answer.
    pub(super) answer: Option<Arc<Entry>>,
    /// The lookup read the table, so this worker may remember what it found.
    pub(super) is_read: bool,
    pub(super) task: TaskId,
    /// The plan's first model; only its answers are stored.
    pub(super) model: ModelId,
    pub(super) choices: u64,
    pub(super) prompt: String,
    pub(super) kept: Option<KeptAnswer>,
    /// Bytes the local store holds afterwards.
    pub(super) held: Option<u64>,
    /// Other requests wait for this one.
    pub(super) ticket: Option<Ticket>,
}

/// A wait for another request.
#[derive(Debug, Clone, Copy)]
pub(in crate::exchange) struct Coalesced {
    /// When the wait began, even if it has since moved on to another request.
    pub(super) since_ms: u64,
    pub(super) ticket: Ticket,
}

/// An answer from the cache.
#[derive(Debug)]
pub(in crate::exchange) struct Hit {
    pub(super) store: CacheStore,
    pub(super) waited: bool,
    pub(super) usage: Usage,
    pub(super) cost: MicroUsd,
    /// The model that would have served.
    pub(in crate::exchange) routed: Routed,
}

/// What the cache needs to know about the caller.
#[derive(Debug, Default)]
pub(in crate::exchange) struct CacheRequest {
    pub(super) control: CacheControl,
    pub(super) user: Option<Box<[u8]>>,
    pub(super) permissions: Option<Box<[u8]>>,
}

impl CacheRequest {
    /// Reads it from a request's headers.
    pub(in crate::exchange) fn of(policy: &Policy, head: &RequestHead) -> Self {
        if !policy.has_cache {
            return Self::default();
        }
        Self {
            control: head.cache_control,
            user: head.user().map(Into::into),
            permissions: head.permissions().map(Into::into),
        }
    }
}

impl Cached {
    /// The cached answer that was returned, if any.
    pub(in crate::exchange) fn hit(&self) -> Option<&Hit> {
        match self {
            Self::Hit(hit) => Some(hit),
            _ => None,
        }
    }
}
