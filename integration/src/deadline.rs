//! Waiting: polls until something holds, and says what it waited for when it never does.

use std::time::{Duration, Instant};

/// How long anything may take. Far above what it takes, because machines that run tests are slow now and then.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `found` gives a value.
///
/// # Panics
/// If it has not within [`PATIENCE`]; `what` says for what.
pub fn await_some<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Polls until `holds` is true.
///
/// # Panics
/// If it is not within [`PATIENCE`].
pub fn await_true(what: &str, mut holds: impl FnMut() -> bool) {
    await_some(what, || holds().then_some(()));
}
