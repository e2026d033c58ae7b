//! The canonical form of JSON: two texts have the same bytes exactly if they have the same meaning.
//!
//! White space is dropped and members are sorted. A number becomes its significant decimal digits and an exponent, and
//! a string its unescaped text. Every value encodes its type and its end, so that a text cannot pass for structure.
//! What has no single meaning (a duplicate name, half a surrogate pair) has no canonical form.

use crate::wire::bytes;
use crate::wire::json::{InvalidJson, Kind, Scanner, unquote};
use std::borrow::Cow;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// The error for a text that has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ambiguous;

impl From<InvalidJson> for Ambiguous {
    fn from(_: InvalidJson) -> Self {
        Self
    }
}

/// How to read a request.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Maximum nesting depth.
    pub max_depth: u32,
    /// Whether texts that are equal under NFC count as equal.
    pub nfc: bool,
    /// Members to leave out because they say how the answer is sent, not what it contains: a top-level member, or one
    /// member of a top-level object.
    pub delivery: &'static [(&'static str, Option<&'static str>)],
}

/// Returns the canonical form of a request, without the members that say how the answer is sent.
///
/// # Errors
/// [`Ambiguous`]
pub fn request(body: &[u8], reading: Reading) -> Result<Vec<u8>, Ambiguous> {
    let mut writer = Writer { out: Vec::with_capacity(body.len() + 64), nfc: reading.nfc };
    let mut scanner = Scanner::new(body, reading.max_depth);
    writer.object(&mut scanner, Leave::Delivery(reading.delivery))?;
    scanner.finish()?;
    Ok(writer.out)
}

/// Which members of an object are left out.
#[derive(Clone, Copy, PartialEq)]
enum Leave {
    Nothing,
    /// In the request: [`Reading::delivery`].
    Delivery(&'static [(&'static str, Option<&'static str>)]),
    /// In a member of the request: the member of this name.
    Member(&'static str),
}

impl Leave {
    /// Returns `Some(None)` if the whole member is left out, `Some(Some(_))` if a part of it is, and `None` if it
    /// stays.
    fn leaves(self, name: &str) -> Option<Option<&'static str>> {
        match self {
            Self::Nothing => None,
            Self::Delivery(members) => members.iter().find(|(member, _)| *member == name).map(|(_, part)| *part),
            Self::Member(member) => (name == member).then_some(None),
        }
    }
}

struct Writer {
    out: Vec<u8>,
    nfc: bool,
}

impl Writer {
    fn value(&mut self, s: &mut Scanner) -> Result<(), Ambiguous> {
        match s.peek()? {
            Kind::Object => self.object(s, Leave::Nothing),
            Kind::Array => {
                self.out.push(b'[');
                s.array(|s, _| self.value(s))?;
                self.out.push(b']');
                Ok(())
            }
            Kind::String => {
                let value = s.value()?;
                self.text(&unquote(s.bytes(&value.span)).ok_or(Ambiguous)?);
                Ok(())
            }
            Kind::Number => {
                let value = s.value()?;
                self.number(s.bytes(&value.span))
            }
            Kind::Bool | Kind::Null => {
                let value = s.value()?;
                self.out.extend(s.bytes(&value.span).first());
                Ok(())
            }
        }
    }

    fn text(&mut self, text: &str) {
        let text = match self.nfc && is_nfc_quick(text.chars()) != IsNormalized::Yes {
            true => Cow::Owned(text.nfc().collect::<String>()),
            false => Cow::Borrowed(text),
        };
        self.out.push(b'"');
        bytes::Writer::to(&mut self.out).text(&text);
    }

