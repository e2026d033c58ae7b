//! Readers of a request's fields, each with the error for a value that it cannot be. The messages are OpenAI's.

use crate::outcome::outcome::Outcome;
use crate::request::facts::{InvalidField, InvalidRequest, Member};
use crate::request::integer::{self, Number};
use crate::wire::json::names::fold;
use crate::wire::json::{Kind, Scanned, unquote};
use crate::wire::text::shorten;
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Most top-level members of a request: many times as many as any API has. Each one costs memory and a comparison.
pub const MAX_MEMBERS: usize = 1000;

/// Longest value of a field that the gateway reads, such as the model's name, in bytes with its quotes.
pub const MAX_TEXT: usize = 4096;

/// Most members and elements of a request, at any depth. A longest body of tool definitions has a tenth as many.
pub const MAX_VALUES: u32 = 1_000_000;

/// Returns the error of a field, with OpenAI's code for it.
pub fn wrong(code: Outcome, param: &str, message: impl Into<String>) -> InvalidRequest {
    InvalidRequest::Field(InvalidField { param: param.to_owned(), code, message: message.into() })
}

/// Returns the error of a field that appears twice.
pub fn duplicate(param: &str) -> InvalidRequest {
    wrong(Outcome::InvalidValue, param, format!("Duplicate field '{param}'."))
}

/// Returns the error of a field that is required and absent.
pub fn missing(param: &str) -> InvalidRequest {
    wrong(Outcome::MissingRequiredParameter, param, format!("Missing required parameter: '{param}'."))
}

/// Returns the error of a field whose value is of another kind than `expected`.
pub fn wrong_type(param: &str, expected: &str, kind: Kind) -> InvalidRequest {
    let got = match kind {
        Kind::Null => "null",
        Kind::Bool => "a boolean",
        Kind::Number => "a number",
        Kind::String => "a string",
        Kind::Array => "an array",
        Kind::Object => "an object",
    };
    let message = format!("Invalid type for '{param}': expected {expected}, but got {got} instead.");
    wrong(Outcome::InvalidType, param, message)
}

/// Returns whether a scanned value is this string, which contains nothing to escape. Providers decode escapes, so an
/// escaped spelling is equal. It is longer, at most six times as long, so only such values are decoded.
pub fn is_text(quoted: &[u8], text: &str) -> bool {
    let [b'"', inner @ .., b'"'] = quoted else { return false };
    inner == text.as_bytes()
        || (text.len() + 1..=6 * text.len()).contains(&inner.len())
            && inner.contains(&b'\\')
            && unquote(quoted).is_some_and(|said| said == text)
}

/// Checks the name of one more member of a body. `names`: the names so far if there are many, to find a duplicate.
///
/// # Errors
/// If the body has too many members, or this one twice.
pub fn admit<'a>(members: &[Member<'a>], names: &mut BTreeSet<Cow<'a, str>>, name: &str) -> Result<(), InvalidRequest> {
    if members.len() >= MAX_MEMBERS {
        let name = shorten(name);
        let message = format!("Too many fields: '{name}' exceeds the limit of {MAX_MEMBERS} fields.");
        return Err(wrong(Outcome::InvalidValue, name, message));
    }
    if is_duplicate(members, names, name) {
        return Err(duplicate(shorten(name)));
    }
    Ok(())
}

/// Returns the field of `known` from which `name` differs only in case. Some servers, such as those written in Go,
/// treat the two as one field and use the last value (Go, `encoding/json`, "Unmarshal").
///
/// # Errors
/// If there is one.
pub fn check_case(known: &[&str], name: &str) -> Result<(), InvalidRequest> {
    if !name.bytes().any(|b| b.is_ascii_uppercase() || b >= 0x80) {
        return Ok(());
    }
    let Some(known) = known.iter().find(|known| fold(name).eq(known.chars())) else { return Ok(()) };
    let name = shorten(name);
    Err(wrong(Outcome::UnknownParameter, name, format!("Unknown parameter: '{name}'; use '{known}'.")))
}

