//! The input of a rendering: a policy and the operator's clusters for its providers.

use super::providers::{self, OwnCluster, OwnClusters};
use crate::finding::Finding;
use crate::policy_file::{self, InvalidPolicyFile, Origin, ValidPolicyFile};
use crate::text_report;
use pointsman_core::config::Config;
use pointsman_core::policy::Policy;
use pointsman_core::policy::clusters::{self, ProviderSequence};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// A valid policy and a cluster for each of its providers.
#[derive(Debug)]
pub struct Inputs {
    /// The policy as written, for the module.
    pub config: Config,
    /// The policy as validated.
    pub policy: Policy,
    /// The plans that it may need.
    pub plans: BTreeSet<ProviderSequence>,
    /// The operator's clusters by name: the providers' and the Redis bridge's.
    pub providers: BTreeMap<String, OwnCluster>,
    /// What is valid and probably not meant.
    pub warnings: Vec<Finding>,
}

/// Why rendering is impossible.
#[derive(Debug)]
pub enum Refused {
    /// The policy file is unreadable or invalid.
    Policy(InvalidPolicyFile),
    /// The providers' clusters are missing or cannot be used.
    Clusters(Vec<Finding>),
}

impl Inputs {
    /// Loads the policy and its providers.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(policy_path: &Path, origin: Origin, providers: &Path) -> Result<Self, Refused> {
        let ValidPolicyFile { config, policy, mut warnings } =
            policy_file::load(policy_path, origin).map_err(Refused::Policy)?;
        let plans = clusters::plans(&policy);
        let OwnClusters { by_name: providers, suspicious } =
            providers::clusters(providers, &policy).map_err(Refused::Clusters)?;
        warnings.extend(suspicious);
        Ok(Self { config, policy, plans, providers, warnings })
    }
}

impl Refused {
    /// Prints the problems to standard error and returns the exit status.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Policy(invalid) => invalid.report(),
            Self::Clusters(findings) => {
                text_report::lines(findings, false).iter().for_each(|line| eprintln!("{line}"));
                ExitCode::from(1)
            }
        }
    }
}

/// One line per problem.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Policy(invalid) => invalid.fmt(f),
            Self::Clusters(findings) => f.write_str(&text_report::log_lines(findings).join("\n")),
        }
    }
}
