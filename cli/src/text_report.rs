//! Findings as text: one line each, the line of the file below it, and a summary.

use crate::finding::{Finding, Severity};
use pointsman_core::config::problem::MORE;

/// How many findings of a file are printed, unless all are wanted.
const ENOUGH: usize = 10;

/// Returns the findings of a file as lines: each finding and its excerpt, then what is left out. `all`: nothing is.
pub fn lines(findings: &[Finding], all: bool) -> Vec<String> {
    let shown = if all { findings.len() } else { ENOUGH };
    let mut lines: Vec<String> = findings
        .iter()
        .take(shown)
        .map(|finding| match &finding.excerpt {
            Some(excerpt) => format!("{finding}\n{excerpt}"),
            None => finding.to_string(),
        })
        .collect();
    lines.extend(left_out(findings, shown));
    lines
}

/// Returns the findings of a file as single lines for a log.
pub fn log_lines(findings: &[Finding]) -> Vec<String> {
    let mut lines: Vec<String> = findings.iter().take(ENOUGH).map(Finding::to_string).collect();
    lines.extend(left_out(findings, ENOUGH));
    lines
}

fn left_out(findings: &[Finding], shown: usize) -> Option<String> {
    let left = findings.get(shown..).filter(|left| !left.is_empty())?;
    let file = findings.first().map(|finding| finding.file.as_str()).unwrap_or_default();
    Some(format!("{file}: ... and {} more; `pointsman check --all` shows them", counts(left)))
}

/// Returns `1 error, 2 warnings`, or `at least 100 errors`.
pub fn counts(findings: &[Finding]) -> String {
    // One finding may stand for any number.
    if findings.iter().any(|finding| finding.message == MORE) {
        return format!("at least {} errors", findings.len() - 1);
    }
    let of = |severity: Severity| match findings.iter().filter(|finding| finding.severity == severity).count() {
        0 => None,
        1 => Some(format!("1 {}", severity.name())),
        n => Some(format!("{n} {}s", severity.name())),
    };
    [Severity::Error, Severity::Warning].into_iter().filter_map(of).collect::<Vec<_>>().join(", ")
}
