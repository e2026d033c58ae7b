//! The sections of a policy: the fields of each, as serde knows them, and what refers to what.

use super::mistake::in_backticks;
use crate::config::place::Step;
use crate::config::{
    Cache, Config, Credential, Identity, Limits, Model, Price, Provider, Quota, Redis, RequestBounds, Resilience,
    ResponseBounds, Task, TaskCache, TaskResilience, Tenant, Tier,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// The sections whose entries have names, and what an entry is called.
pub(super) const NAMED: [(&str, &str); 5] =
    [("providers", "provider"), ("models", "model"), ("tasks", "task"), ("tiers", "tier"), ("tenants", "tenant")];

/// Returns what an entry of a section is called.
pub(super) fn singular(section: &str) -> Option<&'static str> {
    NAMED.iter().find(|(name, _)| *name == section).map(|(_, singular)| *singular)
}

/// A section, or "" for the policy itself, a part of it, or "", and its fields.
type Fields = ((&'static str, &'static str), Vec<String>);

/// The fields of each section and part. They never change, and each look would parse a message.
static FIELDS: LazyLock<Vec<Fields>> = LazyLock::new(|| {
    vec![
        (("", ""), fields::<Config>()),
        (("providers", ""), fields::<Provider>()),
        (("models", ""), fields::<Model>()),
        (("tasks", ""), fields::<Task>()),
        (("tiers", ""), fields::<Tier>()),
        (("tenants", ""), fields::<Tenant>()),
        (("identity", ""), fields::<Identity>()),
        (("request", ""), fields::<RequestBounds>()),
        (("response", ""), fields::<ResponseBounds>()),
        (("resilience", ""), fields::<Resilience>()),
        (("cache", ""), fields::<Cache>()),
        (("redis", ""), fields::<Redis>()),
        (("quota", ""), fields::<Quota>()),
        (("models", "price"), fields::<Price>()),
        (("quota", "default_price"), fields::<Price>()),
        (("providers", "credential"), fields::<Credential>()),
        (("tasks", "cache"), fields::<TaskCache>()),
        (("tasks", "resilience"), fields::<TaskResilience>()),
        (("tiers", "limits"), fields::<Limits>()),
        (("tenants", "limits"), fields::<Limits>()),
    ]
});

/// Returns the fields of the policy itself: its sections.
pub(super) fn sections() -> &'static [String] {
    fields_of_part("", "")
}

/// Returns the fields of an entry of a named section, or of any other section.
pub(super) fn fields_of(section: &str) -> &'static [String] {
    if section.is_empty() { &[] } else { fields_of_part(section, "") }
}

/// Returns the fields of a part of a section's entry.
pub(super) fn fields_of_part(section: &str, field: &str) -> &'static [String] {
    FIELDS.iter().find(|(place, _)| *place == (section, field)).map(|(_, fields)| fields.as_slice()).unwrap_or_default()
}

/// Returns where a field belongs, if only one part of a policy has it: the words for a message.
pub(super) fn home(field: &str) -> Option<String> {
    let mut homes = Vec::new();
    for (section, singular) in NAMED {
        if fields_of(section).iter().any(|known| known == field) {
            homes.push(format!("a {singular}: `{section}.NAME.{field}`"));
        }
        for part in ["price", "credential", "cache", "resilience", "limits"] {
            if section != "tenants" && fields_of_part(section, part).iter().any(|known| known == field) {
                homes.push(format!("the {part} of a {singular}: `{section}.NAME.{part}.{field}`"));
            }
        }
    }
    for section in ["identity", "request", "response", "resilience", "cache", "redis", "quota"] {
        if fields_of(section).iter().any(|known| known == field) {
            homes.push(format!("the section {section}: `{section}.{field}`"));
        }
    }
    match homes.as_slice() {
        [one] => Some(one.clone()),
        [one, other] => Some(format!("{one}, or {other}")),
        _ => None,
    }
}

/// Returns whether `value` has the fields of an entry of `section`, and one that tells it from other entries.
pub(super) fn looks_like_entry(value: &Value, section: &str) -> bool {
    let telling: &[&str] = match section {
        "providers" => &["dialect", "base_path", "credential", "local"],
        "models" => &["provider", "model", "context", "max_output_tokens"],
        "tasks" => &["primary", "fallback"],
        "tiers" => &["models"],
        "tenants" => &["tier", "keys"],
        _ => return false,
    };
    let Some(map) = value.as_object() else { return false };
    let fields = fields_of(section);
    map.keys().any(|name| telling.contains(&name.as_str())) && map.keys().all(|name| fields.contains(name))
}

