//! What one worker remembers of the cache under one policy. It is passed to the exchange, not hidden in the policy.

use crate::cache::local::key_memo::KeyMemo;
use crate::cache::local::recording::RecordingBudget;
use crate::cache::local::response_memo::ResponseMemo;

/// What one worker remembers of the cache under one policy.
#[derive(Debug)]
pub struct CacheMemory {
    /// Questions that recently hit on this worker, with their answers.
    pub responses: ResponseMemo,
    /// Keys of questions that recently hit on this worker, whatever their length.
    pub keys: KeyMemo,
    /// Memory of the streams that are being recorded.
    pub recordings: RecordingBudget,
}

impl CacheMemory {
    /// Creates an empty memory for a cache that is limited to `memory_bytes`.
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            responses: ResponseMemo::within(memory_bytes),
            keys: KeyMemo::default(),
            recordings: RecordingBudget::default(),
        }
    }
}
