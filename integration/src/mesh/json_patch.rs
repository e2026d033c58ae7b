//! Envoy Gateway's EnvoyPatchPolicy: applies its patches as `internal/xds/translator/jsonpatch.go` and
//! `internal/utils/jsonpatch` of envoyproxy/gateway do, as far as they are used here. Whatever those would report as an
//! error panics.

use super::resources::{Resources, name};
use serde_json::{Map, Value};

/// Applies the patches of a policy in order.
pub fn apply(resources: &mut Resources, policy: &Value) {
    assert_eq!(policy["spec"]["type"], "JSONPatch");
    for patch in policy["spec"]["jsonPatches"].as_array().expect("is a list") {
        let operation = &patch["operation"];
        assert_eq!(operation["op"], "add", "{operation}");
        let kind = patch["type"].as_str().expect("has a type");
        let resources = match kind.strip_prefix("type.googleapis.com/envoy.config.").expect("is a resource of Envoy") {
            "listener.v3.Listener" => &mut resources.listeners,
            "route.v3.RouteConfiguration" => &mut resources.routes,
            "cluster.v3.Cluster" => &mut resources.clusters,
            _ => panic!("{kind}"),
        };
        let path = operation["path"].as_str().unwrap_or_default();
        let value = &operation["value"];
        let json_path = operation["jsonPath"].as_str();
        if path.is_empty() && json_path.is_none() {
            assert_eq!(name(value), patch["name"], "{patch}");
            resources.push(value.clone());
            continue;
        }
        let found = resources.iter_mut().find(|resource| resource["name"] == patch["name"]);
        let resource = found.unwrap_or_else(|| panic!("no {kind} {}", patch["name"]));
        let places = json_path.map_or_else(|| vec![String::new()], |json_path| locate(resource, json_path));
        assert!(!places.is_empty(), "{json_path:?} matches nothing in {resource:#}");
        places.iter().for_each(|place| add(resource, &format!("{place}{path}"), value));
    }
}

/// One step of a JSONPath.
#[derive(Debug)]
enum Step {
    /// `.name`
    Child(String),
    /// `..name`
    Deep(String),
    /// `[?(@.key == 'value')]`
    Where(String, String),
}

/// Returns the JSON pointers of what a JSONPath matches: the three kinds of steps that are used.
fn locate(root: &Value, json_path: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for step in steps(json_path) {
        let mut next = Vec::new();
        for pointer in found {
            let value = root.pointer(&pointer).expect("was found");
            match &step {
                Step::Child(name) => next.extend(value.get(name).map(|_| format!("{pointer}/{name}"))),
                Step::Deep(name) => deep(value, &pointer, name, &mut next),
                Step::Where(key, wanted) => {
                    let items = value.as_array().into_iter().flatten().enumerate();
                    let matches = items.filter(|(_, item)| item[key.as_str()] == **wanted);
                    next.extend(matches.map(|(at, _)| format!("{pointer}/{at}")));
                }
            }
        }
        found = next;
    }
    found
}

fn deep(value: &Value, pointer: &str, name: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let at = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
                if key == name {
                    found.push(at.clone());
                }
                deep(member, &at, name, found);
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                deep(item, &format!("{pointer}/{i}"), name, found);
            }
        }
        _ => {}
    }
}

fn steps(json_path: &str) -> Vec<Step> {
    let mut rest = json_path.strip_prefix('$').expect("begins at the root");
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(condition) = rest.strip_prefix("[?(@.") {
            let (condition, after) = condition.split_once("')]").expect("the condition ends");
            let (key, value) = condition.split_once(" == '").expect("is a comparison");
            steps.push(Step::Where(key.to_owned(), value.to_owned()));
            rest = after;
            continue;
        }
        let (is_deep, names) = match rest.strip_prefix("..") {
            Some(names) => (true, names),
            None => (false, rest.strip_prefix('.').unwrap_or_else(|| panic!("cannot read {rest}"))),
        };
        let end = names.find(['.', '[']).unwrap_or(names.len());
        let (name, after) = names.split_at(end);
        steps.push(if is_deep { Step::Deep(name.to_owned()) } else { Step::Child(name.to_owned()) });
        rest = after;
    }
    steps
}

/// "add" of RFC 6902, which also makes the lists and objects on the way that are missing.
fn add(root: &mut Value, pointer: &str, value: &Value) {
    let (parent, last) = pointer.rsplit_once('/').expect("is a pointer");
    let mut at = root;
    let mut tokens = parent.split('/').skip(1).chain([last]).peekable();
    while let Some(token) = tokens.next() {
        let token = token.replace("~1", "/").replace("~0", "~");
        let Some(following) = tokens.peek() else { return insert(at, &token, value) };
        at = match at {
            Value::Array(items) => &mut items[token.parse::<usize>().expect("is an index")],
            Value::Object(members) => {
                let is_list = *following == "-" || following.parse::<usize>().is_ok();
                let empty = if is_list { Value::Array(Vec::new()) } else { Value::Object(Map::new()) };
                members.entry(token).or_insert(empty)
            }
            other => panic!("{pointer} leads into {other}"),
        };
    }
}

fn insert(at: &mut Value, last: &str, value: &Value) {
    match at {
        Value::Array(items) if last == "-" => items.push(value.clone()),
        Value::Array(items) => items.insert(last.parse().expect("is an index"), value.clone()),
        Value::Object(members) => {
            members.insert(last.to_owned(), value.clone());
        }
        other => panic!("nothing can be added to {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_places() {
        let document = json!({"a": [{"name": "x", "b": 1}, {"name": "y", "c": {"a": [{"name": "x"}]}}]});
        assert_eq!(locate(&document, "$..a[?(@.name == 'x')]"), ["/a/0", "/a/1/c/a/0"]);
        assert_eq!(locate(&document, "$.a[?(@.name == 'y')].c"), ["/a/1/c"]);
        assert!(locate(&document, "$.a[?(@.name == 'z')]").is_empty());
    }

    #[test]
    fn adding_inserts_into_lists_and_makes_what_is_missing() {
        let mut document = json!({"a": [1, 2]});
        for (pointer, value) in [("/a/1", 3), ("/a/-", 4), ("/b/-", 5), ("/c/d", 6)] {
            add(&mut document, pointer, &json!(value));
        }
        assert_eq!(document, json!({"a": [1, 3, 2, 4], "b": [5], "c": {"d": 6}}));
    }
}
