//! What to do where a stream does not say for certain what the whole answer is.

use crate::dialect::answer::NotKept;

/// Whether there has been a doubt, and whether one is acceptable.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubts {
    /// Whether the answer is for the cache, which stores nothing doubtful. The caller's own answer is still the best
    /// that there is.
    pub(super) are_fatal: bool,
    pub(super) is_any: bool,
}

impl Doubts {
    /// There is a doubt.
    ///
    /// # Errors
    /// [`NotKept`] if the answer is for the cache.
    pub(super) fn raise(&mut self) -> Result<(), NotKept> {
        self.is_any = true;
        if self.are_fatal { Err(NotKept("shape")) } else { Ok(()) }
    }
}
