//! Fields that older policies have elsewhere.

use super::mistake::{Kind, Mistake};
use crate::config::place::Step;
use crate::config::problem::Problem;
use crate::config::{Limits, RequestBounds, Time};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Tells where a field belongs that older policies have elsewhere.
pub(super) fn explain(mistake: &Mistake, tree: &Value) -> Option<Problem> {
    let Kind::UnknownField(_) = &mistake.kind else { return None };
    let names: Vec<_> = mistake.place.iter().map(Step::as_name).collect();
    let value = mistake.place.iter().try_fold(tree, |node, step| node.as_object()?.get(step.as_name()?));
    let message = match names.as_slice() {
        [Some("limits")] if value.is_some_and(is_all_limits) => {
            format!("limits belong under a tier or a tenant: `tiers: {{NAME: {{limits: {}}}}}`", shown(value))
        }
        [Some("limits")] => {
            format!("request bounds belong under `request`: `request: {}`", shown(value))
        }
        [Some("tiers" | "tenants"), Some(_), Some(field)] if is_field::<Limits>(field) => {
            format!("limits belong under `limits`: `limits: {{{field}: {}}}`", shown(value))
        }
        _ => return None,
    };
    Some(Problem::of_name(mistake.place(), message))
}

/// Returns whether a section has this field.
fn is_field<Section: DeserializeOwned>(name: &str) -> bool {
    let only = Value::Object([(name.to_owned(), Value::Null)].into_iter().collect());
    serde_json::from_value::<Section>(only)
        .map_or_else(|error| !error.to_string().starts_with("unknown field"), |_| true)
}

fn is_all_limits(value: &Value) -> bool {
    value.as_object().is_some_and(|map| !map.is_empty() && map.keys().all(|name| is_field::<Limits>(name)))
}

/// Formats a value of a policy, without any part that may be a key.
fn shown(value: Option<&Value>) -> String {
    let is_known = |name: &String| is_field::<Limits>(name) || is_field::<RequestBounds>(name);
    match value {
        Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
        Some(Value::String(text)) if serde_json::from_value::<Time>(json!(text)).is_ok() => text.clone(),
        Some(Value::Array(list)) => {
            format!("[{}]", list.iter().map(|value| shown(Some(value))).collect::<Vec<_>>().join(", "))
        }
        Some(Value::Object(map)) if map.keys().all(is_known) => {
            let fields = map.iter().map(|(name, value)| format!("{name}: {}", shown(Some(value))));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(", "))
        }
        Some(Value::Object(_)) => "{…}".to_owned(),
        _ => "…".to_owned(),
    }
}
