//! A JSON text as its meaning: the same bytes for every way to write it, other bytes for every other meaning.
//!
//! White space goes, members stand in the order of their names, a number is its shortest decimal digits and an
//! exponent, a string is its text. Every value says its kind and where it ends, so no text can pass for another's
//! structure. What has no one meaning (a name given twice, half a surrogate pair) has no canonical form.

use crate::wire::bytes;
use crate::wire::json::{InvalidJson, Kind, Scanner, unquote};
use std::borrow::Cow;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// Why a text has no canonical form.
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
    /// Deepest nesting.
    pub max_depth: u32,
    /// Whether texts that Unicode calls equal (NFC) are.
    pub nfc: bool,
    /// Members that are left out, because they say how the answer is to be sent and not what it is to be: top-level
    /// ones, or a member of one.
    pub delivery: &'static [(&'static str, Option<&'static str>)],
}

/// The canonical form of a request: of everything in it but how the answer is sent.
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
    /// Of the request: [`Reading::delivery`].
    Delivery(&'static [(&'static str, Option<&'static str>)]),
    /// Of a member of the request: this one of its members.
    Member(&'static str),
}

impl Leave {
    /// Whether the member is left out: `Some(None)`, or in part.
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
        // Where each member's canonical form begins, its name ends, and it ends.
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

    /// A value without one of its members; whether there is anything in it besides.
    fn without(&mut self, s: &mut Scanner, member: &'static str) -> Result<bool, Ambiguous> {
        let from = self.out.len();
        match s.peek()? {
            Kind::Object => self.object(s, Leave::Member(member))?,
            _ => self.value(s)?,
        }
        Ok(!matches!(self.out.get(from..), Some(b"{}" | b"n")))
    }

    /// Sign, digits without zeros at either end, and the power of ten of the last of them.
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
            // Zero is zero, whatever its sign and exponent.
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
                // Just representable, and then not once its place is counted.
                true => assert!(canonical(&ambiguous.replace('1', "1.1")).is_err()),
                false => assert_eq!(canonical(ambiguous), Err(Ambiguous), "{ambiguous}"),
            }
        }
    }

    #[test]
    fn equal_texts_are_equal_only_where_the_policy_says_so() {
        let form = |body: &str| request(body.as_bytes(), Reading { nfc: true, ..READING }).unwrap();
        assert_eq!(form("{\"a\":\"é\"}"), form("{\"a\":\"e\u{301}\"}"));
        // Look-alikes are not equal texts.
        assert_ne!(form("{\"a\":\"A\"}"), form("{\"a\":\"\u{410}\"}"));
        assert_ne!(form("{\"a\":\"K\"}"), form("{\"a\":\"k\"}"));
        let twice = request("{\"é\":1,\"e\u{301}\":2}".as_bytes(), Reading { nfc: true, ..READING });
        assert_eq!(twice, Err(Ambiguous));
    }
}