/// Returns the section whose entries look like `value`, if it is a single one.
pub(super) fn section_of_entry(value: &Value) -> Option<&'static str> {
    let mut all = NAMED.iter().map(|(section, _)| *section).filter(|section| looks_like_entry(value, section));
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

/// Returns the section to which the name at a place refers.
pub(super) fn refers_to(place: &[Step]) -> Option<&'static str> {
    let steps: Vec<&str> = place.iter().map(|step| step.as_name().unwrap_or("[]")).collect();
    match steps.as_slice() {
        ["default_task"] => Some("tasks"),
        ["models", _, "provider"] => Some("providers"),
        ["tasks", _, "primary"] | ["tasks", _, "fallback", "[]"] | ["tiers", _, "models", "[]"] => Some("models"),
        ["tenants", _, "tier"] => Some("tiers"),
        ["tiers" | "tenants", _, "limits", "per_model", _]
        | ["tiers" | "tenants", _, "limits", "on_exhausted", "degrade"] => Some("models"),
        _ => None,
    }
}

/// Returns the places where fields are expected and a list is. serde would take its elements for the fields.
pub(super) fn lists_for_fields(tree: &Value) -> Vec<Vec<Step>> {
    let mut found = Vec::new();
    let mut look = |value: &Value, names: &[&str]| {
        if value.is_array() {
            found.push(names.iter().map(|name| Step::Name((*name).to_owned())).collect());
        }
    };
    let known = sections();
    for (section, value) in tree.as_object().into_iter().flatten().filter(|(section, _)| known.contains(section)) {
        if singular(section).is_none() {
            look(value, &[section]);
            if let Some(price) = value.get("default_price") {
                look(price, &[section, "default_price"]);
            }
            continue;
        }
        for (name, entry) in value.as_object().into_iter().flatten() {
            look(entry, &[section, name]);
            for (field, part) in entry.as_object().into_iter().flatten() {
                if !fields_of_part(section, field).is_empty() {
                    look(part, &[section, name, field]);
                    if let Some(limits) = part.get("per_user") {
                        look(limits, &[section, name, field, "per_user"]);
                    }
                }
            }
        }
    }
    found
}

/// Returns the names of a section.
pub(super) fn names<'a>(tree: &'a Value, section: &str) -> Vec<&'a str> {
    tree.get(section).and_then(Value::as_object).map(|map| map.keys().map(String::as_str).collect()).unwrap_or_default()
}

/// Returns the value at a place.
pub(super) fn value_at<'a>(tree: &'a Value, place: &[Step]) -> Option<&'a Value> {
    place.iter().try_fold(tree, |node, step| match step {
        Step::Name(name) => node.as_object()?.get(name),
        Step::Index(index) => node.as_array()?.get(*index),
    })
}

/// Returns the fields of a section: those that serde lists when one is unknown. A former name is not among them.
pub(super) fn fields<Section: DeserializeOwned>() -> Vec<String> {
    let Err(error) = serde_json::from_value::<Section>(json!({"": null})) else { return Vec::new() };
    let message = error.to_string();
    let listed = message.split_once("expected ").map_or("", |(_, listed)| listed);
    let mut fields = in_backticks(listed);
    // Models and tenants have a `tier`. That of a model is the former name of its level.
    if fields.iter().any(|field| field == "level") {
        fields.retain(|field| field != "tier");
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_the_types() {
        assert_eq!(fields::<Tenant>(), ["tier", "keys", "data", "cache_revision", "limits"]);
        assert_eq!(fields_of("tiers"), ["models", "limits"]);
        assert!(fields_of("models").contains(&"level".to_owned()) && !fields_of("models").contains(&"tier".to_owned()));
        assert_eq!(sections().len(), 13);
        assert_eq!(home("primary").unwrap(), "a task: `tasks.NAME.primary`");
        assert_eq!(home("nothing"), None);
    }

    #[test]
    fn an_entry_is_known_by_its_fields() {
        for (value, section) in [
            (json!({"models": ["a"]}), Some("tiers")),
            (json!({"tier": "a"}), Some("tenants")),
            (json!({"primary": "a", "max_output_tokens": 5}), Some("tasks")),
            (json!({"primary": "a"}), Some("tasks")),
            (json!({"dialect": "openai", "data": "public"}), Some("providers")),
            (json!({"provider": "a", "model": "b"}), Some("models")),
            (json!({"limits": {}}), None),
            (json!({}), None),
            (json!("x"), None),
        ] {
            assert_eq!(section_of_entry(&value), section, "{value}");
        }
    }
}
