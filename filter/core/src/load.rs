//! Policy text to [`Policy`]: shape first, then meaning, every problem named.

use crate::config::Config;
use crate::policy::Policy;
use crate::problem::Problem;
use serde_json::Value;

/// Reads a policy as the module receives it. Stops at the first mistake of shape.
///
/// # Errors
/// The problems found, never empty.
pub fn from_json(text: &[u8]) -> Result<Policy, Vec<Problem>> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let config: Config = serde_path_to_error::deserialize(&mut json).map_err(|e| vec![shape_problem(&e)])?;
    json.end().map_err(|e| vec![Problem::new("", e.to_string())])?;
    Policy::try_from(config)
}

/// Reads a policy that is already a tree, and names every problem: mistakes of shape are cut out one by one, and the
/// rest is still checked.
///
/// # Errors
/// The problems found, never empty.
pub fn from_value(document: &Value) -> Result<(Config, Policy), Vec<Problem>> {
    let mut tree = document.clone();
    let mut problems = Vec::new();
    // Each round removes one node, so the number of nodes bounds the rounds; a thousand mistakes are enough to print.
    for _ in 0..1000 {
        match serde_path_to_error::deserialize::<_, Config>(&tree) {
            Ok(config) => match Policy::try_from(config.clone()) {
                Ok(policy) if problems.is_empty() => return Ok((config, policy)),
                Ok(_) => return Err(problems),
                Err(more) => {
                    problems.extend(more);
                    return Err(problems);
                }
            },
            Err(e) => {
                let problem = shape_problem(&e);
                // A missing field cannot be cut out, and what hangs on it would be reported wrongly.
                let missing = problem.message.starts_with("missing field");
                let place = e.path().iter().map(segment).collect::<Vec<_>>();
                problems.push(problem);
                if missing || !remove(&mut tree, &place) {
                    return Err(problems);
                }
            }
        }
    }
    Err(problems)
}

fn shape_problem(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    Problem::new(error.path().to_string(), error.inner().to_string())
}

fn segment(segment: &serde_path_to_error::Segment) -> String {
    use serde_path_to_error::Segment;
    match segment {
        Segment::Seq { index } => index.to_string(),
        Segment::Map { key } => key.clone(),
        Segment::Enum { variant } => variant.clone(),
        Segment::Unknown => String::new(),
    }
}

fn remove(tree: &mut Value, place: &[String]) -> bool {
    let Some((last, parents)) = place.split_last() else { return false };
    let mut node = tree;
    for parent in parents {
        let next = match node {
            Value::Object(map) => map.get_mut(parent),
            Value::Array(list) => parent.parse::<usize>().ok().and_then(|i| list.get_mut(i)),
            _ => None,
        };
        match next {
            Some(next) => node = next,
            None => return false,
        }
    }
    match node {
        Value::Object(map) => map.remove(last).is_some(),
        Value::Array(list) => match last.parse::<usize>() {
            Ok(i) if i < list.len() => {
                list.remove(i);
                true
            }
            _ => false,
        },
        _ => false,
    }
}
