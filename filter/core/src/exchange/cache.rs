//! What the cache was to one exchange: it looks an answer up before anything is reserved, and keeps the one that comes.

use crate::cache::coalesce::Ticket;
use crate::cache::eligibility::Bypass;
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::local::key_memo::Fingerprint;
use crate::cache::local::response_memo::Slot;
use crate::config::CacheStore;
use crate::dialect::kept::KeptAnswer;
use crate::exchange::Exchange;
use crate::exchange::state::Routed;
use crate::ids::{ModelId, TaskId};
use crate::policy::Policy;
use crate::policy::price::MicroUsd;
use crate::request::cache_control::CacheControl;
use crate::request::head::RequestHead;
use crate::telemetry::metrics::Metric;
use crate::usage::Usage;
use std::sync::Arc;

mod lookup;
mod question;
mod store;
#[cfg(test)]
mod tests;

/// What the cache was to the request.
#[derive(Debug, Default)]
pub(super) enum Cached {
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
pub(super) struct Pending {
    key: Key,
    /// To remember the key by, if it is not known and can be.
    fingerprint: Option<Fingerprint>,
    /// All workers know that fingerprint.
    is_shared: bool,
    /// Where this worker remembers the question, if it can.
    slot: Option<Slot>,
    /// This worker has seen it hit before.
    is_known: bool,
    /// It remembers it word for word.
    is_hot: bool,
    /// And the answer.
    answer: Option<Arc<Entry>>,
    /// The table was read for it, so that this worker may remember what was found.
    is_read: bool,
    task: TaskId,
    /// The plan's first model: no other one's answer is kept.
    model: ModelId,
    choices: u64,
    prompt: String,
    kept: Option<KeptAnswer>,
    /// Bytes that the local store holds after it.
    held: Option<u64>,
    /// Others wait for it.
    ticket: Option<Ticket>,
}

/// A wait for another request.
#[derive(Debug, Clone, Copy)]
pub(super) struct InLine {
    /// When it began, however many were waited for one after the other.
    since_ms: u64,
    ticket: Ticket,
}

/// An answer of the cache.
#[derive(Debug)]
pub(super) struct Hit {
    store: CacheStore,
    waited: bool,
    usage: Usage,
    cost: MicroUsd,
    /// The model that would have served.
    pub(super) routed: Routed,
}

/// What the cache needs to know of the caller.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    control: CacheControl,
    user: Option<Box<[u8]>>,
    permissions: Option<Box<[u8]>>,
}

impl Wishes {
    /// Of a request's headers.
    pub(super) fn of(policy: &Policy, head: &RequestHead) -> Self {
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
    pub(super) fn hit(&self) -> Option<&Hit> {
        match self {
            Self::Hit(hit) => Some(hit),
            _ => None,
        }
    }
}

impl Exchange {
    /// What the response's header says.
    pub(super) fn cache_header(&self) -> &'static str {
        match self.cache {
            Cached::Miss(..) => "miss",
            Cached::Hit(_) => "hit",
            _ => "bypass",
        }
    }

    /// What the audit record says: `hit`, `miss` or `bypass`, and why.
    pub(super) fn cache_record(&self) -> (Option<&'static str>, Option<&'static str>) {
        match &self.cache {
            Cached::Bypass(why) => (Some("bypass"), Some(why.word())),
            Cached::Miss(why, _) => (Some("miss"), Some(why)),
            Cached::Hit(hit) => (Some("hit"), hit.waited.then_some("waited")),
            // It never came so far.
            Cached::InLine(..) => (Some("miss"), Some("waited")),
            _ => (None, None),
        }
    }

    /// What an answer of the cache saved, if it is one.
    pub(super) fn saved(&self) -> Option<(Usage, MicroUsd)> {
        self.cache.hit().map(|hit| (hit.usage, hit.cost))
    }

    /// What the cache adds to the metrics.
    pub(super) fn cache_metrics(&self, task: Option<TaskId>, all: &mut Vec<(Metric, u64)>) {
        match &self.cache {
            Cached::Bypass(why) => all.push((Metric::CacheBypasses { task, reason: why.word() }, 1)),
            Cached::Miss(reason, pending) => {
                all.push((Metric::CacheMisses { task, reason }, 1));
                all.extend(pending.held.map(|bytes| (Metric::CacheBytes, bytes)));
            }
            Cached::Hit(hit) => {
                let cache_type = match hit.store {
                    CacheStore::Local => "local",
                    CacheStore::Redis => "redis",
                };
                all.push((Metric::CacheHits { task, cache_type }, 1));
                all.push((Metric::CacheSaved { task, cache_type }, hit.cost.0));
            }
            _ => {}
        }
    }
}
