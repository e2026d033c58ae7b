//! Loads a policy file into the configuration and the validated policy, or reports every problem.

use crate::document::{self, InvalidDocument};
use crate::time_zone;
use pointsman_core::config::Config;
use pointsman_core::config::problem::Problem;
use pointsman_core::policy::Policy;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Why a policy file cannot be used.
#[derive(Debug)]
pub struct InvalidPolicyFile {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    /// It cannot be read.
    Io(std::io::Error),
    /// It is neither YAML nor JSON.
    Document(InvalidDocument),
    /// It is not a valid policy. Never empty.
    Policy(Vec<Problem>),
}

/// Reads and validates a policy: JSON if the file's name ends in `.json`, YAML otherwise.
///
/// # Errors
/// The file name and every problem found.
pub fn load(path: &Path) -> Result<(Config, Policy), InvalidPolicyFile> {
    read(path).map_err(|reason| InvalidPolicyFile { path: path.to_owned(), reason })
}

/// Returns one line per setting of the policy that is valid and probably not meant. Each starts with the file name.
pub fn warnings(path: &Path, policy: &Policy) -> Vec<String> {
    let line = |warning: &Problem| format!("{}: warning: {warning}", path.display());
    pointsman_core::policy::warnings::warnings(policy).iter().map(line).collect()
}

fn read(path: &Path) -> Result<(Config, Policy), Reason> {
    let text = std::fs::read_to_string(path).map_err(Reason::Io)?;
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let parse = if is_json { document::from_json } else { document::from_yaml };
    let mut tree = parse(&text).map_err(Reason::Document)?;
    time_zone::fill(&mut tree);
    pointsman_core::policy::parse::from_value(&tree).map_err(Reason::Policy)
}

impl InvalidPolicyFile {
    /// Prints the problems to standard error and returns the exit status: 1 if the policy is invalid, 2 if the file
    /// cannot be read or parsed.
    pub fn report(&self) -> ExitCode {
        eprintln!("{self}");
        match self.reason {
            Reason::Policy(_) => ExitCode::from(1),
            Reason::Io(_) | Reason::Document(_) => ExitCode::from(2),
        }
    }
}

/// One line per problem, each starting with the file name.
impl fmt::Display for InvalidPolicyFile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let path = self.path.display();
        match &self.reason {
            Reason::Io(error) => write!(f, "{path}: {error}"),
            Reason::Document(error) => write!(f, "{path}: {error}"),
            Reason::Policy(problems) => problems
                .iter()
                .enumerate()
                .try_for_each(|(i, problem)| write!(f, "{}{path}: {problem}", if i == 0 { "" } else { "\n" })),
        }
    }
}

impl std::error::Error for InvalidPolicyFile {}
