//! Makes up a JSON value that satisfies a simple JSON schema.

use serde_json::{Map, Value, json};

/// The maximum depth. Below it, a recursive schema gets `null`.
const DEEPEST: usize = 16;

/// Returns a value for `schema`. Strings are `"sim"`, numbers are 1, booleans are true, arrays have one item, and an
/// enum gets its first value. Supports `type`, `properties`, `required`, `items`, `enum`, `const`, `anyOf`/`oneOf` (the
/// first), local `$ref`, and the bounds `minimum`, `maximum`, `minLength`, `maxLength`, `minItems`. Ignores everything
/// else.
pub fn instance(schema: &Value) -> Value {
    build(schema, schema, 0)
}

fn build(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > DEEPEST {
        return Value::Null;
    }
    if let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|name| resolve(name, root)) {
        return build(target, root, depth + 1);
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(first) = first_of(schema, "enum") {
        return first.clone();
    }
    if let Some(first) = first_of(schema, "anyOf").or_else(|| first_of(schema, "oneOf")) {
        return build(first, root, depth + 1);
    }
    match kind(schema) {
        "object" => object(schema, root, depth),
        "array" => {
            let count = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1).clamp(1, 64);
            let item = schema.get("items").map_or_else(|| json!("sim"), |items| build(items, root, depth + 1));
            (0..count).map(|_| item.clone()).collect()
        }
        "integer" => json!(bounded(schema, f64::ceil, f64::floor) as i64),
        "number" => {
            let number = bounded(schema, |n| n, |n| n);
            if number.fract() == 0.0 { json!(number as i64) } else { json!(number) }
        }
        "boolean" => Value::Bool(true),
        "null" => Value::Null,
        _ => {
            let bound = |name| schema.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
            let longest = bound("maxLength").unwrap_or(3).max(bound("minLength").unwrap_or(0));
            let length = bound("minLength").unwrap_or(0).clamp(3.min(longest), longest.min(65_536));
            Value::String("sim".chars().cycle().take(length).collect())
        }
    }
}

fn object(schema: &Value, root: &Value, depth: usize) -> Value {
    let mut made = Map::new();
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        for (name, property) in properties {
            made.insert(name.clone(), build(property, root, depth + 1));
        }
    }
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        made.entry(name).or_insert_with(|| json!("sim"));
    }
    Value::Object(made)
}

/// Returns 1, moved into the schema's bounds.
fn bounded(schema: &Value, up: fn(f64) -> f64, down: fn(f64) -> f64) -> f64 {
    let bound = |name| schema.get(name).and_then(Value::as_f64);
    let mut number = 1.0_f64;
    if let Some(least) = bound("minimum") {
        number = number.max(up(least));
    }
    if let Some(most) = bound("maximum") {
        number = number.min(down(most));
    }
    number
}

/// Returns the schema's type. Of several, it is the first that is not `null`.
fn kind(schema: &Value) -> &str {
    match schema.get("type") {
        Some(Value::String(one)) => one,
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).find(|&name| name != "null").unwrap_or("null")
        }
        _ if schema.get("properties").is_some() => "object",
        _ if schema.get("items").is_some() => "array",
        _ => "string",
    }
}

fn first_of<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get(name)?.as_array()?.first()
}

fn resolve<'a>(name: &str, root: &'a Value) -> Option<&'a Value> {
    root.pointer(name.strip_prefix('#')?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_objects_are_filled() {
        let schema = json!({"type": "object", "required": ["a", "z"], "properties": {
            "a": {"type": "string"}, "b": {"type": ["null", "integer"], "minimum": 2.5},
            "c": {"type": "array", "items": {"enum": ["x", "y"]}}, "d": {"$ref": "#/$defs/d"}},
            "$defs": {"d": {"type": "object", "properties": {"e": {"type": "boolean"}}}}});
        assert_eq!(instance(&schema), json!({"a": "sim", "b": 3, "c": ["x"], "d": {"e": true}, "z": "sim"}));
    }

    #[test]
    fn bounds_hold() {
        assert_eq!(instance(&json!({"type": "string", "minLength": 5})), json!("simsi"));
        assert_eq!(instance(&json!({"type": "string", "maxLength": 2})), json!("si"));
        assert_eq!(instance(&json!({"type": "number", "maximum": 0.5})), json!(0.5));
        assert_eq!(instance(&json!({"type": "array", "minItems": 2, "items": {"type": "number"}})), json!([1, 1]));
    }

    #[test]
    fn a_recursive_schema_ends() {
        let schema = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        assert!(instance(&schema).is_object());
        assert_eq!(instance(&json!({"$ref": "#"})), Value::Null);
    }
}
