//! Parses a policy into a [`Policy`]: its shape first, then its meaning. Reports every problem.

use crate::config::Config;
use crate::config::problem::Problem;
use crate::policy::Policy;
use serde_json::Value;
use sha2::{Digest, Sha256};

mod diagnostics;

/// Parses a policy in the form that the filter receives. Stops at the first mistake of shape.
///
/// # Errors
/// The problems found, at least one.
pub fn from_json(text: &[u8]) -> Result<Policy, Vec<Problem>> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let config: Config = serde_path_to_error::deserialize(&mut json).map_err(|e| vec![diagnostics::problem(&e)])?;
    json.end().map_err(|e| vec![Problem::new("", e.to_string())])?;
    let mut policy = Policy::try_from(config)?;
    policy.revision = revision(text);
    Ok(policy)
}

/// Reads a policy that is already parsed to a tree, and reports every problem: those of shape first, then those of
/// meaning. One that only follows from another is not reported.
///
/// # Errors
/// The problems found, at least one.
pub fn from_value(document: &Value) -> Result<(Config, Policy), Vec<Problem>> {
    let config = diagnostics::read(document).map_err(|flawed| flawed.problems(document))?;
    match Policy::try_from(config.clone()) {
        Ok(policy) => Ok((config, policy)),
        Err(problems) => Err(diagnostics::explain(problems, document)),
    }
}

/// Returns the revision of a policy text: the first eight bytes of its SHA-256.
fn revision(text: &[u8]) -> u64 {
    let digest = Sha256::digest(text);
    digest.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The configuration of one plugin instance.
#[derive(Debug)]
pub enum PluginConfig {
    /// The gateway stage, with this policy.
    Gateway(Box<Policy>),
    /// The model stage. It learns everything else from the gateway stage.
    Model {
        /// Whether it may fail an attempt at the end of its answer. Envoy 1.36 crashes if a retry follows that.
        fails_at_end: bool,
    },
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPluginConfig<'a> {
    role: Role,
    fails_at_end: Option<bool>,
    /// Parsed separately, so that its mistakes are reported with their place.
    #[serde(borrow)]
    policy: Option<&'a serde_json::value::RawValue>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Gateway,
    Model,
}

/// Parses a plugin configuration: `{"role": "gateway", "policy": {…}}` or `{"role": "model"}`.
///
/// # Errors
/// The problems found, at least one.
pub fn plugin_config(text: &[u8]) -> Result<PluginConfig, Vec<Problem>> {
    let problem = |message: String| Err(vec![Problem::new("", message)]);
    match serde_json::from_slice(text) {
        Ok(RawPluginConfig { role: Role::Gateway, policy: Some(policy), .. }) => {
            from_json(policy.get().as_bytes()).map(|policy| PluginConfig::Gateway(Box::new(policy)))
        }
        Ok(RawPluginConfig { role: Role::Model, policy: None, fails_at_end }) => {
            Ok(PluginConfig::Model { fails_at_end: fails_at_end.unwrap_or(true) })
        }
        Ok(RawPluginConfig { role: Role::Gateway, policy: None, .. }) => {
            problem("the role \"gateway\" requires a policy".into())
        }
        Ok(RawPluginConfig { role: Role::Model, policy: Some(_), .. }) => {
            problem("the role \"model\" accepts no policy".into())
        }
        Err(e) => problem(format!("invalid plugin configuration: {e}")),
    }
}
