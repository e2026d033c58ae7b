//! What a worker remembers between requests: whoever finds it in use goes on without it, because nothing is decided by it.

use std::sync::{Mutex, MutexGuard, TryLockError};

/// The memory, unless it is in use.
pub fn open<T>(memo: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match memo.try_lock() {
        Ok(memo) => Some(memo),
        Err(TryLockError::Poisoned(memo)) => Some(memo.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
