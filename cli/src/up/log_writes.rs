//! Notices when Envoy cannot write its access log. Envoy itself only counts that.

use super::admin::Admin;
use crate::render::settings::LogTarget;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The pause between two looks: each makes Envoy search all of its counters.
const LOOK: Duration = Duration::from_secs(5);
/// The pause before a failure that goes on is reported again.
const AGAIN: Duration = Duration::from_secs(600);

/// The writes to an access log so far.
pub struct LogWrites {
    /// The name of the log, for messages.
    log: String,
    next_look: Instant,
    seen: Counts,
    failing: Option<Failing>,
    /// The file, if the log is one.
    file: Option<PathBuf>,
    /// For how many looks the file has been missing.
    missing: u32,
}

/// Envoy's counters of `filesystem.`: of writes, or of attempts to open the file again, that failed; of writes that
/// succeeded.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    failed: u64,
    done: u64,
}

struct Failing {
    /// The number of failures when it began.
    before: u64,
    say_again: Instant,
}

impl LogWrites {
    /// Starts with an Envoy that has just started.
    pub fn new(target: &LogTarget) -> Self {
        let log = match target {
            LogTarget::Stdout => "standard output".to_owned(),
            LogTarget::File(path) => path.clone(),
        };
        let file = match target {
            LogTarget::Stdout => None,
            LogTarget::File(path) => Some(PathBuf::from(path)),
        };
        Self { log, next_look: Instant::now(), seen: Counts::default(), failing: None, file, missing: 0 }
    }

    /// Returns what to say of the log, if anything is new.
    pub fn look(&mut self, admin: &Admin) -> Vec<String> {
        let now = Instant::now();
        if now < self.next_look {
            return Vec::new();
        }
        self.next_look = now + LOOK;
        let mut lines = Vec::from_iter(self.removed());
        if let Some(stats) = admin.stats("filesystem.") {
            let of = |name: &str| stats.get(name).copied().unwrap_or(0);
            let counts = Counts { failed: of("write_failed") + of("reopen_failed"), done: of("write_completed") };
            lines.extend(self.news(counts, now));
        }
        lines
    }

    /// Returns what to say of a file that has been missing for a second look: log rotation may have come in between.
    fn removed(&mut self) -> Option<String> {
        let path = self.file.as_deref()?;
        let is_missing = std::fs::metadata(path).is_err_and(|e| e.kind() == ErrorKind::NotFound);
        self.missing = if is_missing { self.missing.saturating_add(1) } else { 0 };
        (self.missing == 2).then(|| {
            format!(
                "warning: access log {}: the file was removed, and Envoy writes to the removed one; \
                 `POST /reopen_logs` on the admin address makes it anew",
                self.log
            )
        })
    }

    fn news(&mut self, counts: Counts, now: Instant) -> Option<String> {
        let before = std::mem::replace(&mut self.seen, counts);
        let log = &self.log;
        if counts.failed > before.failed {
            let failing = self.failing.get_or_insert(Failing { before: before.failed, say_again: now });
            if now < failing.say_again {
                return None;
            }
            failing.say_again = now + AGAIN;
            let lost = counts.failed - failing.before;
            return Some(format!(
                "warning: access log {log}: Envoy cannot write to it ({lost} failed), so records are lost; is the disk \
                 full?"
            ));
        }
        let failing = self.failing.take_if(|_| counts.done > before.done)?;
        let lost = counts.failed - failing.before;
        Some(format!("access log {log}: Envoy writes to it again; {lost} writes failed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_reported_when_it_begins_and_ends_and_now_and_then_between() {
        let mut writes = LogWrites::new(&LogTarget::File("a.log".to_owned()));
        let start = Instant::now();
        let mut at = |seconds, failed, done| writes.news(Counts { failed, done }, start + Duration::from_secs(seconds));
        assert_eq!(at(0, 0, 5), None);
        let first = at(5, 2, 5).unwrap();
        assert!(first.starts_with("warning: access log a.log: Envoy cannot write to it (2 failed)"), "{first}");
        assert_eq!(at(10, 9, 5), None, "it goes on");
        assert_eq!(at(15, 9, 5), None, "there was nothing to write");
        assert!(at(605, 12, 5).unwrap().contains("(12 failed)"));
        assert_eq!(at(610, 12, 7).unwrap(), "access log a.log: Envoy writes to it again; 12 writes failed");
        assert_eq!(at(615, 12, 9), None);
        assert!(at(620, 13, 9).unwrap().contains("(1 failed)"), "a failure of its own");
    }
}
