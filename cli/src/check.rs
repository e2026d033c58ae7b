//! `pointsman check`: validates a policy and reports every problem.

use crate::policy_file;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check a policy. Exit status: 0 if it is valid, 1 if it is not, 2 if it cannot be read.
#[derive(clap::Args)]
pub struct Args {
    /// The policy file: JSON if its name ends in .json, YAML otherwise.
    policy: PathBuf,
}

/// Prints one line per problem to standard error, or a summary of the policy to standard output. Warnings go to
/// standard error and do not change the exit status.
pub fn run(args: &Args) -> ExitCode {
    match policy_file::load(&args.policy) {
        Ok((config, policy)) => {
            policy_file::warnings(&args.policy, &policy).iter().for_each(|line| eprintln!("{line}"));
            let count = |n: usize, singular: &str| format!("{n} {singular}{}", if n == 1 { "" } else { "s" });
            println!(
                "{}: ok: {}, {}, {}, {}, {}",
                args.policy.display(),
                count(config.providers.len(), "provider"),
                count(config.models.len(), "model"),
                count(config.tasks.len(), "task"),
                count(config.tiers.len(), "tier"),
                count(config.tenants.len(), "tenant"),
            );
            ExitCode::SUCCESS
        }
        Err(error) => error.report(),
    }
}
