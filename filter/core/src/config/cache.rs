//! The cache of answers as people write it: the store, and the rules of each task.

use crate::config::data_class::DataClass;
use crate::config::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[cfg(feature = "schema")]
use schemars::JsonSchema;

/// The response cache.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Where responses are stored.
    pub store: CacheStore,
    /// Maximum size of the local store in bytes, across all workers and including its own overhead: 1048576 to
    /// 17179869184. With `redis`, it limits the responses that each Envoy keeps for waiting requests.
    pub memory_bytes: u64,
    /// The share of the local store that one tenant may hold when another tenant needs room, from 0.001 to 1: one half
    /// if absent. A tenant that holds more evicts its own responses, and the others' evict them first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_share: Option<f64>,
    /// Maximum size of a cached response in bytes, 1024 to 524288.
    pub max_entry_bytes: u64,
    /// The most sensitive data class that may be cached, unless a task overrides it.
    pub max_data: DataClass,
    /// The prefix of the keys in Redis: 1 to 64 letters, digits and `:._-`. Gateways that share a Redis but must not
    /// share responses need different prefixes.
    pub key_prefix: String,
    /// Increase it to invalidate the whole cache.
    pub revision: u64,
    /// Revisions by prompt name and version (`invoice@3`). Increase one to invalidate the responses to that prompt.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub prompt_revisions: BTreeMap<String, u64>,
    /// Whether requests that differ only in Unicode normalization (NFC: é as one character or as two) share a cache
    /// entry.
    pub unicode_nfc: bool,
    /// How long a request waits for an identical request in flight, up to 10m.
    pub wait: Time,
    /// Maximum requests that wait for one response. Further requests go to the model.
    pub max_waiting: u32,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            store: CacheStore::Local,
            memory_bytes: 64 << 20,
            max_share: None,
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

/// Where responses are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CacheStore {
    /// In each Envoy's memory.
    Local,
    /// In Redis, shared by many Envoys.
    Redis,
}

/// The cache settings of one task.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TaskCache {
    /// How long a response stays valid, 1s to 30 days.
    pub ttl: Time,
    /// Who shares cached responses. Tenants never share.
    #[serde(default)]
    pub scope: CacheScope,
    /// Which requests use the cache.
    #[serde(default)]
    pub requests: CacheRequests,
    /// The most sensitive data class that may be cached; `cache.max_data` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_data: Option<DataClass>,
    /// Increase it to invalidate the task's responses.
    #[serde(default)]
    pub revision: u64,
}

/// Who shares cached responses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CacheScope {
    /// All callers of the tenant.
    #[default]
    Tenant,
    /// Each end user separately.
    User,
    /// Callers of the tenant with the same permissions.
    Permission,
}

/// Which requests use a task's cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(feature = "schema", derive(JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CacheRequests {
    /// Requests meant to be reproducible: `temperature` 0, or a `seed`.
    #[default]
    Deterministic,
    /// All requests of the task.
    Any,
}
