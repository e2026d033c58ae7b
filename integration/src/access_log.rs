//! The access log as an operator reads it: one JSON line per request, and one per attempt.

use crate::deadline::await_some;
use serde_json::Value;
use std::path::PathBuf;

/// The file.
pub struct AccessLog(PathBuf);

impl AccessLog {
    /// The log at `path`, which need not exist yet.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The whole text so far.
    pub fn text(&self) -> String {
        std::fs::read(&self.0)
            .map(|bytes| String::from_utf8(bytes).expect("the access log is UTF-8"))
            .unwrap_or_default()
    }

    /// Every whole line, each of which must be JSON.
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        whole.lines().map(read).collect()
    }

    /// The audit record of a request, awaited.
    pub fn audit(&self, trace_id: &str) -> Value {
        await_some(&format!("the audit record of {trace_id}"), || {
            let mut lines = self.of(trace_id).into_iter();
            lines.find(|line| line.get("attempt").is_none())
        })
    }

    /// The lines of a request's attempts; complete once its audit record is there.
    pub fn attempts(&self, trace_id: &str) -> Vec<Value> {
        self.of(trace_id).into_iter().filter(|line| line.get("attempt").is_some()).collect()
    }

    fn of(&self, trace_id: &str) -> Vec<Value> {
        // Reading every line of a long log again and again is slow: only those that name the request.
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().filter(|line| line.contains(trace_id));
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        lines.map(read).filter(|line: &Value| line["trace_id"] == trace_id).collect()
    }
}
