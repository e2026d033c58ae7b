//! Clocks that a test sets, for programs to go by: the time of day, and the one that timeouts are measured with.

use crate::environment;
use std::ffi::OsString;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::NamedTempFile;

/// The time of day. It goes on by itself from what it was set to.
pub struct Clock(Ahead);

impl Clock {
    /// One that shows this time now, written like `2027-01-31T23:59:50Z`.
    ///
    /// # Panics
    /// If that is no time, or no file can be written.
    pub fn at(time: &str) -> Self {
        let clock = Self(Ahead::new("POINTSMAN_CLOCK"));
        clock.set(time);
        clock
    }

    /// Makes it show this time now, earlier or later than what it shows.
    ///
    /// # Panics
    /// If that is no time, or the file cannot be written.
    pub fn set(&self, time: &str) {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64;
        let wanted = humantime::parse_rfc3339(time).expect("is a time");
        self.0.set(seconds(wanted) - seconds(SystemTime::now()));
    }

    /// What makes a program go by it.
    pub fn variables(&self) -> [(&'static str, OsString); 2] {
        self.0.variables()
    }
}

/// The clock that a program measures its timeouts with. It goes on by itself, and can only be moved on.
pub struct Stopwatch(Ahead);

impl Stopwatch {
    /// One that shows what it does everywhere.
    ///
    /// # Panics
    /// If no file can be written.
    #[expect(clippy::new_without_default, reason = "it makes a file")]
    pub fn new() -> Self {
        Self(Ahead::new("POINTSMAN_MONOTONIC_CLOCK"))
    }

    /// Makes it show this much more than it does everywhere.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn set_ahead(&self, by: Duration) {
        self.0.set(by.as_secs() as i64);
    }

    /// What makes a program go by it.
    pub fn variables(&self) -> [(&'static str, OsString); 2] {
        self.0.variables()
    }
}

/// The file from which a program reads by how much one of its clocks is ahead.
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
