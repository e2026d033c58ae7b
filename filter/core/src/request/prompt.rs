//! The prompt that a request says it is made of: `prompt_id`, `prompt_version` and `schema_version` of its `metadata`.
//!
//! Applications number their prompts; the names are no part of what the model reads. The cache keeps answers apart by
//! them, and the audit record repeats them where they are plain names and nothing else.

use crate::wire::json::{Kind, Scanned, unquote};
use std::borrow::Cow;

/// Where the names stand in the request's body.
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

/// The names as a log may have them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logged {
    /// `prompt_id`
    pub id: Option<Box<str>>,
    /// `prompt_version`
    pub version: Option<Box<str>>,
    /// `schema_version`
    pub schema: Option<Box<str>>,
}

/// A name is so long at the most, in bytes.
const MAX_LOGGED: usize = 64;

impl PromptFields {
    /// A member of `metadata` has come.
    pub fn note(&mut self, name: &str, value: &Scanned) {
        let field = match name {
            "prompt_id" => &mut self.id,
            "prompt_version" => &mut self.version,
            "schema_version" => &mut self.schema,
            _ => return,
        };
        self.is_twice |= field.replace(value.clone()).is_some();
    }

    /// The names in `body`, the empty text for one that is not there. `None` where one could be written in another way
    /// and mean the same, so that it would not be found under the one name: a number with a point or an exponent, an
    /// object, a name given twice.
    pub fn exact<'a>(&self, body: &'a [u8]) -> Option<PromptName<'a>> {
        let text = |field: &Option<Scanned>| field.as_ref().map_or(Some(Cow::Borrowed("")), |field| text(field, body));
        match self.is_twice {
            true => None,
            false => {
                Some(PromptName { id: text(&self.id)?, version: text(&self.version)?, schema: text(&self.schema)? })
            }
        }
    }

    /// The names in `body` that are plain: up to 64 letters of ASCII, digits and `-._:/`. Anything else might be part
    /// of a prompt.
    pub fn logged(&self, body: &[u8]) -> Logged {
        let plain = |field: &Option<Scanned>| {
            let text = text(field.as_ref()?, body)?;
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'/');
            let is_name = (1..=MAX_LOGGED).contains(&text.len()) && text.bytes().all(is_plain);
            is_name.then(|| text.into())
        };
        match self.is_twice {
            true => Logged::default(),
            false => Logged { id: plain(&self.id), version: plain(&self.version), schema: plain(&self.schema) },
        }
    }
}

fn text<'a>(field: &Scanned, body: &'a [u8]) -> Option<Cow<'a, str>> {
    let bytes = body.get(field.span.clone())?;
    match field.kind {
        Kind::String => unquote(bytes),
        Kind::Null => Some(Cow::Borrowed("")),
        // 3 is 3.0 and 3e0 as well.
        Kind::Number if bytes.iter().all(u8::is_ascii_digit) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::client::ClientDialect;

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
