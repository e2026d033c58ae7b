//! The memory budgets of the streams that a worker records, and of the answers that it holds.
//!
//! Each stream is limited by the longest answer that is stored. The budget limits their sum, however many are in
//! flight. A part of a budget limits one tenant, or sets bytes aside for one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A budget of bytes that several hold, or a part of one. Clones share it.
#[derive(Debug, Clone)]
pub struct RecordingBudget(Arc<Share>);

#[derive(Debug)]
struct Share {
    held: AtomicUsize,
    /// What it holds of the whole even while it needs less.
    least: usize,
    max: usize,
    /// The budget that it is a part of.
    whole: Option<RecordingBudget>,
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
        Self::of(0, max, None)
    }

    /// Creates a part of the budget: those who hold it never hold more than `max` bytes together.
    #[must_use]
    pub fn part(&self, max: usize) -> Self {
        Self::of(0, max, Some(self.clone()))
    }

    /// Sets `bytes` of the budget aside. The holder of this part has them for certain, and more only while there is
    /// room. Returns `None` if the budget has no room for them.
    pub fn reserve(&self, bytes: usize) -> Option<Self> {
        self.change(0, bytes).then(|| Self::of(bytes, usize::MAX, Some(self.clone())))
    }

    fn of(least: usize, max: usize, whole: Option<Self>) -> Self {
        Self(Arc::new(Share { held: AtomicUsize::new(0), least, max, whole }))
    }

    /// Returns a guard for one more stream, which holds no bytes yet.
    pub fn guard(&self) -> BudgetGuard {
        BudgetGuard { all: self.clone(), bytes: 0 }
    }

    /// Changes what one holder has. Returns `false` and changes nothing if there is no room for more.
    fn change(&self, from: usize, to: usize) -> bool {
        let Share { held, least, max, whole } = &*self.0;
        // A worker is one thread, so nothing runs between the check and the update.
        let before = held.load(Ordering::Relaxed);
        let after = before.saturating_sub(from).saturating_add(to);
        if to > from && after > *max {
            return false;
        }
        let (taken, needed) = (before.max(*least), after.max(*least));
        let has_room = whole.as_ref().is_none_or(|whole| taken == needed || whole.change(taken, needed));
        if has_room {
            held.store(after, Ordering::Relaxed);
        }
        has_room
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // All guards are gone, so nothing but what was set aside is left.
        if let Some(whole) = &self.whole {
            whole.change(self.least, 0);
        }
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
        let has_room = self.all.change(self.bytes, bytes);
        if has_room {
            self.bytes = bytes;
        }
        has_room
    }
}

impl Drop for BudgetGuard {
    fn drop(&mut self) {
        self.all.change(self.bytes, 0);
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
        assert_eq!(held(&all), 0);
    }

    fn held(budget: &RecordingBudget) -> usize {
        budget.0.held.load(Ordering::Relaxed)
    }

    #[test]
    fn a_part_has_no_more_than_its_share_and_counts_in_the_whole() {
        let all = RecordingBudget::new(100);
        let (one, other) = (all.part(60), all.part(60));
        let (mut first, mut second, mut third) = (one.guard(), one.guard(), other.guard());
        assert!(first.set(40) && second.set(20) && !second.set(21) && third.set(40) && !third.set(41));
        assert_eq!((held(&one), held(&other), held(&all)), (60, 40, 100));
        drop(first);
        assert!(third.set(60) && !third.set(61) && second.set(40) && !second.set(41));
        drop((second, third, one, other));
        assert_eq!(held(&all), 0);
    }

    #[test]
    fn what_is_set_aside_is_there_whatever_others_take_and_more_only_while_there_is_room() {
        let all = RecordingBudget::new(100);
        let mine = all.reserve(50).unwrap();
        assert!(all.reserve(51).is_none());
        let (mut text, mut event, mut others) = (mine.guard(), mine.guard(), all.guard());
        assert!(others.set(50) && !others.set(51) && text.set(30) && event.set(20) && !event.set(21));
        assert!(others.set(40) && event.set(30) && !event.set(31));
        assert_eq!(held(&all), 100);
        drop((text, event));
        assert_eq!(held(&all), 90, "what was set aside stays so");
        drop(mine);
        assert_eq!(held(&all), 40);
        assert!(others.set(100) && all.reserve(1).is_none() && all.reserve(0).is_some());
    }
}
