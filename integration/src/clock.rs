//! A clock that a test sets, for an Envoy to go by.

use crate::environment;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A clock. It goes on by itself from what it was set to.
pub struct Clock {
    path: PathBuf,
    file: File,
}

impl Clock {
    /// One that shows this time now, written like `2027-01-31T23:59:50Z`.
    ///
    /// # Panics
    /// If that is no time, or no file can be written.
    pub fn at(time: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pointsman-clock-{}-{number}", std::process::id()));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).expect("makes a file");
        let clock = Self { path, file };
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
        let ahead = seconds(wanted) - seconds(SystemTime::now());
        self.file.write_all_at(&ahead.to_ne_bytes(), 0).expect("writes a file");
    }

    /// What makes a program go by it, as a shell writes it.
    pub(crate) fn variables(&self) -> String {
        let library = environment::program("libpointsman_clock.so");
        format!("LD_PRELOAD='{}' POINTSMAN_CLOCK='{}'", library.display(), self.path.display())
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
