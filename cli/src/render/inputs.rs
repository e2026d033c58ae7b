//! The input of a rendering: a policy and the operator's clusters for its providers.

use super::providers::{self, OwnCluster};
use crate::policy_file::{self, InvalidPolicyFile};
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
}

/// Why rendering is impossible.
#[derive(Debug)]
pub enum Refused {
    /// The policy file is unreadable or invalid.
    Policy(InvalidPolicyFile),
    /// Problems that name a file each.
    Other(Vec<String>),
}

impl Inputs {
    /// Loads the policy and its providers.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load(policy_path: &Path, providers: &Path) -> Result<Self, Refused> {
        let (config, policy) = policy_file::load(policy_path).map_err(Refused::Policy)?;
        let plans = clusters::plans(&policy);
        let providers = providers::clusters(providers, &policy).map_err(Refused::Other)?;
        Ok(Self { config, policy, plans, providers })
    }
}

impl Refused {
    /// Prints the problems to standard error and returns the exit status.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Policy(invalid) => invalid.report(),
            Self::Other(_) => {
                eprintln!("{self}");
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
            Self::Other(lines) => f.write_str(&lines.join("\n")),
        }
    }
}
