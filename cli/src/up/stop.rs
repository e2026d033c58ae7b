//! Tracks whether `up` has been asked to stop.

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Set by SIGTERM, SIGINT, SIGQUIT and SIGHUP.
pub struct Stop {
    signalled: Arc<AtomicBool>,
    /// Whether the first signal has been acted on.
    acknowledged: Cell<bool>,
}

impl Stop {
    /// Installs the signal handlers. SIGHUP stays ignored if it was ignored at startup (`nohup`).
    ///
    /// # Errors
    /// The system's, if a handler cannot be installed.
    pub fn on_signals() -> io::Result<Self> {
        let told = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT, SIGQUIT, SIGHUP] {
            if signal != SIGHUP || !is_ignored(&std::fs::read_to_string("/proc/self/status")?, signal) {
                signal_hook::flag::register(signal, Arc::clone(&told))?;
            }
        }
        Ok(Self { signalled: told, acknowledged: Cell::new(false) })
    }

    /// Returns whether a signal has arrived.
    pub fn is_told(&self) -> bool {
        self.acknowledged.get() || self.signalled.load(Ordering::Relaxed)
    }

    /// Takes note of the first signal, so that [`Stop::is_told_again`] tells of the next one.
    pub fn acknowledge(&self) {
        self.acknowledged.set(true);
        self.signalled.store(false, Ordering::Relaxed);
    }

    /// Returns whether a signal has arrived since the first one was acknowledged.
    pub fn is_told_again(&self) -> bool {
        self.acknowledged.get() && self.signalled.load(Ordering::Relaxed)
    }
}

/// Returns whether a process ignores a signal, by its `/proc/PID/status` (proc_pid_status(5): a hexadecimal mask).
fn is_ignored(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_ignored_is_read_from_the_mask() {
        let status =
            "Name:\tpointsman\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert!(is_ignored(status, SIGHUP));
        assert!(!is_ignored(status, SIGINT));
        assert!(!is_ignored("Name:\tpointsman\n", SIGHUP));
    }
}