/// Compares a few members one by one. Many members, which only a hostile body has, go through a set.
fn is_duplicate<'a>(members: &[Member<'a>], names: &mut BTreeSet<Cow<'a, str>>, name: &str) -> bool {
    const FEW: usize = 32;
    if members.len() < FEW {
        return members.iter().any(|m| m.name == name);
    }
    if names.is_empty() {
        names.extend(members.iter().map(|m| m.name.clone()));
    }
    !names.insert(Cow::Owned(name.to_owned()))
}

/// Reads a text.
///
/// # Errors
/// If it is not a string, or too long.
pub fn text<'a>(param: &str, value: &Scanned, bytes: &'a [u8]) -> Result<Cow<'a, str>, InvalidRequest> {
    if value.kind != Kind::String {
        return Err(wrong_type(param, "a string", value.kind));
    }
    if bytes.len() > MAX_TEXT {
        let message = format!("Invalid '{param}': string too long. Expected a string of at most {MAX_TEXT} bytes.");
        return Err(wrong(Outcome::InvalidValue, param, message));
    }
    unquote(bytes).ok_or_else(|| wrong(Outcome::InvalidValue, param, format!("Invalid string in '{param}'.")))
}

/// Reads a text or null.
///
/// # Errors
/// If it is neither, or too long.
pub fn optional_text<'a>(
    param: &str,
    value: &Scanned,
    bytes: &'a [u8],
) -> Result<Option<Cow<'a, str>>, InvalidRequest> {
    if value.kind == Kind::Null { Ok(None) } else { text(param, value, bytes).map(Some) }
}

/// Reads a boolean; null is false.
///
/// # Errors
/// If it is neither.
pub fn boolean(param: &str, value: &Scanned, bytes: &[u8]) -> Result<bool, InvalidRequest> {
    match value.kind {
        Kind::Bool => Ok(bytes == b"true"),
        Kind::Null => Ok(false),
        kind => Err(wrong_type(param, "a boolean", kind)),
    }
}

/// Reads a positive integer or null.
///
/// # Errors
/// If it is neither.
pub fn count(param: &str, value: &Scanned, bytes: &[u8]) -> Result<Option<u64>, InvalidRequest> {
    if value.kind == Kind::Null {
        return Ok(None);
    }
    if value.kind != Kind::Number {
        return Err(wrong_type(param, "an integer", value.kind));
    }
    let (code, fault) = match integer::read(bytes) {
        Number::Whole { negative: false, value } if value > 0 => return Ok(Some(value)),
        Number::Fraction => {
            let message = format!("Invalid type for '{param}': expected an integer, but got a decimal number instead.");
            return Err(wrong(Outcome::InvalidType, param, message));
        }
        Number::TooLarge { negative: false } => {
            (Outcome::IntegerAboveMaxValue, format!("above maximum value. Expected a value <= {}", u64::MAX))
        }
        _ => (Outcome::IntegerBelowMinValue, "below minimum value. Expected a value >= 1".to_owned()),
    };
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let message = format!("Invalid '{param}': integer {fault}, but got {} instead.", shorten(text));
    Err(wrong(code, param, message))
}

/// Reads an output limit: a positive integer, or null or -1 for none, as LM Studio and llama.cpp have it.
///
/// # Errors
/// If it is none of these.
pub fn output_limit(param: &str, value: &Scanned, bytes: &[u8]) -> Result<Option<u64>, InvalidRequest> {
    if value.kind == Kind::Number && integer::is_unlimited(bytes) {
        return Ok(None);
    }
    count(param, value, bytes)
}

/// Returns whether a field with this value asks for nothing: it is null, false or an empty array.
pub fn is_absent(value: &Scanned, bytes: &[u8]) -> bool {
    match value.kind {
        Kind::Null => true,
        Kind::Bool => bytes == b"false",
        Kind::Array => matches!(bytes, [b'[', inner @ .., b']'] if inner.trim_ascii().is_empty()),
        _ => false,
    }
}
