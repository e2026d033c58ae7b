//! Policy text to [`Policy`]: shape first, then meaning, every problem named.

use crate::config::Config;
use crate::policy::Policy;
use crate::problem::Problem;
use serde_json::Value;

mod shape;

/// Reads a policy as the module receives it. Stops at the first mistake of shape.
///
/// # Errors
/// The problems found, never empty.
pub fn from_json(text: &[u8]) -> Result<Policy, Vec<Problem>> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let config: Config = serde_path_to_error::deserialize(&mut json).map_err(|e| vec![shape::problem(&e)])?;
    json.end().map_err(|e| vec![Problem::new("", e.to_string())])?;
    Policy::try_from(config)
}

/// Reads a policy that is already a tree, and names every problem: of shape first, and of meaning once the shape is right,
/// because what hangs on a misspelt field would be reported wrongly.
///
/// # Errors
/// The problems found, never empty.
pub fn from_value(document: &Value) -> Result<(Config, Policy), Vec<Problem>> {
    let config = shape::read(document)?;
    let policy = Policy::try_from(config.clone())?;
    Ok((config, policy))
}
