//! What marks an object as an error that a provider sends where an answer is expected.
//!
//! OpenAI's format has one error object. Servers that imitate it have many: their framework's, their vendor's, or an
//! answer with a failed choice.

use crate::wire::json::{InvalidJson, Kind, Scanner, names};

/// What a member says about its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Nothing.
    None,
    /// The object is an error, whatever else it has.
    Error,
    /// The object is an error unless it has choices or usage: such a member also occurs in good answers.
    InPlaceOfAnswer,
}

/// Judges a member of the object by its `name`, quotes included, and its `value`.
pub fn mark(name: &[u8], value: &[u8]) -> Mark {
    let is = |mark, holds| if holds { mark } else { Mark::None };
    match name {
        b"\"error\"" => is(Mark::Error, !is_empty(value)),
        b"\"object\"" => is(Mark::Error, value == b"\"error\""),
        // MiniMax sends a status with each answer; 0 is success.
        b"\"base_resp\"" => is(Mark::Error, base_status(value).is_some_and(|status| status != 0)),
        b"\"type\"" => is(Mark::InPlaceOfAnswer, value == b"\"error\""),
        b"\"status\"" | b"\"status_code\"" => {
            is(Mark::InPlaceOfAnswer, number(value).is_some_and(|status| status >= 400))
        }
        b"\"code\"" => is(Mark::InPlaceOfAnswer, !is_empty(value) && number(value) != Some(200)),
        b"\"message\"" | b"\"msg\"" | b"\"detail\"" | b"\"errors\"" | b"\"error_code\"" | b"\"error_msg\""
        | b"\"error_message\"" | b"\"errorCode\"" | b"\"errorMessage\"" => is(Mark::InPlaceOfAnswer, !is_empty(value)),
        _ => Mark::None,
    }
}

/// Returns whether a value is one that servers send for "no error": null, false, 0, or empty.
pub fn is_empty(value: &[u8]) -> bool {
    match value {
        b"null" | b"false" | b"0" | b"\"\"" => true,
        [b'{' | b'[', inner @ .., b'}' | b']'] => inner.trim_ascii().is_empty(),
        _ => false,
    }
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.trim_matches('"').parse().ok()
}

fn base_status(value: &[u8]) -> Option<i64> {
    let mut status = None;
    let mut scanner = Scanner::new(value, 64);
    scanner
        .object(|s, key| {
            let is_status = &*names::quoted(s, &key) == b"\"status_code\"";
            let value = s.value()?;
            if is_status && value.kind == Kind::Number {
                status = std::str::from_utf8(s.bytes(&value.span)).ok().and_then(|text| text.parse().ok());
            }
            Ok::<_, InvalidJson>(())
        })
        .ok()?;
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_error_is_none() {
        for value in ["null", "false", "\"\"", "{}", "{ }", "[]", "0"] {
            assert_eq!(mark(b"\"error\"", value.as_bytes()), Mark::None, "{value}");
        }
        for value in ["\"x\"", "{\"code\":1}", "[1]", "true", "500"] {
            assert_eq!(mark(b"\"error\"", value.as_bytes()), Mark::Error, "{value}");
        }
    }

    #[test]
    fn what_servers_say_in_place_of_an_answer_is_an_error() {
        for (name, value) in [
            ("message", "\"no\""),
            ("msg", "\"rate limit\""),
            ("detail", "[{}]"),
            ("errors", "[{}]"),
            ("error_code", "336501"),
            ("code", "1302"),
            ("code", "\"1302\""),
            ("status", "500"),
            ("type", "\"error\""),
        ] {
            let name = format!("\"{name}\"");
            assert_eq!(mark(name.as_bytes(), value.as_bytes()), Mark::InPlaceOfAnswer, "{name}");
        }
        for (name, value) in
            [("code", "0"), ("code", "200"), ("status", "\"ok\""), ("type", "\"ping\""), ("msg", "\"\"")]
        {
            let name = format!("\"{name}\"");
            assert_eq!(mark(name.as_bytes(), value.as_bytes()), Mark::None, "{name} {value}");
        }
        assert_eq!(mark(b"\"base_resp\"", b"{\"status_code\":1008,\"status_msg\":\"x\"}"), Mark::Error);
        assert_eq!(mark(b"\"base_resp\"", b"{\"status_code\":0,\"status_msg\":\"\"}"), Mark::None);
    }
}
