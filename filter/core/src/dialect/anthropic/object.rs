//! A JSON object as its members' texts: a stored answer has each value as the provider wrote it.

use crate::dialect::answer::NotKept;
use crate::dialect::anthropic::read::MAX_DEPTH;
use crate::wire::json::{InvalidJson, Scanner};

/// The members of an object, in order. Names have their quotation marks; values are JSON without white space between
/// their tokens, so that an event can have them in one line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object(Vec<(String, String)>);

impl Object {
    /// Reads an object.
    ///
    /// # Errors
    /// [`NotKept`] if the text is not an object, or has a member twice.
    pub fn parse(text: &[u8]) -> Result<Self, NotKept> {
        let mut members: Vec<(String, String)> = Vec::new();
        let mut scanner = Scanner::new(text, MAX_DEPTH);
        let mut is_doubtful = false;
        let mut read = || -> Result<(), InvalidJson> {
            scanner.object(|s, key| {
                let value = s.value()?;
                match (compact(s.bytes(&key)), compact(s.bytes(&value.span))) {
                    (Some(name), Some(value)) => {
                        is_doubtful |= name.contains('\\') || members.iter().any(|(other, _)| *other == name);
                        members.push((name, value));
                    }
                    _ => is_doubtful = true,
                }
                Ok::<_, InvalidJson>(())
            })
        };
        match read() {
            Ok(()) if !is_doubtful => Ok(Self(members)),
            _ => Err(NotKept("shape")),
        }
    }

    /// Returns the value of a member. `name`: with its quotation marks.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// Takes a member out. `name`: with its quotation marks.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.remove(at).1)
    }

    /// Sets a member, at its place if there is one.
    pub fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Takes over the members of a later object.
    pub fn merge(&mut self, later: Self) {
        for (name, value) in later.0 {
            self.set(&name, value);
        }
    }

    /// Returns its members, each after a comma.
    pub fn members(&self) -> String {
        let mut out = String::new();
        for (name, value) in &self.0 {
            out.extend([",", name, ":", value]);
        }
        out
    }

    /// Returns it as JSON.
    pub fn json(&self) -> String {
        let members = self.members();
        ["{", members.strip_prefix(',').unwrap_or_default(), "}"].concat()
    }

    /// Returns its approximate size in bytes.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len() + 2).sum()
    }
}

/// Returns a JSON text without the white space between its tokens; `None` if it is not UTF-8.
fn compact(text: &[u8]) -> Option<String> {
    let (mut is_in_string, mut is_escaped) = (false, false);
    let kept = text.iter().copied().filter(|byte| {
        let stays = is_in_string || !byte.is_ascii_whitespace();
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_in_string,
            b'"' => is_in_string = !is_in_string,
            _ => {}
        }
        stays
    });
    String::from_utf8(kept.collect()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_text_and_their_order() {
        let mut object = Object::parse(b"{\"b\": [1,\n\t\"a \\\" b\", \"\\\\\" ], \"a\":\"\\u00e9\"}").unwrap();
        let list = r#"[1,"a \" b","\\"]"#;
        assert_eq!((object.get("\"b\""), object.json()), (Some(list), format!(r#"{{"b":{list},"a":"\u00e9"}}"#)));
        object.set("\"b\"", "1".to_owned());
        object.merge(Object::parse(br#"{"c":null}"#).unwrap());
        assert_eq!(object.members(), r#","b":1,"a":"\u00e9","c":null"#);
        assert_eq!((object.take("\"a\"").is_some(), object.take("\"a\"")), (true, None));
        assert_eq!(Object::default().json(), "{}");
        for doubtful in [&br#"{"a":1,"a":2}"#[..], br#"{"\u0061":1}"#, b"[]", b"{", b"{\"a\":\"\xff\"}"] {
            assert!(Object::parse(doubtful).is_err());
        }
    }
}
