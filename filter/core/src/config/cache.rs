//! The cache of answers as people write it: the store, and the rules of each task.

use crate::config::data_class::DataClass;
use crate::config::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[cfg(feature = "schema")]
use schemars::JsonSchema;

/// The cache of answers.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Where answers are kept.
    pub store: CacheStore,
    /// Bytes that the local store may hold over all workers, bookkeeping included: 1048576 to 17179869184. With
    /// `redis`, what each Envoy keeps for requests that wait.
    pub memory_bytes: u64,
    /// Bytes of the longest answer that is kept, 1024 to 524288.
    pub max_entry_bytes: u64,
    /// The most sensitive class of data whose answers are kept, unless a task says otherwise.
    pub max_data: DataClass,
    /// Start of the keys in Redis: 1 to 64 letters, digits and `:._-`. Gateways that share a Redis but not their
    /// answers need different ones.
    pub key_prefix: String,
    /// Raise it to forget everything.
    pub revision: u64,
    /// By prompt and version (`invoice@3`): raise one to forget the answers to it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub prompt_revisions: BTreeMap<String, u64>,
    /// Whether texts that Unicode calls equal (NFC: é as one character or as two) are the same request.
    pub unicode_nfc: bool,
    /// How long a request waits for an identical one that is at the model, up to 10m.
    pub wait: Time,
    /// Most requests that wait for one answer; further ones ask the model themselves.
    pub max_waiting: u32,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            store: CacheStore::Local,
            memory_bytes: 64 << 20,
            max_entry_bytes: 64 << 10,
            max_data: DataClass::Internal,
            key_prefix: "pointsman:cache:".to_owned(),
            revision: 0,
            prompt_revisions: BTreeMap::new(),
            unicode_nfc: false,
            wait: Time(30_000),
            max_waiting: 1000,
        }
    }
}

/// Where answers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CacheStore {
    /// In the memory of each Envoy.
    Local,
    /// In Redis, for many Envoys.
    Redis,
}

/// The cache of one task.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TaskCache {
    /// How long an answer is good, 1s to 30 days.
    pub ttl: Time,
    /// Who shares answers; never more than one tenant.
    #[serde(default)]
    pub scope: CacheScope,
    /// Which requests use the cache.
    #[serde(default)]
    pub requests: CacheRequests,
    /// The most sensitive class of data whose answers are kept; that of `cache` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_data: Option<DataClass>,
    /// Raise it to forget the task's answers.
    #[serde(default)]
    pub revision: u64,
}

/// Who shares answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CacheScope {
    /// All callers of the tenant.
    #[default]
    Tenant,
    /// Each end user alone.
    User,
    /// Callers of the tenant with the same permissions.
    Permission,
}

/// Which requests a cache answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CacheRequests {
    /// Requests that ask for one certain answer: `temperature` 0, or a `seed`.
    #[default]
    Deterministic,
    /// All requests of the task.
    Any,
}
