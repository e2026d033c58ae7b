//! What the streams that a worker records take together.
//!
//! Each of them is bounded by the longest answer that is kept; this bounds them all, however many are under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bytes of all streams that one worker records under one policy. Its clones are the same budget.
#[derive(Debug, Clone)]
pub struct RecordingBudget {
    held: Arc<AtomicUsize>,
    max: usize,
}

/// What one stream takes of it, until it is dropped.
#[derive(Debug)]
pub struct BudgetGuard {
    all: RecordingBudget,
    bytes: usize,
}

/// Bytes of text that all streams of a worker take at most.
pub const MAX_BYTES: usize = 16 << 20;

/// Why a stream is recorded no further, in a word: the reason of the miss, too.
pub const FULL: &str = "recordings_full";

impl RecordingBudget {
    /// For streams that may have `max` bytes together.
    pub fn new(max: usize) -> Self {
        Self { held: Arc::default(), max }
    }

    /// Room for one more stream, none of it taken yet.
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
    /// The stream has so many bytes by now. `false` where there is no room for them: then it has no more than before.
    pub fn set(&mut self, bytes: usize) -> bool {
        let (held, max) = (&self.all.held, self.all.max);
        let more = bytes.saturating_sub(self.bytes);
        // A worker is one thread: nobody comes between these two.
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
