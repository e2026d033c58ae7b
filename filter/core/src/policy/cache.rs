//! The policy's cache rules, validated.

use crate::cache::coalesce::Coalescer;
use crate::cache::local::key_index::SharedKeyIndex;
use crate::cache::local::table::Table;
use crate::config::place::Place;
use crate::config::problem::{Problem, quoted};
use crate::config::{self, CacheRequests, CacheScope, CacheStore, DataClass};
use crate::policy::share;
use std::collections::BTreeMap;

/// The rules for all tasks.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Where answers are stored.
    pub store: CacheStore,
    /// Maximum memory of the whole cache in this Envoy, in bytes.
    pub memory_bytes: u64,
    /// The local store.
    pub table: Table,
    /// The index of cache keys, shared by all workers.
    pub keys: SharedKeyIndex,
    /// Maximum size of a stored answer, in bytes.
    pub max_entry_bytes: u64,
    /// The most sensitive class of data that is stored.
    pub max_data: DataClass,
    /// The prefix of every Redis key.
    pub key_prefix: Box<str>,
    /// Raised to discard everything.
    pub revision: u64,
    /// How long, and how many, requests wait for the same answer.
    pub coalescer: Coalescer,
    /// Whether texts that Unicode considers equal share an answer.
    pub nfc: bool,
    prompts: BTreeMap<Box<str>, u64>,
}

/// The rules for one task.
#[derive(Debug, Clone)]
pub struct TaskRules {
    /// How long an answer is valid, in milliseconds.
    pub ttl_ms: u64,
    /// Who shares answers.
    pub scope: CacheScope,
    /// Which requests use the cache.
    pub requests: CacheRequests,
    /// The most sensitive class of data that is stored, if the task overrides it.
    pub max_data: Option<DataClass>,
    /// Raised to discard the task's answers.
    pub revision: u64,
}

const DAY_MS: u64 = 86_400_000;

impl Rules {
    /// Validates the policy's `cache` section and reports its problems.
    /// `tenants`: how many share the local store.
    pub(crate) fn from_config(
        config: &config::Cache,
        has_redis: bool,
        tenants: usize,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let config::Cache {
            store,
            memory_bytes,
            max_share,
            max_entry_bytes,
            max_data,
            key_prefix,
            revision,
            prompt_revisions,
            unicode_nfc,
            wait,
            max_waiting,
        } = config;
        let mut range = |field: &str, value: u64, min: u64, max: u64| {
            if !(min..=max).contains(&value) {
                let message = format!("{value} is out of range: expected {min} to {max}");
                problems.push(Problem::new(Place::of(&["cache", field]), message));
            }
        };
        range("memory_bytes", *memory_bytes, 1 << 20, 1 << 34);
        range("max_entry_bytes", *max_entry_bytes, 1024, 512 << 10);
        if wait.0 > 600_000 {
            problems.push(Problem::new("cache.wait", format!("{}ms is more than 10m", wait.0)));
        }
        if *store == CacheStore::Redis && !has_redis {
            problems.push(Problem::new("cache.store", "redis requires the `redis` section, which names the bridge"));
        }
        for prompt in
            prompt_revisions.keys().filter(|prompt| prompt.split_once('@').is_none_or(|(id, _)| id.is_empty()))
        {
            let place = Place::of(&["cache", "prompt_revisions", prompt]);
            problems.push(Problem::of_name(
                place,
                format!("{} is not a prompt name and version, like invoice@3", quoted(prompt)),
            ));
        }
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'.' | b'_' | b'-');
        if !(1..=64).contains(&key_prefix.len()) || !key_prefix.bytes().all(is_plain) {
            let message = format!("{} must be 1 to 64 characters from a-z, A-Z, 0-9 and :._-", quoted(key_prefix));
            problems.push(Problem::new("cache.key_prefix", message));
        }
        let keys = SharedKeyIndex::within(*memory_bytes);
        let limit = memory_bytes.saturating_sub(keys.max_bytes());
        let max_share = share::checked(*max_share, &"cache".into(), problems);
        let share = if tenants > 1 { max_share } else { 1.0 };
        Self {
            store: *store,
            memory_bytes: *memory_bytes,
            table: Table { limit, share: share::of(limit, share) },
            keys,
            max_entry_bytes: *max_entry_bytes,
            max_data: *max_data,
            key_prefix: key_prefix.as_str().into(),
            revision: *revision,
            coalescer: Coalescer { wait_ms: wait.0, max_waiting: *max_waiting },
            nfc: *unicode_nfc,
            prompts: prompt_revisions.iter().map(|(prompt, revision)| (prompt.as_str().into(), *revision)).collect(),
        }
    }

    /// Returns the revision of a prompt version: 0 unless the policy has raised it.
    pub fn prompt_revision(&self, prompt: &str, version: &str) -> u64 {
        if self.prompts.is_empty() {
            return 0;
        }
        self.prompts.get(format!("{prompt}@{version}").as_str()).copied().unwrap_or(0)
    }
}

impl TaskRules {
    /// Validates a task's `cache` section and reports its problems.
    pub(crate) fn from_config(
        config: &config::TaskCache,
        identity: &config::Identity,
        place: &Place,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let config::TaskCache { ttl, scope, requests, max_data, revision } = config;
        if !(1000..=30 * DAY_MS).contains(&ttl.0) {
            problems
                .push(Problem::new(place.name("ttl"), format!("{}ms is out of range: expected 1s to 30days", ttl.0)));
        }
        let has_permissions = matches!(identity, config::Identity::Header { permissions: Some(_), .. });
        if *scope == CacheScope::Permission && !has_permissions {
            let message = "permission requires `identity.permissions`, the header in which a trusted filter states \
                what the caller may see";
            problems.push(Problem::new(place.name("scope"), message));
        }
        Self { ttl_ms: ttl.0, scope: *scope, requests: *requests, max_data: *max_data, revision: *revision }
    }
}
