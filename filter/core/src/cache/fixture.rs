//! A sample question and a sample entry for the tests of the cache.

use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::question::{Question, Sharing};
use crate::config::DataClass;
use crate::dialect::kept::KeptAnswer;
use crate::ids::{ModelId, TaskId, TenantId};
use crate::request::endpoint::Endpoint;
use crate::usage::Usage;

/// A sample question.
pub const QUESTION: Question = Question {
    endpoint: Endpoint::Chat,
    tenant: TenantId(1),
    sharing: Sharing::Tenant,
    task: TaskId(1),
    data: DataClass::Internal,
    model: ModelId(1),
    max_output: None,
    body: b"{}",
};

/// Returns an entry of `key` whose message has `len` bytes.
pub fn entry(key: Key, len: usize, created_ms: u64, ttl_ms: u64) -> Entry {
    Entry {
        key,
        created_ms,
        expires_ms: created_ms + ttl_ms,
        usage: Usage::default(),
        usage_estimated: false,
        cost_micro_usd: 0,
        tenant: "t".into(),
        provider: "p".into(),
        model: "m".into(),
        prompt: String::new(),
        policy: 0,
        answer: KeptAnswer::of_length(len),
    }
}
