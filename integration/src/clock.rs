//! Clocks that a test sets for the programs it runs: the time of day, and the clock that measures timeouts.

use crate::environment;
use std::ffi::OsString;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::NamedTempFile;

/// The time of day. It advances normally from the time it was set to.
pub struct Clock(Ahead);

impl Clock {
    /// Creates a clock that shows this time now, written like `2027-01-31T23:59:50Z`.
    ///
    /// # Panics
    /// If that is not a valid time, or the file cannot be written.
    pub fn at(time: &str) -> Self {
        let clock = Self(Ahead::new("POINTSMAN_CLOCK"));
        clock.set(time);
        clock
    }

    /// Sets the clock to this time, which may be earlier or later than what it shows.
    ///
    /// # Panics
    /// If that is not a valid time, or the file cannot be written.
    pub fn set(&self, time: &str) {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
        let wanted = humantime::parse_rfc3339(time).expect("is a time");
        self.0.set(seconds(wanted) - seconds(SystemTime::now()));
    }

    /// Returns the environment variables that make a program use this clock.
    pub fn variables(&self) -> [(&'static str, OsString); 2] {
        self.0.variables()
    }
}

/// The clock that a program measures its timeouts with. It advances normally, and a test can set it ahead.
pub struct Stopwatch(Ahead);

impl Stopwatch {
    /// Creates a clock that agrees with the system's.
    ///
    /// # Panics
    /// If the file cannot be written.
    #[expect(clippy::new_without_default, reason = "it makes a file")]
    pub fn new() -> Self {
        Self(Ahead::new("POINTSMAN_MONOTONIC_CLOCK"))
    }

    /// Sets the clock `by` ahead of the system's, in whole seconds.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn set_ahead(&self, by: Duration) {
        self.0.set(by.as_secs() as i64);
    }

    /// Returns the environment variables that make a program use this clock.
    pub fn variables(&self) -> [(&'static str, OsString); 2] {
        self.0.variables()
    }
}

/// The file from which a program reads how many seconds one of its clocks is ahead.
struct Ahead {
    variable: &'static str,
    file: NamedTempFile,
}

impl Ahead {
    fn new(variable: &'static str) -> Self {
        let ahead = Self { variable, file: NamedTempFile::new().expect("makes a file") };
        ahead.set(0);
        ahead
    }

    fn set(&self, seconds: i64) {
        self.file.as_file().write_all_at(&seconds.to_ne_bytes(), 0).expect("writes a file");
    }

    fn variables(&self) -> [(&'static str, OsString); 2] {
        let library = environment::program("libpointsman_clock.so");
        [("LD_PRELOAD", library.into()), (self.variable, self.file.path().into())]
    }
}
