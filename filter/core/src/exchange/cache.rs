//! The cache's part in one exchange: it looks for an answer before anything is reserved, and stores the one that
//! arrives.

use crate::config::CacheStore;
use crate::exchange::Exchange;
use crate::exchange::cache::state::Cached;
use crate::ids::TaskId;
use crate::policy::price::MicroUsd;
use crate::telemetry::metrics::Metric;
use crate::usage::Usage;

mod lookup;
mod question;
pub(super) mod state;
mod store;
#[cfg(test)]
mod tests;

impl Exchange {
    /// Value of the response's cache header.
    pub(super) fn cache_header(&self) -> &'static str {
        match self.cache {
            Cached::Miss(..) => "miss",
            Cached::Hit(_) => "hit",
            _ => "bypass",
        }
    }

    /// The audit record's fields: `hit`, `miss` or `bypass`, and why.
    pub(super) fn cache_record(&self) -> (Option<&'static str>, Option<&'static str>) {
        match &self.cache {
            Cached::Bypass(why) => (Some("bypass"), Some(why.word())),
            Cached::Miss(why, _) => (Some("miss"), Some(why)),
            Cached::Hit(hit) => (Some("hit"), hit.waited.then_some("waited")),
            // The request ended before its lookup was decided.
            Cached::Coalesced(..) => (Some("miss"), Some("waited")),
            _ => (None, None),
        }
    }

    /// What a cached answer saved, if the answer is one.
    pub(super) fn saved(&self) -> Option<(Usage, MicroUsd)> {
        self.cache.hit().map(|hit| (hit.usage, hit.cost))
    }

    /// Adds the cache's metrics.
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
