//! The JSON Schema in `policies/` is current, and so are the tables of the policy reference that are generated from it.
//!
//! `docs/src/reference/policy.md` has a table for each section and each set of values, between `<!-- fields: NAME -->`
//! or `<!-- values: NAME -->` and `<!-- end -->`. The rows come from the doc comments of the types. Existing rows keep
//! their order and new rows are appended. `UPDATE_FIXTURES=1 cargo test -p pointsman --test reference` writes both
//! files.

// Clippy treats helpers as test code only inside #[test].
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const SCHEMA: &str = "policies/policy.schema.json";
const PAGE: &str = "docs/src/reference/policy.md";
const END: &str = "<!-- end -->";
const FIELDS: &str = "| field | type | default | meaning |\n|---|---|---|---|";
const VALUES: &str = "| value | meaning |\n|---|---|";

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Asserts that the file has this text, or writes it if `UPDATE_FIXTURES` is set.
fn assert_current(file: &str, text: &str) {
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(path(file), text).unwrap();
    }
    let refresh = "UPDATE_FIXTURES=1 cargo test -p pointsman --test reference";
    assert!(read(file) == text, "{file} is stale; refresh it: {refresh}");
}

fn schema() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_pointsman")).arg("schema").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_schema_that_is_checked_in_is_current() {
    assert_current(SCHEMA, &schema());
}

#[test]
fn the_tables_of_the_reference_are_current() {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    let (mut written, mut rest) = (String::new(), read(PAGE));
    while let Some((before, marker, table, after)) = next_table(&rest) {
        written.push_str(&format!("{before}<!-- {marker} -->\n"));
        let order: Vec<_> = table.lines().filter_map(name_of_row).collect();
        let (header, mut rows) = match marker.split_once(": ") {
            Some(("fields", name)) => (FIELDS, fields(&schema, name)),
            Some(("values", name)) => (VALUES, values(&schema, name)),
            _ => panic!("{PAGE}: {marker} is neither `fields: NAME` nor `values: NAME`"),
        };
        let place = |row: &String| order.iter().position(|name| name_of_row(row) == Some(name)).unwrap_or(usize::MAX);
        rows.sort_by_key(place);
        written.push_str(&format!("{header}\n{}\n{END}", rows.join("\n")));
        rest = after;
    }
    written.push_str(&rest);
    assert_current(PAGE, &written);
}

#[test]
fn the_reference_documents_every_section_field_and_word() {
    let (page, schema) = (read(PAGE), serde_json::from_str(&read(SCHEMA)).unwrap());
    let mut words = BTreeSet::new();
    collect(&schema, &mut words);
    assert!(words.contains("unsupported_params") && words.contains("regulated"), "{words:?}");
    let missing: Vec<_> = words.iter().filter(|word| !page.contains(&format!("`{word}`"))).collect();
    assert!(missing.is_empty(), "{PAGE} does not document {missing:?}");

    for (name, definition) in definitions(&schema) {
        let kind = if is_choice(definition) && name != "Identity" { "values" } else { "fields" };
        let has_table = definition["properties"].is_object() || definition["oneOf"].is_array();
        let marker = format!("<!-- {kind}: {name} -->\n");
        assert!(!has_table || page.contains(&marker), "{PAGE} has no table {marker}");
    }
}

/// Returns the page up to the first marker, the marker, its current table, and the rest of the page.
fn next_table(page: &str) -> Option<(String, String, String, String)> {
    let start = page.find("<!-- ")?;
    let (marker, rest) = page[start + 5..].split_once(" -->\n")?;
    let (table, after) = rest.split_once(END).unwrap_or_else(|| panic!("{PAGE}: {marker} has no {END}"));
    Some((page[..start].to_owned(), marker.to_owned(), table.to_owned(), after.to_owned()))
}

/// Returns what a row documents: the name in its first cell.
fn name_of_row(row: &str) -> Option<&str> {
    row.strip_prefix("| `")?.split('`').next()
}

fn definitions(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema["$defs"].as_object().unwrap().iter()
}

fn definition<'a>(schema: &'a Value, name: &str) -> &'a Value {
    match name {
        "Config" => schema,
        _ => schema["$defs"].get(name).unwrap_or_else(|| panic!("{PAGE}: the policy has no {name}")),
    }
}

/// Returns whether the definition is a choice of values or forms.
fn is_choice(definition: &Value) -> bool {
    definition["oneOf"].is_array()
}

/// Returns a row for each field.
fn fields(schema: &Value, name: &str) -> Vec<String> {
    let definition = definition(schema, name);
    let mut fields = Map::new();
    // An identity has one of two forms; the reference documents both in one table.
    let forms = definition["oneOf"].as_array().cloned().unwrap_or_else(|| vec![definition.clone()]);
    for form in &forms {
        for (field, said) in form["properties"].as_object().into_iter().flatten() {
            match fields.get_mut(field) {
                Some(Value::Array(all)) => all.push(said.clone()),
                _ => drop(fields.insert(field.clone(), Value::Array(vec![said.clone()]))),
            }
        }
    }
    let row = |(field, said): (&String, &Value)| {
        let said = said.as_array().unwrap();
        let kinds: Vec<String> = said.iter().map(|said| kind(schema, said)).collect();
        let is_required = |form: &Value| form["required"].as_array().is_some_and(|all| all.iter().any(|f| f == field));
        let default = match forms.iter().all(is_required) {
            true => "*required*".to_owned(),
            false => default_of(&said[0]["default"]),
        };
        // The field that selects the form has no doc comment of its own.
        let meaning = if said[0]["const"].is_string() { definition } else { &said[0] };
        format!("| `{field}` | {} | {default} | {} |", kinds.join(" or "), text(&meaning["description"]))
    };
    fields.iter().map(row).collect()
}

