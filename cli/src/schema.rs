//! `pointsman schema`: the JSON Schema of a policy, for editors.
//!
//! The types give names, types and descriptions. `bounds.json` adds what a type does not say: ranges, patterns and
//! examples, by definition (the policy itself is `""`) and field. A test holds each of them against what `check` says.

use pointsman_core::config::Config;
use serde_json::{Map, Value};
use std::io::Write;
use std::process::ExitCode;

const BOUNDS: &str = include_str!("schema/bounds.json");

/// Print the JSON Schema of a policy, as checked in at policies/policy.schema.json.
#[derive(clap::Args)]
pub struct Args {}

/// Prints the schema, followed by a newline.
pub fn run(Args {}: &Args) -> ExitCode {
    match schema().and_then(|schema| serde_json::to_string_pretty(&schema)) {
        Ok(text) => match writeln!(std::io::stdout(), "{text}") {
            Ok(()) => ExitCode::SUCCESS,
            // Standard output is closed.
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            eprintln!("schema: {error}");
            ExitCode::FAILURE
        }
    }
}

fn schema() -> serde_json::Result<Value> {
    let mut schema = schemars::schema_for!(Config).to_value();
    let bounds: Map<String, Value> = serde_json::from_str(BOUNDS)?;
    for (definition, fields) in bounds {
        let place = match definition.as_str() {
            "" => "/properties".to_owned(),
            name => format!("/$defs/{name}/properties"),
        };
        match schema.pointer_mut(&place) {
            Some(properties) => merge(properties, fields),
            None => return Err(serde::ser::Error::custom(format!("bounds.json: no definition `{definition}`"))),
        }
    }
    if let Some(credential) = schema.pointer_mut("/$defs/Credential").and_then(Value::as_object_mut) {
        let sources = ["env", "file", "sds"].map(|source| serde_json::json!({"required": [source]}));
        credential.insert("allOf".to_owned(), serde_json::json!([{"oneOf": sources}]));
    }
    if let Some(provider) = schema.pointer_mut("/$defs/Provider").and_then(Value::as_object_mut) {
        let names = ["dialect", "dialects"].map(|name| serde_json::json!({"required": [name]}));
        provider.insert("allOf".to_owned(), serde_json::json!([{"oneOf": names}]));
    }
    Ok(schema)
}

/// Puts the members of `more` into `value`, and those of their objects.
fn merge(value: &mut Value, more: Value) {
    match (value, more) {
        (Value::Object(members), Value::Object(more)) => {
            for (name, more) in more {
                merge(members.entry(name).or_insert(Value::Null), more);
            }
        }
        (value, more) => *value = more,
    }
}
