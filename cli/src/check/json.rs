//! The report of `pointsman check --format json`.

use super::checked::Checked;
use crate::finding::{Finding, Region, Severity};
use serde_json::{Value, json};

/// Returns `{"files": […], "problems": […], "errors": N, "warnings": N}`.
pub fn report(checked: &[Checked]) -> Value {
    let findings = || checked.iter().flat_map(|file| &file.findings);
    let count = |severity| findings().filter(|finding| finding.severity == severity).count();
    json!({
        "files": checked.iter().map(file).collect::<Vec<_>>(),
        "problems": findings().map(problem).collect::<Vec<_>>(),
        "errors": count(Severity::Error),
        "warnings": count(Severity::Warning),
    })
}

fn file(checked: &Checked) -> Value {
    let status = match checked.status {
        0 => "ok",
        1 => "invalid",
        _ => "unreadable",
    };
    json!({"file": checked.file, "status": status})
}

fn problem(finding: &Finding) -> Value {
    let Finding { file, region, severity, rule, place, message, excerpt: _ } = finding;
    let mut problem = json!({
        "file": file,
        "severity": severity.name(),
        "rule": rule.id(),
        "place": place,
        "message": message,
    });
    if let (Some(Region { line, column, end_line, end_column }), Some(members)) = (region, problem.as_object_mut()) {
        let numbers = [("line", line), ("column", column), ("end_line", end_line), ("end_column", end_column)];
        members.extend(numbers.map(|(name, number)| (name.to_owned(), Value::from(*number))));
    }
    problem
}
