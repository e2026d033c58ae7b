//! Whose turn it is to start an Envoy.

use std::sync::{Condvar, Mutex, PoisonError};

/// How many Envoys are starting.
static STARTING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// A turn, which ends when dropped.
pub struct Turn(());

/// Waits for a turn. As many Envoys start at a time as there are cores: each compiles the module for some seconds, and
/// more at a time would only make all of them late.
pub fn take() -> Turn {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut starting = ENDED.wait_while(starting, |count| *count >= cores).unwrap_or_else(PoisonError::into_inner);
    *starting += 1;
    Turn(())
}

impl Drop for Turn {
    fn drop(&mut self) {
        *STARTING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn no_more_have_a_turn_than_there_are_cores_and_each_gets_one() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let (now, most, all) = (AtomicUsize::new(0), AtomicUsize::new(0), 4 * cores);
        let served = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..all {
                scope.spawn(|| {
                    let _turn = take();
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(std::time::Duration::from_millis(2));
                    now.fetch_sub(1, Ordering::SeqCst);
                    served.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(served.into_inner(), all);
        assert!(most.into_inner() <= cores);
    }
}
