//! What an exchange remembers of the cache: what it was to the request, and what is kept of the answer that comes.

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

/// What the cache was to the request.
#[derive(Debug, Default)]
pub(in crate::exchange) enum Cached {
    /// Nothing: its task has none.
    #[default]
    Off,
    /// The request passes it by.
    Bypass(Bypass),
    /// Redis is being asked, or has answered.
    Asked(Box<Pending>),
    /// It waits for another request with the same question.
    InLine(Box<Pending>, InLine),
    /// It has an answer, so many milliseconds old, perhaps after a wait; it is given once the quota has counted it.
    Found(Arc<Entry>, u64, bool),
    /// No answer, for this reason; the one that comes is kept.
    Miss(&'static str, Box<Pending>),
    /// It answered.
    Hit(Box<Hit>),
}

/// An answer that is to be kept.
#[derive(Debug)]
pub(in crate::exchange) struct Pending {
    pub(super) key: Key,
    /// To remember the key by, if it is not known and can be.
    pub(super) fingerprint: Option<Fingerprint>,
    /// All workers know that fingerprint.
    pub(super) is_shared: bool,
    /// Where this worker remembers the question, if it can.
    pub(super) slot: Option<Slot>,
    /// This worker has seen it hit before.
    pub(super) is_known: bool,
    /// It remembers it word for word.
    pub(super) is_hot: bool,
    /// And the answer.
    pub(super) answer: Option<Arc<Entry>>,
    /// The table was read for it, so that this worker may remember what was found.
    pub(super) is_read: bool,
    pub(super) task: TaskId,
    /// The plan's first model: no other one's answer is kept.
    pub(super) model: ModelId,
    pub(super) choices: u64,
    pub(super) prompt: String,
    pub(super) kept: Option<KeptAnswer>,
    /// Bytes that the local store holds after it.
    pub(super) held: Option<u64>,
    /// Others wait for it.
    pub(super) ticket: Option<Ticket>,
}

/// A wait for another request.
#[derive(Debug, Clone, Copy)]
pub(in crate::exchange) struct InLine {
    /// When it began, however many were waited for one after the other.
    pub(super) since_ms: u64,
    pub(super) ticket: Ticket,
}

/// An answer of the cache.
#[derive(Debug)]
pub(in crate::exchange) struct Hit {
    pub(super) store: CacheStore,
    pub(super) waited: bool,
    pub(super) usage: Usage,
    pub(super) cost: MicroUsd,
    /// The model that would have served.
    pub(in crate::exchange) routed: Routed,
}

/// What the cache needs to know of the caller.
#[derive(Debug, Default)]
pub(in crate::exchange) struct Wishes {
    pub(super) control: CacheControl,
    pub(super) user: Option<Box<[u8]>>,
    pub(super) permissions: Option<Box<[u8]>>,
}

impl Wishes {
    /// Of a request's headers.
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
    /// The answer that was given, if it was one of the cache.
    pub(in crate::exchange) fn hit(&self) -> Option<&Hit> {
        match self {
            Self::Hit(hit) => Some(hit),
            _ => None,
        }
    }
}