    fn object(&mut self, s: &mut Scanner, leave: Leave) -> Result<(), Ambiguous> {
        self.out.push(b'{');
        let start = self.out.len();
        // For each member: where it starts, where its name ends, and where it ends.
        let mut members: Vec<(usize, usize, usize)> = Vec::with_capacity(8);
        s.object(|s, key| {
            let name = unquote(s.bytes(&key)).ok_or(Ambiguous)?;
            let left_out = leave.leaves(&name);
            if left_out == Some(None) {
                return Ok(s.value().map(drop)?);
            }
            let from = self.out.len();
            self.text(&name);
            let named = self.out.len();
            match left_out.flatten() {
                Some(part) => {
                    if !self.without(s, part)? {
                        self.out.truncate(from);
                        return Ok(());
                    }
                }
                None => self.value(s)?,
            }
            members.push((from, named, self.out.len()));
            Ok::<_, Ambiguous>(())
        })?;
        let name = |member: &(usize, usize, usize)| self.out.get(member.0..member.1).unwrap_or_default();
        if !members.is_sorted_by(|a, b| name(a) < name(b)) {
            members.sort_unstable_by(|a, b| name(a).cmp(name(b)));
            if members.windows(2).any(|pair| matches!(pair, [a, b] if name(a) == name(b))) {
                return Err(Ambiguous);
            }
            let unsorted = self.out.split_off(start);
            for (from, _, to) in &members {
                self.out.extend_from_slice(unsorted.get(from - start..to - start).unwrap_or_default());
            }
        }
        self.out.push(b'}');
        Ok(())
    }

    /// Writes a value without one of its members. Returns `false` if nothing is left: `{}` or `null`.
    fn without(&mut self, s: &mut Scanner, member: &'static str) -> Result<bool, Ambiguous> {
        let from = self.out.len();
        match s.peek()? {
            Kind::Object => self.object(s, Leave::Member(member))?,
            _ => self.value(s)?,
        }
        Ok(!matches!(self.out.get(from..), Some(b"{}" | b"n")))
    }

    /// Writes the sign, the digits without leading or trailing zeros, and the power of ten of the last digit.
    fn number(&mut self, text: &[u8]) -> Result<(), Ambiguous> {
        let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = match text.iter().position(|b| matches!(b, b'e' | b'E')) {
            Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()),
            None => (text, &b"0"[..]),
        };
        let exponent = std::str::from_utf8(exponent).map_err(|_| Ambiguous)?;
        let mut exponent: i64 = exponent.parse().map_err(|_| Ambiguous)?;
        let point = mantissa.iter().position(|b| *b == b'.');
        let fraction = point.map_or(0, |at| mantissa.len() - at - 1);
        let digits: Vec<u8> = mantissa.iter().copied().filter(u8::is_ascii_digit).collect();
        let leading = digits.iter().take_while(|b| **b == b'0').count();
        let trailing = digits.iter().rev().take_while(|b| **b == b'0').count();
        let significant = digits.get(leading..digits.len().saturating_sub(trailing)).unwrap_or_default();
        self.out.push(b'#');
        if significant.is_empty() {
            // All zeros are equal, whatever their sign and exponent.
            self.out.extend_from_slice(b"0;");
            return Ok(());
        }
        exponent =
            exponent.checked_sub(fraction as i64).and_then(|e| e.checked_add(trailing as i64)).ok_or(Ambiguous)?;
        if negative {
            self.out.push(b'-');
        }
        self.out.extend_from_slice(significant);
        self.out.push(b'e');
        self.out.extend_from_slice(exponent.to_string().as_bytes());
        self.out.push(b';');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READING: Reading =
        Reading { max_depth: 16, nfc: false, delivery: &[("stream", None), ("stream_options", Some("include_usage"))] };

    fn canonical(body: &str) -> Result<Vec<u8>, Ambiguous> {
        request(body.as_bytes(), READING)
    }

    fn same(a: &str, b: &str) -> bool {
        canonical(a).unwrap() == canonical(b).unwrap()
    }

