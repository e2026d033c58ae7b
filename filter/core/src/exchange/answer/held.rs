//! What is held of a stream that the caller does not see, because a whole answer is put together from it.

use crate::cache::local::recording::{BudgetGuard, RecordingBudget};

/// A part of a long event, and its share of the memory for held answers.
#[derive(Debug)]
pub struct Held {
    long_event: Vec<u8>,
    budget: BudgetGuard,
    /// Whether the stream ended without its end marker: nothing says that the answer is all of it, other than the end
    /// of its choices.
    pub is_unmarked: bool,
    /// Whether the stream does not say what the whole answer is.
    pub is_unfit: bool,
}

impl Held {
    /// Holds nothing yet.
    pub fn new(budget: BudgetGuard) -> Self {
        Self { long_event: Vec::new(), budget, is_unmarked: false, is_unfit: false }
    }

    /// Adds to a long event of up to `max` bytes. Returns whether there is room for it.
    pub(super) fn push(&mut self, bytes: &[u8], max: u64) -> bool {
        let length = self.long_event.len() + bytes.len();
        let has_room = length as u64 <= max && self.budget.set(length);
        if has_room {
            self.long_event.extend_from_slice(bytes);
        }
        has_room
    }

    /// Takes the long event, which is whole.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.budget.set(0);
        std::mem::take(&mut self.long_event)
    }

    /// Gives the memory back. Nothing more is held.
    pub(super) fn release(&mut self) {
        self.long_event = Vec::new();
        self.budget = RecordingBudget::new(0).guard();
    }

    /// Returns whether a long event has begun.
    pub(super) fn is_in_event(&self) -> bool {
        !self.long_event.is_empty()
    }
}
