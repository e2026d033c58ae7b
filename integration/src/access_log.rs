//! The access log as an operator reads it: one JSON line per request, and one per attempt.

use crate::deadline::await_some;
use serde_json::Value;
use std::path::PathBuf;

/// The path of the access log.
pub struct AccessLog(PathBuf);

impl AccessLog {
    /// Returns the log at `path`. The file need not exist yet.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Returns the text written so far; empty if the file cannot be read.
    pub fn text(&self) -> String {
        std::fs::read(&self.0)
            .map(|bytes| String::from_utf8(bytes).expect("the access log is UTF-8"))
            .unwrap_or_default()
    }

    /// Parses every complete line. Panics if one is not JSON.
    pub fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        whole.lines().map(read).collect()
    }

    /// Waits for the audit record of a request and returns it.
    pub fn audit(&self, trace_id: &str) -> Value {
        await_some(&format!("the audit record of {trace_id}"), || {
            let mut lines = self.of(trace_id).into_iter();
            lines.find(|line| line.get("attempt").is_none())
        })
    }

    /// Returns the attempt lines of a request. They are complete once its audit record has been written.
    pub fn attempts(&self, trace_id: &str) -> Vec<Value> {
        self.of(trace_id).into_iter().filter(|line| line.get("attempt").is_some()).collect()
    }

    fn of(&self, trace_id: &str) -> Vec<Value> {
        // Parsing every line of a long log at each poll is slow: parse only the lines that contain the trace id.
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().filter(|line| line.contains(trace_id));
        let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        lines.map(read).filter(|line: &Value| line["trace_id"] == trace_id).collect()
    }
}