    #[test]
    fn the_same_meaning_has_the_same_form() {
        assert!(same(r#"{"a":1,"b":[true,null]}"#, " {\n\"b\" : [ true ,null] , \"a\":1}\t"));
        for number in ["1.0", "1e0", "10e-1", "0.1E+1", "1.000", "100e-2", "1E0"] {
            assert!(same(r#"{"t":1}"#, &format!(r#"{{"t":{number}}}"#)), "{number}");
        }
        for zero in ["0.0", "-0", "0e9", "-0.00e-7"] {
            assert!(same(r#"{"t":0}"#, &format!(r#"{{"t":{zero}}}"#)), "{zero}");
        }
        assert!(same(r#"{"t":1200}"#, r#"{"t":1.2e3}"#) && same(r#"{"t":-0.05}"#, r#"{"t":-5e-2}"#));
        assert!(same(r#"{"te\u0078t":"\u00e9\/"}"#, r#"{"text":"é/"}"#));
        assert!(same(r#"{"a":1,"stream":true,"stream_options":{"include_usage":true}}"#, r#"{"a":1,"stream":false}"#));
        assert!(same(r#"{"a":1,"stream_options":null}"#, r#"{"a":1}"#));
    }

    #[test]
    fn another_meaning_has_another_form() {
        for (a, b) in [
            (r#"{"t":1}"#, r#"{"t":"1"}"#),
            (r#"{"t":1}"#, r#"{"t":10}"#),
            (r#"{"t":1}"#, r#"{"t":-1}"#),
            (r#"{"t":1}"#, r#"{"t":0.1}"#),
            (r#"{"t":1}"#, r#"{"t":[1]}"#),
            (r#"{"t":12}"#, r#"{"t":[1,2]}"#),
            (r#"{"t":null}"#, r#"{}"#),
            (r#"{"t":null}"#, r#"{"t":"n"}"#),
            (r#"{"t":true}"#, r#"{"t":false}"#),
            (r#"{"t":[[1],2]}"#, r#"{"t":[1,[2]]}"#),
            (r#"{"t":[]}"#, r#"{"t":{}}"#),
            (r#"{"a":"b","c":"d"}"#, r#"{"a":"b\",\"c\":\"d"}"#),
            (r#"{"a":"}","b":1}"#, r#"{"a":"","b":1}"#),
            (r#"{"a":"é"}"#, "{\"a\":\"e\u{301}\"}"),
            (r#"{"a":"A"}"#, "{\"a\":\"\u{410}\"}"),
            (r#"{"a":"x"}"#, r#"{"a":"x "}"#),
            (r#"{"a":"x"}"#, r#"{"A":"x"}"#),
            (r#"{"a":{"stream":true}}"#, r#"{"a":{"stream":false}}"#),
            (r#"{"stream_options":{"x":1}}"#, r#"{"stream_options":{"x":2}}"#),
            (r#"{"t":1e400}"#, r#"{"t":1e401}"#),
            (r#"{"t":1.00000000000000000001}"#, r#"{"t":1}"#),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn what_has_no_one_meaning_has_no_form() {
        for ambiguous in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":1}"#,
            r#"{"m":[{"role":"user","content":"x","role":"system"}]}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"\udc00":1}"#,
            r#"{"a":1e99999999999999999999}"#,
            r#"{"a":1e-9223372036854775808}"#,
            r#"{"a":1}x"#,
        ] {
            match ambiguous.contains("775808") {
                // The exponent alone fits, but not after the fraction digit is subtracted.
                true => assert!(canonical(&ambiguous.replace('1', "1.1")).is_err()),
                false => assert_eq!(canonical(ambiguous), Err(Ambiguous), "{ambiguous}"),
            }
        }
    }

    #[test]
    fn equal_texts_are_equal_only_where_the_policy_says_so() {
        let form = |body: &str| request(body.as_bytes(), Reading { nfc: true, ..READING }).unwrap();
        assert_eq!(form("{\"a\":\"é\"}"), form("{\"a\":\"e\u{301}\"}"));
        // Characters that only look alike are not equal.
        assert_ne!(form("{\"a\":\"A\"}"), form("{\"a\":\"\u{410}\"}"));
        assert_ne!(form("{\"a\":\"K\"}"), form("{\"a\":\"k\"}"));
        let twice = request("{\"é\":1,\"e\u{301}\":2}".as_bytes(), Reading { nfc: true, ..READING });
        assert_eq!(twice, Err(Ambiguous));
    }
}
