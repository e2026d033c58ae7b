//! The message of a text that cannot be parsed: what parsers say, in the words of the author, with a remedy.

/// Returns the message for a mistake in YAML. `message`: the parser's, without its place.
pub fn of_yaml(message: &str, text: &str, at: Option<(u64, u64)>) -> String {
    const UNCLOSED: &str = "invalid trailing content after double-quoted scalar";
    let line = at.and_then(|(line, _)| usize::try_from(line).ok());
    if message.starts_with(UNCLOSED)
        && let Some(opened) = line.and_then(|line| odd_quotes(text, line))
    {
        return format!(
            "text in quotation marks ends before this; a quotation mark that opens in line {opened} may not be closed"
        );
    }
    let plain = [
        ("illegal placement of ':' indicator", "\":\" is not allowed here; is a bracket above not closed?"),
        (
            "mapping values are not allowed in this context",
            "a name and its value are not allowed here; check the indentation, put text with \": \" in quotation \
             marks, and a space after each \":\"",
        ),
        ("while parsing a block mapping, did not find expected key", "expected a name; check the indentation"),
        ("tabs disallowed", "indentation must be spaces, not tabs"),
        ("alias references unknown anchor", "no anchor has this name; put text that begins with * in quotation marks"),
        ("non-finite float", "a number must be finite"),
        ("recursive references", "an alias must not refer to a value that contains it"),
        ("recursion limit exceeded", "nested too deeply"),
        ("budget breached: Depth", "nested too deeply"),
        ("budget breached", "too many aliases or values"),
        ("expected string scalar", "a name must be text"),
        ("cannot deserialize null into string", "a name must be text; put it in quotation marks, such as \"null\""),
        (
            "invalid trailing content after double-quoted scalar",
            "text in quotation marks ends before this; is a quotation mark above not closed, or is a comma missing?",
        ),
        (
            "invalid trailing content after single-quoted scalar",
            "text in quotation marks ends before this; is one above not closed? Write '' for one in a text",
        ),
        (
            "simple key expected ':'",
            "expected a name and a colon; write a space after the colon, and check the indentation and the line above",
        ),
        (
            "simple key expect ':'",
            "expected a name and a colon; write a space after the colon, and check the indentation and the line above",
        ),
        ("unclosed quote", "a quotation mark that opens here is not closed"),
        (
            "while parsing a flow mapping, did not find expected ',' or '}'",
            "expected a comma or }; put text with any of {}[] in quotation marks; for a variable, write its name alone",
        ),
        (
            "while parsing a flow sequence, did not find expected ',' or ']'",
            "expected a comma or ]; put text with any of {}[], in quotation marks",
        ),
        (
            "while scanning an anchor or alias",
            "text that begins with * or & must be in quotation marks; there is no wildcard, so write each name",
        ),
        (
            "while parsing a quoted scalar, found unknown escape character",
            "a \\ in \"...\" begins an escape; write \\\\ for one, or use '...'",
        ),
        (
            "while parsing a block collection, did not find expected '-' indicator",
            "expected an entry of the list; a list (`- `) and names (`NAME:`) cannot be mixed; write `NAME:` for each",
        ),
        ("unexpected character", "text that begins with this character must be in quotation marks"),
    ];
    plain
        .iter()
        .find(|(start, _)| message.starts_with(start))
        .map_or_else(|| message.to_owned(), |(_, s)| (*s).to_owned())
}

/// Returns the first line above with an odd number of double quotation marks.
fn odd_quotes(text: &str, line: usize) -> Option<usize> {
    let quotes = |line: &str| line.matches('"').count() - line.matches("\\\"").count();
    text.lines().take(line.saturating_sub(1)).position(|line| quotes(line) % 2 == 1).map(|before| before + 1)
}

/// Returns the message for a mistake in JSON. `message`: the parser's, without its place.
pub fn of_json(message: &str, text: &str, (line, column): (usize, usize)) -> String {
    let found = text.split('\n').nth(line.saturating_sub(1)).and_then(|line| line.get(column.saturating_sub(1)..));
    let found = found.unwrap_or_default();
    let begin = text.trim_start();
    let remedy = match message {
        _ if begin.is_empty() => "the policy is empty",
        _ if found.starts_with("//") || found.starts_with("/*") || found.starts_with('#') => {
            "JSON has no comments; remove it, or write YAML, with #, in a file that ends in .yaml"
        }
        _ if !begin.starts_with(['{', '[']) => {
            "expected JSON, which begins with {; YAML needs a name that ends in .yaml"
        }
        "key must be a string" => "a name must be in double quotation marks",
        "expected value" => {
            "expected a value; text must be in double quotation marks, and words are true, false or null"
        }
        "trailing characters" => "expected the end of the file; is a } above one too many?",
        "invalid escape" => "a \\ begins an escape; write \\\\ for one",
        _ if message.starts_with("EOF while") => "the file ends too early; is a }, a ] or a quotation mark not closed?",
        _ if message.starts_with("control character") => {
            "text must be on one line; is a quotation mark not closed? Write \\n for a line break"
        }
        _ => message,
    };
    remedy.to_owned()
}

#[cfg(test)]
mod tests {
    use crate::document::{from_json, from_yaml};

    #[test]
    fn a_mistake_in_yaml_has_a_remedy() {
        for (text, message) in [
            (
                "a: {b: \"Bearer , c: x}\nd: [\"y\"]\n",
                "text in quotation marks ends before this; a quotation mark that opens in line 1 may not be \
                 closed",
            ),
            (
                "a: {env: ${KEY}}\n",
                "expected a comma or }; put text with any of {}[] in quotation marks; for a variable, \
                 write its name alone",
            ),
            (
                "a: [*]\n",
                "text that begins with * or & must be in quotation marks; there is no wildcard, so write \
                 each name",
            ),
            ("a: \"C:\\keys\"\n", "a \\ in \"...\" begins an escape; write \\\\ for one, or use '...'"),
            (
                "a:\n  - name: b\n  c: d\n",
                "expected an entry of the list; a list (`- `) and names (`NAME:`) cannot be mixed; write \
                 `NAME:` for each",
            ),
            (
                "a:\n  b: 1\n  c:2\n",
                "expected a name and a colon; write a space after the colon, and check the indentation and \
                 the line above",
            ),
            ("a: 'x\n", "a quotation mark that opens here is not closed"),
            ("null: 1\n", "a name must be text; put it in quotation marks, such as \"null\""),
        ] {
            assert_eq!(from_yaml(text).unwrap_err().message, message);
        }
        for name in ["true", "1", "1.5"] {
            assert!(from_yaml(&format!("{name}: 1\n")).unwrap().get(name).is_some());
        }
    }

    #[test]
    fn a_mistake_in_json_has_a_remedy() {
        for (text, message) in [
            ("{\"a\": 1, // x\n}", "JSON has no comments"),
            ("// x\n{}", "JSON has no comments"),
            ("# x\n{}", "JSON has no comments"),
            ("a: 1\n", "expected JSON, which begins with {"),
            ("{'a': 1}", "a name must be in double quotation marks"),
            ("{\"a\": True}", "expected a value"),
            ("{\"a\": 1", "the file ends too early"),
            ("{\"a\": 1}}", "expected the end of the file"),
            ("{\"a\": \"C:\\k\"}", "a \\ begins an escape"),
            ("{\"a\": \"x\ny\"}", "text must be on one line"),
            ("", "the policy is empty"),
        ] {
            let error = from_json(text).unwrap_err();
            assert!(error.message.starts_with(message), "{text}: {error}");
        }
    }
}
