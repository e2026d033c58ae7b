//! Waits by polling until something holds, and says what it waited for when it never does.

use std::time::{Duration, Instant};

/// How long any wait may last. That is far longer than it should, because machines that run tests are sometimes slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `found` returns a value.
///
/// # Panics
/// If it returns none within [`PATIENCE`]. The message names `what`.
pub fn await_some<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(4);
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(pause);
        // Long waits poll less often, since Envoy takes a while to list its counters.
        pause = (pause * 5 / 4).min(Duration::from_millis(50));
    }
}

/// Polls until `holds` returns true.
///
/// # Panics
/// If it does not within [`PATIENCE`]. The message names `what`.
pub fn await_true(what: &str, mut holds: impl FnMut() -> bool) {
    await_some(what, || holds().then_some(()));
}
