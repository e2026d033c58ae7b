//! The memory budget of the streams that a worker records.
//!
//! Each stream is limited by the longest answer that is stored. The budget limits their sum, however many are in
//! flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The budget for the bytes of all streams that one worker records under one policy. Clones share it.
#[derive(Debug, Clone)]
pub struct RecordingBudget {
    held: Arc<AtomicUsize>,
    max: usize,
}

/// One stream's share of the budget, returned on drop.
#[derive(Debug)]
pub struct BudgetGuard {
    all: RecordingBudget,
    bytes: usize,
}

/// How a stream is recorded.
#[derive(Debug)]
pub struct Recording {
    /// The longest answer, in bytes.
    pub max_bytes: usize,
    /// Its share of the memory for all recordings.
    pub budget: BudgetGuard,
    /// Whether the caller gets the answer that is put together. Otherwise it is for the cache alone.
    pub is_for_caller: bool,
}

/// Maximum bytes of text of all recorded streams of a worker.
pub const MAX_BYTES: usize = 16 << 20;

/// The code for a recording that stopped because the budget is used up. It is also the reason of the miss.
pub const FULL: &str = "recordings_full";

impl RecordingBudget {
    /// Creates a budget of `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { held: Arc::default(), max }
    }

    /// Returns a guard for one more stream, which holds no bytes yet.
    pub fn guard(&self) -> BudgetGuard {
        BudgetGuard { all: self.clone(), bytes: 0 }
    }
}

impl Default for RecordingBudget {
    fn default() -> Self {
        Self::new(MAX_BYTES)
    }
}

impl BudgetGuard {
    /// Sets the stream's bytes. Returns `false` and changes nothing if the budget has no room for them.
    pub fn set(&mut self, bytes: usize) -> bool {
        let (held, max) = (&self.all.held, self.all.max);
        let more = bytes.saturating_sub(self.bytes);
        // A worker is one thread, so nothing runs between the check and the update.
        if more > 0 && held.load(Ordering::Relaxed).saturating_add(more) > max {
            return false;
        }
        held.fetch_add(more, Ordering::Relaxed);
        held.fetch_sub(self.bytes.saturating_sub(bytes), Ordering::Relaxed);
        self.bytes = bytes;
        true
    }
}

impl Drop for BudgetGuard {
    fn drop(&mut self) {
        self.all.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_what_there_is_and_no_more_and_who_ends_gives_it_back() {
        let all = RecordingBudget::new(100);
        let (mut one, mut other) = (all.guard(), all.guard());
        assert!(one.set(60) && other.set(40));
        assert!(!one.set(61) && !other.set(41));
        assert!(one.set(50) && other.set(50) && !other.set(51));
        drop(one);
        assert!(other.set(100) && !all.guard().set(1) && all.guard().set(0));
        drop(other);
        assert_eq!(all.held.load(Ordering::Relaxed), 0);
    }
}
