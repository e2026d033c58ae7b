//! One file that was checked, and its text report.

use crate::finding::{Finding, Severity};
use crate::text_report;

/// A file that was checked.
pub struct Checked {
    /// The file, as the user named it.
    pub file: String,
    /// Its problems and those of its providers, from top to bottom.
    pub findings: Vec<Finding>,
    /// The exit status that it deserves.
    pub status: u8,
    /// What a valid policy contains.
    pub summary: String,
}

impl Checked {
    /// Makes every warning an error.
    pub fn refuse_warnings(&mut self) {
        for finding in &mut self.findings {
            finding.severity = Severity::Error;
        }
        self.status = self.status.max(u8::from(!self.findings.is_empty()));
    }

    /// Prints the problems to standard error. Then a summary: of a valid policy to standard output, of an invalid one
    /// to standard error.
    pub fn print(&self, all: bool) {
        text_report::lines(&self.findings, all).iter().for_each(|line| eprintln!("{line}"));
        let Self { file, findings, status, summary } = self;
        match (status, findings.is_empty()) {
            (0, true) => println!("{file}: ok: {summary}"),
            (2.., _) => {}
            (0, false) => println!("{file}: ok, with {}: {summary}", text_report::counts(findings)),
            (_, _) => eprintln!("{file}: invalid: {}", text_report::counts(findings)),
        }
    }
}