/// Returns a row for each value or form.
fn values(schema: &Value, name: &str) -> Vec<String> {
    let forms = definition(schema, name)["oneOf"].as_array().unwrap_or_else(|| panic!("{name} is no choice"));
    forms.iter().map(|form| format!("| {} | {} |", form_of(form), text(&form["description"]))).collect()
}

/// Returns `word`, or `{name: …}`.
fn form_of(form: &Value) -> String {
    match form["const"].as_str() {
        Some(word) => format!("`{word}`"),
        None => {
            let name = form["properties"].as_object().and_then(|fields| fields.keys().next()).unwrap();
            format!("`{{{name}: …}}`")
        }
    }
}

/// Describes the values that a field accepts.
fn kind(schema: &Value, said: &Value) -> String {
    if let Some(name) = said["$ref"].as_str() {
        return named(schema, name.rsplit('/').next().unwrap());
    }
    if let Some(either) = said["anyOf"].as_array() {
        let kinds: Vec<_> = either.iter().filter(|one| one["type"] != "null").map(|one| kind(schema, one)).collect();
        return kinds.join(" or ");
    }
    if let Some(word) = said["const"].as_str() {
        return format!("`{word}`");
    }
    let types = [&said["type"]].into_iter().chain(said["type"].as_array().into_iter().flatten());
    match types.filter_map(Value::as_str).next() {
        Some("string") => "string".to_owned(),
        Some("integer" | "number") => "number".to_owned(),
        Some("boolean") => "boolean".to_owned(),
        Some("array") if said["items"].is_object() => format!("list of {}", kind(schema, &said["items"])),
        Some("array") => "list".to_owned(),
        Some("object") => format!("name → {}", kind(schema, &said["additionalProperties"])),
        other => panic!("{other:?}: {said}"),
    }
}

/// Describes a type of the policy, with a link if the reference explains it elsewhere.
fn named(schema: &Value, name: &str) -> String {
    let definition = definition(schema, name);
    let link = |words: &str, place: &str| format!("[{words}](#{place})");
    match name {
        "Time" => "duration".to_owned(),
        "Statuses" => "list of statuses, `5xx` for 500 to 599".to_owned(),
        "Key" => "key".to_owned(),
        "DataClass" => link("data class", "data-classes"),
        "Price" => link("price", "prices"),
        "TierPrice" => link("price", "service-tiers"),
        "Credential" => link("section", "credentials"),
        "RequestBounds" => link("section", "request-bounds"),
        "ResponseBounds" => link("section", "response-bounds"),
        "TaskResilience" => link("section", "resilience"),
        "TaskCache" => link("section", "cache"),
        "Identity" | "Limits" | "Quota" | "Resilience" | "Cache" | "Redis" => link("section", &name.to_lowercase()),
        "Provider" | "Model" | "Task" | "Tier" | "Tenant" => {
            let name = name.to_lowercase();
            link(&name, &format!("{name}s"))
        }
        _ if is_choice(definition) => {
            let forms: Vec<_> = definition["oneOf"].as_array().unwrap().iter().map(form_of).collect();
            match forms.split_last() {
                Some((last, [])) => last.clone(),
                Some((last, others)) => format!("{} or {last}", others.join(", ")),
                None => panic!("{name} has no forms"),
            }
        }
        _ => panic!("a type that the reference has no words for: {name}"),
    }
}

fn default_of(value: &Value) -> String {
    let time = |text: &str| {
        let ms: u64 = text.strip_suffix("ms")?.parse().ok()?;
        Some(match ms {
            ms if ms > 0 && ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
            ms if ms > 0 && ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
            ms => format!("{ms}ms"),
        })
    };
    match value {
        Value::Null => "none".to_owned(),
        Value::Object(fields) if fields.is_empty() => "none".to_owned(),
        Value::Object(_) => "see there".to_owned(),
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::String(text) => format!("`{}`", time(text).unwrap_or_else(|| text.clone())),
        other => format!("`{}`", other.to_string().replace('"', "").replace(',', ", ")),
    }
}

/// Formats a doc comment as a table cell.
fn text(description: &Value) -> String {
    let text = description.as_str().unwrap_or_else(|| panic!("a field without a doc comment: {description}"));
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// Collects the names of fields, and the values of enumerations.
fn collect(node: &Value, words: &mut BTreeSet<String>) {
    match node {
        Value::Object(map) => {
            if let Some(Value::Object(fields)) = map.get("properties") {
                words.extend(fields.keys().cloned());
            }
            if let Some(Value::Array(values)) = map.get("enum") {
                words.extend(values.iter().filter_map(Value::as_str).map(str::to_owned));
            }
            if let Some(Value::String(value)) = map.get("const") {
                words.insert(value.clone());
            }
            map.values().for_each(|value| collect(value, words));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, words)),
        _ => {}
    }
}
