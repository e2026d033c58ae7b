//! The prompt that a request names: `prompt_id`, `prompt_version` and `schema_version` in its `metadata`.
//!
//! These are an application's own names for its prompts; the model does not read them. They are part of the cache's
//! keys. The audit record includes them if they are plain names.

use crate::wire::json::{Kind, Scanned, unquote};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// Where the names are in the body.
#[derive(Debug, Clone, Default)]
pub struct PromptFields {
    id: Option<Scanned>,
    version: Option<Scanned>,
    schema: Option<Scanned>,
    is_twice: bool,
}

/// The names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PromptName<'a> {
    /// `prompt_id`
    pub id: Cow<'a, str>,
    /// `prompt_version`
    pub version: Cow<'a, str>,
    /// `schema_version`
    pub schema: Cow<'a, str>,
}

/// The names that may be logged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logged {
    /// `prompt_id`
    pub id: Option<Box<str>>,
    /// `prompt_version`
    pub version: Option<Box<str>>,
    /// `schema_version`
    pub schema: Option<Box<str>>,
}

/// Longest name in a log, in bytes.
const MAX_LOGGED: usize = 64;

impl PromptFields {
    /// Records a member of `metadata`.
    pub fn note(&mut self, name: &[u8], value: &Scanned) {
        let field = match name {
            b"prompt_id" => &mut self.id,
            b"prompt_version" => &mut self.version,
            b"schema_version" => &mut self.schema,
            _ => return,
        };
        self.is_twice |= field.replace(value.clone()).is_some();
    }

    /// Returns the names in `body`, empty if absent. Returns `None` if a name could have another spelling with the same
    /// meaning, under which it would not be found: a number other than plain digits, a boolean, an array, an object, or
    /// a name given twice.
    pub fn exact<'a>(&self, body: &'a [u8]) -> Option<PromptName<'a>> {
        let text = |field: &Option<Scanned>| field.as_ref().map_or(Some(Cow::Borrowed("")), |field| text(field, body));
        match self.is_twice {
            true => None,
            false => {
                Some(PromptName { id: text(&self.id)?, version: text(&self.version)?, schema: text(&self.schema)? })
            }
        }
    }

    /// Returns the names in `body` that are plain: 1 to 64 ASCII letters, digits or `-._:/`. Anything else could be
    /// text of a prompt. Returns no names if one is given twice.
    pub fn logged(&self, body: &[u8]) -> Logged {
        let plain = |field: &Option<Scanned>| {
            let text = text(field.as_ref()?, body)?;
            is_plain_name(&text).then(|| text.into())
        };
        match self.is_twice {
            true => Logged::default(),
            false => Logged { id: plain(&self.id), version: plain(&self.version), schema: plain(&self.schema) },
        }
    }
}

/// Returns whether this is a plain name: 1 to 64 ASCII letters, digits or `-._:/`.
fn is_plain_name(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'/');
    (1..=MAX_LOGGED).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Returns what the audit record says for a caller's name: a plain one itself, any other as the start of its SHA-256.
pub fn logged_name(name: &str) -> String {
    if is_plain_name(name) {
        return name.to_owned();
    }
    let digest = Sha256::digest(name);
    let start = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    format!("sha256:{}", start.collect::<String>())
}

/// Longest name that is read, in bytes with its quotes.
const MAX_NAME: usize = 4096;

fn text<'a>(field: &Scanned, body: &'a [u8]) -> Option<Cow<'a, str>> {
    let bytes = body.get(field.span.clone())?;
    match field.kind {
        Kind::String if bytes.len() <= MAX_NAME => unquote(bytes),
        Kind::Null => Some(Cow::Borrowed("")),
        // `3` could also be written as `3.0` or `3e0`.
        Kind::Number if bytes.iter().all(u8::is_ascii_digit) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::client::ClientDialect;

    #[test]
    fn a_name_that_may_be_text_of_a_prompt_is_logged_as_a_hash() {
        assert_eq!(logged_name("look_up"), "look_up");
        let long = "x".repeat(65);
        for text in ["my card is 4111", "", "Đà", &long] {
            let logged = logged_name(text);
            assert!(logged.starts_with("sha256:") && logged.len() == 23, "{logged}");
        }
        assert_eq!(logged_name("a b"), logged_name("a b"));
        assert_ne!(logged_name("a b"), logged_name("a c"));
    }

    fn read(metadata: &str) -> (Option<[String; 3]>, [Option<String>; 3]) {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"metadata":{metadata}}}"#);
        let request = ClientDialect::OpenAi.parse(body.as_bytes(), 16).unwrap();
        let exact = request.facts().prompt.exact(body.as_bytes());
        let Logged { id, version, schema } = request.facts().prompt.logged(body.as_bytes());
        let exact = exact.map(|name| [name.id, name.version, name.schema].map(Cow::into_owned));
        (exact, [id, version, schema].map(|text| text.map(String::from)))
    }

    #[test]
    fn names_are_read_and_logged() {
        let (exact, logged) = read(r#"{"prompt_id":"a/b","prompt_version":"v1.2","schema\u005fversion":3,"k":"x"}"#);
        assert_eq!(exact.unwrap(), ["a/b", "v1.2", "3"]);
        assert_eq!(logged.map(Option::unwrap), ["a/b", "v1.2", "3"]);
        for none in ["null", "{}", "[1]", r#"{"prompt_id":null}"#] {
            assert_eq!(read(none), (Some([const { String::new() }; 3]), [None, None, None]), "{none}");
        }
    }

    #[test]
    fn what_may_be_text_of_a_prompt_is_not_logged() {
        for text in ["two words", "é", "a\\nb", "{a}", "a@b.example", &"x".repeat(65), "x,y", "a\\u0000"] {
            let (exact, logged) = read(&format!(r#"{{"prompt_id":"{text}","prompt_version":"1"}}"#));
            assert!(exact.is_some(), "{text}");
            assert_eq!(logged, [None, Some("1".to_owned()), None], "{text}");
        }
    }

    #[test]
    fn what_has_other_forms_is_no_exact_name() {
        for version in ["3.0", "3e0", "-3", "true", "[3]", "{}", "\"\\ud800\""] {
            let (exact, logged) = read(&format!(r#"{{"prompt_id":"a","prompt_version":{version}}}"#));
            assert_eq!((exact, &logged[1]), (None, &None), "{version}");
        }
        let twice = read(r#"{"prompt_id":"a","prompt_\u0069d":"b"}"#);
        assert_eq!(twice, (None, [None, None, None]));
    }
}
