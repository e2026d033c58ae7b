//! `pointsman check`: validates policies and reports every problem.

mod checked;
mod json;
mod sarif;

use crate::finding::{Rule, Severity};
use crate::policy_file::{self, Origin, ValidPolicyFile};
use crate::render::providers;
use checked::Checked;
use pointsman_core::config::Config;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Check policies.
///
/// Exit status: 0 if all are valid; 1 if one is invalid, or has a warning with --strict; 2 if one cannot be read or
/// parsed.
#[derive(clap::Args)]
pub struct Args {
    /// The policy files: JSON if the name ends in .json, YAML otherwise. `-` is standard input.
    #[arg(value_name = "FILE", required = true)]
    policies: Vec<PathBuf>,
    /// Treat warnings as errors.
    #[arg(long)]
    strict: bool,
    /// Print every problem. Without it, the text ends after ten of a file.
    #[arg(long)]
    all: bool,
    /// How problems are printed: as text on standard error, or as JSON or SARIF 2.1.0 on standard output.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Also check the provider clusters that `up` and `render` would use with the policies: the directory of *.yaml and
    /// *.yml files that they get as `--providers`.
    #[arg(long, value_name = "DIR")]
    providers: Option<PathBuf>,
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
    Sarif,
}

/// Prints every problem, and a summary of each policy. Returns the worst status of all policies.
pub fn run(args: &Args) -> ExitCode {
    if args.policies.iter().filter(|policy| policy_file::is_stdin(policy)).count() > 1 {
        eprintln!("error: `-` is given twice; standard input can be read only once");
        return ExitCode::from(2);
    }
    let checked: Vec<_> = args.policies.iter().map(|policy| check(policy, args)).collect();
    let printed = match args.format {
        Format::Text => {
            checked.iter().for_each(|file| file.print(args.all));
            Ok(())
        }
        Format::Json => print(&json::report(&checked)),
        Format::Sarif => print(&sarif::report(&checked)),
    };
    match printed {
        Ok(()) => ExitCode::from(checked.iter().map(|file| file.status).max().unwrap_or(0)),
        // Standard output is closed.
        Err(_) => ExitCode::FAILURE,
    }
}

fn print(report: &serde_json::Value) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{report:#}")
}

fn check(path: &Path, args: &Args) -> Checked {
    let file = policy_file::name(path);
    let (findings, status, summary) = match policy_file::load(path, Origin::Any) {
        Ok(ValidPolicyFile { config, policy, warnings }) => {
            let mut findings = warnings;
            if let Some(directory) = &args.providers {
                let clusters = providers::clusters(directory, &policy);
                findings.extend(clusters.map_or_else(|found| found, |clusters| clusters.suspicious));
            }
            let is_refused = findings.iter().any(|finding| finding.severity == Severity::Error);
            // What cannot be read or parsed is worse than what is invalid.
            let is_unusable = findings.iter().any(|finding| matches!(finding.rule, Rule::Unreadable | Rule::Syntax));
            (findings, if is_unusable { 2 } else { u8::from(is_refused) }, summary(&config))
        }
        Err(invalid) => (invalid.findings, invalid.status, String::new()),
    };
    let mut checked = Checked { file, findings, status, summary };
    if args.strict {
        checked.refuse_warnings();
    }
    checked
}

fn summary(config: &Config) -> String {
    let count = |n: usize, singular: &str| format!("{n} {singular}{}", if n == 1 { "" } else { "s" });
    [
        count(config.providers.len(), "provider"),
        count(config.models.len(), "model"),
        count(config.tasks.len(), "task"),
        count(config.tiers.len(), "tier"),
        count(config.tenants.len(), "tenant"),
    ]
    .join(", ")
}
