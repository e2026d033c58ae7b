//! A sample question, a sample entry and shared data for the tests of the cache.

use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::question::{Question, Sharing};
use crate::config::DataClass;
use crate::dialect::kept::KeptAnswer;
use crate::ids::{ModelId, TaskId, TenantId};
use crate::request::endpoint::Endpoint;
use crate::store::shared_data::{NEW, SharedData};
use crate::usage::Usage;
use std::collections::HashMap;

/// A sample question.
pub const QUESTION: Question = Question {
    endpoint: Endpoint::Chat,
    tenant: TenantId(1),
    sharing: Sharing::Tenant,
    task: TaskId(1),
    data: DataClass::Internal,
    model: ModelId(1),
    max_output: None,
    headers: b"",
    body: b"{}",
};

/// The data that workers share, in memory.
#[derive(Default)]
pub struct Memory(pub HashMap<String, (Vec<u8>, u32)>);

impl SharedData for Memory {
    fn get(&mut self, name: &str) -> (Vec<u8>, u32) {
        self.0.get(name).cloned().unwrap_or((Vec::new(), NEW))
    }
    fn set(&mut self, name: &str, record: &[u8], version: u32) -> bool {
        let is_current = self.get(name).1 == version;
        if is_current {
            self.0.insert(name.to_owned(), (record.to_vec(), version.wrapping_add(2)));
        }
        is_current
    }
}

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
