//! The report of `pointsman check --format sarif`: SARIF 2.1.0, for code scanning.
//!
//! Rule: OASIS, Static Analysis Results Interchange Format (SARIF) Version 2.1.0.

use super::checked::Checked;
use crate::finding::{Finding, Region, Rule};
use serde_json::{Value, json};

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// Returns a log with one run.
pub fn report(checked: &[Checked]) -> Value {
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "pointsman",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": Rule::ALL.map(rule),
            }},
            "columnKind": "unicodeCodePoints",
            "artifacts": checked.iter().map(|file| json!({"location": {"uri": uri(&file.file)}})).collect::<Vec<_>>(),
            "results": checked.iter().flat_map(|file| &file.findings).map(result).collect::<Vec<_>>(),
        }],
    })
}

fn rule(rule: Rule) -> Value {
    json!({"id": rule.id(), "shortDescription": {"text": rule.description()}})
}

fn result(finding: &Finding) -> Value {
    let Finding { file, region, severity, rule, place: _, message, excerpt: _ } = finding;
    let mut location = json!({"artifactLocation": {"uri": uri(file)}});
    // Code scanning drops a result without a region.
    let region = region.unwrap_or(Region { line: 1, column: 1, end_line: 1, end_column: 1 });
    let Region { line, column, end_line, end_column } = region;
    if let Some(members) = location.as_object_mut() {
        members.insert(
            "region".to_owned(),
            json!({"startLine": line, "startColumn": column, "endLine": end_line, "endColumn": end_column}),
        );
    }
    json!({
        "ruleId": rule.id(),
        "ruleIndex": Rule::ALL.iter().position(|other| other == rule),
        "level": severity.name(),
        "message": {"text": message},
        "locations": [{"physicalLocation": location}],
    })
}

/// Converts a path to a URI reference (RFC 3986): relative unless the path is absolute.
fn uri(path: &str) -> String {
    let mut uri = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.strip_prefix("./").unwrap_or(path).bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_path_becomes_a_uri() {
        for (path, uri) in [
            ("policies/a.yaml", "policies/a.yaml"),
            ("./a b.yaml", "a%20b.yaml"),
            ("/etc/ü:1.yaml", "file:///etc/%C3%BC%3A1.yaml"),
        ] {
            assert_eq!(super::uri(path), uri);
        }
    }
}
