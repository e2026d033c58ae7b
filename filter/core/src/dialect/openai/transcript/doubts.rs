//! What to do where a stream does not say for certain what the whole answer is.

use crate::dialect::answer::NotKept;

/// Whether there has been a doubt, and whom the answer is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubts {
    /// Whether the answer is for the cache, which stores nothing that it does not know.
    pub(super) is_for_cache: bool,
    /// Whether there is a doubt about what a server says besides the answer: the last value counts.
    pub(super) is_any: bool,
}

impl Doubts {
    /// There is a doubt what the answer is. Putting together is exact, or it is not done.
    ///
    /// # Errors
    /// Always.
    pub(super) fn raise(&mut self) -> Result<(), NotKept> {
        self.is_any = true;
        Err(NotKept("shape"))
    }
}
