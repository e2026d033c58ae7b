//! What one worker remembers of the cache under one policy: handed to the exchange, not hidden in the policy.

use crate::cache::local::key_memo::KeyMemo;
use crate::cache::local::recording::RecordingBudget;
use crate::cache::local::response_memo::ResponseMemo;

/// What one worker remembers of the cache under one policy.
#[derive(Debug)]
pub struct CacheMemory {
    /// The questions that hit lately on this worker, and their answers.
    pub responses: ResponseMemo,
    /// The keys of questions that hit lately on this worker, however long they are.
    pub keys: KeyMemo,
    /// What the streams take that are recorded now.
    pub recordings: RecordingBudget,
}

impl CacheMemory {
    /// Nothing yet, for a cache that may take so many bytes.
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            responses: ResponseMemo::within(memory_bytes),
            keys: KeyMemo::default(),
            recordings: RecordingBudget::default(),
        }
    }
}
