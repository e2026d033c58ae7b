//! Writes a tree as YAML that people can read and compare: stable order, block style, quotes only where YAML needs
//! them.

use serde_json::Value;
use std::fmt::Write;

/// Returns the tree as a YAML document. In an object, `name` and `@type` come first, then the other members by name.
pub fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => members(value, 0, &mut out),
        Value::Array(list) if !list.iter().all(Value::is_number) => items(list, 0, &mut out),
        scalar => inline(scalar, 0, &mut out),
    }
    out
}

fn indent(depth: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Writes the members of an object, the first of them at the cursor.
fn members(value: &Value, depth: usize, out: &mut String) {
    let Value::Object(map) = value else { return };
    let rank = |key: &str| match key {
        "name" => 0,
        "@type" => 1,
        _ => 2,
    };
    let mut sorted: Vec<_> = map.iter().collect();
    sorted.sort_by_key(|(key, _)| (rank(key), *key));
    for (i, (key, value)) in sorted.into_iter().enumerate() {
        if i > 0 {
            indent(depth, out);
        }
        text(key, out);
        out.push(':');
        match value {
            Value::Object(map) if !map.is_empty() => {
                out.push('\n');
                indent(depth + 1, out);
                members(value, depth + 1, out);
            }
            Value::Array(list) if !list.iter().all(Value::is_number) => {
                out.push('\n');
                indent(depth, out);
                items(list, depth, out);
            }
            scalar => {
                out.push(' ');
                inline(scalar, depth + 1, out);
            }
        }
    }
}

/// Writes the items of a list, the first of them at the cursor.
fn items(list: &[Value], depth: usize, out: &mut String) {
    for (i, item) in list.iter().enumerate() {
        if i > 0 {
            indent(depth, out);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => members(item, depth + 1, out),
            Value::Array(list) if !list.iter().all(Value::is_number) => items(list, depth + 1, out),
            scalar => inline(scalar, depth + 1, out),
        }
    }
}

/// Writes what goes on the line of its key. Multi-line text becomes a block whose lines are indented by `depth`.
fn inline(value: &Value, depth: usize, out: &mut String) {
    match value {
        Value::String(lines) if is_block(lines) => {
            out.push_str("|-\n");
            for line in lines.split('\n') {
                indent(depth, out);
                out.push_str(line);
                out.push('\n');
            }
            return;
        }
        Value::String(string) => text(string, out),
        Value::Array(numbers) => {
            let numbers: Vec<_> = numbers.iter().map(Value::to_string).collect();
            let _ = write!(out, "[{}]", numbers.join(", "));
        }
        // An empty object, a number, a boolean or null: JSON, which is YAML.
        other => out.push_str(&other.to_string()),
    }
    out.push('\n');
}

/// Returns whether the text can be a literal block: no empty lines, no characters that need an escape, and no white
/// space at either end.
fn is_block(string: &str) -> bool {
    string.contains('\n')
        && string.trim() == string
        && string.split('\n').all(|line| !line.is_empty() && line.chars().all(is_literal))
}

/// Returns whether every reader of YAML takes a character for itself, and not for the end of a line. YAML 1.1 ends a
/// line at U+0085, U+2028 and U+2029, and so do go-yaml, which Kubernetes uses, and PyYAML. U+FEFF may be read as the
/// mark of another encoding. The rest of what is not printable (YAML 1.2, `c-printable`) is refused.
pub(super) fn is_literal(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Writes text in double quotes, in which JSON's escapes are YAML's too.
fn quoted(string: &str, out: &mut String) {
    for c in Value::from(string).to_string().chars() {
        // Each is below U+10000, so its escape has four digits.
        if is_literal(c) {
            out.push(c);
        } else {
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        }
    }
}

/// Writes text plain if it cannot be mistaken for another type, and otherwise in JSON quotes, which are YAML's too.
fn text(string: &str, out: &mut String) {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b"_./-@+".contains(&b);
    let is_plain = string.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'/' || b == b'_')
        && string.bytes().all(is_word)
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .iter()
            .any(|taken| string.eq_ignore_ascii_case(taken));
    // 30s, 5.5s: Envoy's durations.
    let is_duration = string
        .strip_suffix('s')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.'));
    if is_plain || is_duration {
        out.push_str(string);
    } else {
        quoted(string, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::from_yaml;
    use serde_json::json;

    #[test]
    fn what_it_looks_like() {
        let tree = json!({
            "zeta": 1, "name": "x", "@type": "type.googleapis.com/a.B", "list": [{"b": [1, [2]], "a": {}}, "s"],
            "duration": "0.5s", "text": "{\n  \"a\": 1\n}", "yes": "no"
        });
        let expected = "name: x\n\"@type\": type.googleapis.com/a.B\nduration: 0.5s\nlist:\n\
            - a: {}\n  b:\n  - 1\n  - [2]\n- s\n\
                        text: |-\n  {\n    \"a\": 1\n  }\n\"yes\": \"no\"\nzeta: 1\n";
        assert_eq!(to_yaml(&tree), expected);
    }

    /// In a reader of YAML 1.1, such a character ends the line, and what comes after it could be another member.
    #[test]
    fn text_that_ends_a_line_for_some_reader_stays_in_its_quotes() {
        let hostile = "x\u{2028}kind: ClusterRoleBinding\u{2028}z: |1\n   y";
        let text = to_yaml(&json!({"config": hostile, hostile: 1}));
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("config: \"x\\u2028kind: ClusterRoleBinding\\u2028z: |1\\n   y\""), "{text}");
        let harmless = "é €\n日本 😀\u{a0}x";
        assert_eq!(to_yaml(&json!({"a": harmless})), "a: |-\n  é €\n  日本 😀\u{a0}x\n");
    }

    #[test]
    fn every_character_is_read_back_and_none_but_a_printable_one_is_written_as_it_is() {
        // YAML 1.2, c-printable, without the line ends of YAML 1.1 and the byte order mark.
        let printable = |c: char| {
            matches!(c, '\u{20}'..='\u{7e}' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}')
                || matches!(c, '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..)
        };
        for c in '\0'..=char::MAX {
            assert_eq!(is_literal(c), printable(c), "{c:?}");
            if c < '\u{300}' || ('\u{2000}'..'\u{2100}').contains(&c) || ('\u{fe00}'..'\u{10010}').contains(&c) {
                let tree =
                    json!({"one": format!("a{c}b"), "two": format!("a{c}b\nc"), format!("k{c}"): [c.to_string()]});
                let text = to_yaml(&tree);
                assert!(text.chars().all(|c| c == '\n' || printable(c)), "{c:?}: {text}");
                assert_eq!(from_yaml(&text).as_ref(), Ok(&tree), "{c:?}: {text}");
            }
        }
    }

    #[test]
    fn every_tree_is_read_back_as_it_was() {
        for tree in [
            json!({}),
            json!([]),
            json!({"a": []}),
            json!([[[1], {}], [{"x": [null, true, -1.5]}]]),
            json!({"": "", " ": " a ", "a: b": "#c", "-": "- d", "k": "a\nb\n", "l": "\n", "m": "\ta\nb",
                "n": "a\n\nb"}),
            json!([
                "null",
                "~",
                "1",
                "1e3",
                "0x10",
                "1.5",
                ".5",
                "+1",
                "-",
                "true",
                "Off",
                "2027-01-31",
                "é",
                "a\u{0}b",
                "1s",
                "s"
            ]),
            json!({"deep": {"er": {"text": "line one\n  line two: \"x\" # y\n- z"}}}),
            json!(["@a", "`", "%", "*a", "&a", "!a", "|", ">", "'", "\"", "?", ":", "a:", "[", "{", "<<"]),
        ] {
            let text = to_yaml(&tree);
            assert_eq!(from_yaml(&text).as_ref(), Ok(&tree), "{text}");
        }
    }
}
