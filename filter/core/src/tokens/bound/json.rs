//! The texts of a JSON value, without escapes: what a provider's tokenizer sees of a request.

use memchr::{memchr, memchr2};

/// How many tokens the JSON around the texts counts. It covers what a provider's template adds: the marks around a
/// message, and the white space with which some templates render tools.
#[derive(Debug, Clone, Copy)]
pub struct Weights {
    /// Each string, for its quotation marks.
    pub string: u64,
    /// Each brace, bracket, comma and colon.
    pub sign: u64,
}

/// Hands each string of a JSON text to `add`, without its escapes. Returns the tokens that the JSON around them counts.
/// `buffer` holds strings that had escapes.
pub fn scan(json: &[u8], weights: Weights, buffer: &mut Vec<u8>, add: &mut dyn FnMut(&[u8])) -> u64 {
    let mut rest = json;
    let mut others = 0;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => {
                others += weights.string;
                rest = string(after, buffer, add);
            }
            b'{' | b'}' | b'[' | b']' | b',' | b':' => others += weights.sign,
            b' ' | b'\n' | b'\r' | b'\t' => {}
            // Numbers and names: at most a token per byte.
            _ => others += 1,
        }
    }
    others
}

/// Hands over the string whose opening quotation mark was read. Returns what follows it.
fn string<'t>(text: &'t [u8], buffer: &mut Vec<u8>, add: &mut dyn FnMut(&[u8])) -> &'t [u8] {
    let (mut rest, mut is_plain) = (text, true);
    buffer.clear();
    loop {
        let end = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
        let (plain, after) = rest.split_at_checked(end).unwrap_or_default();
        if is_plain && after.first() != Some(&b'\\') {
            add(plain);
            return after.get(1..).unwrap_or_default();
        }
        is_plain = false;
        buffer.extend_from_slice(plain);
        match after {
            [b'\\', escape @ ..] if !escape.is_empty() => rest = character(escape, buffer),
            _ => {
                add(buffer);
                return after.get(1..).unwrap_or_default();
            }
        }
    }
}

/// Decodes the escapes in a piece of JSON, which may begin and end anywhere.
pub fn decoded(json: &[u8]) -> Vec<u8> {
    let (mut rest, mut buffer) = (json, Vec::with_capacity(json.len()));
    while let Some(at) = memchr(b'\\', rest) {
        let (plain, after) = rest.split_at_checked(at).unwrap_or_default();
        buffer.extend_from_slice(plain);
        rest = character(after.get(1..).unwrap_or_default(), &mut buffer);
    }
    buffer.extend_from_slice(rest);
    buffer
}

/// Decodes what follows a backslash. Returns what follows that.
fn character<'t>(text: &'t [u8], buffer: &mut Vec<u8>) -> &'t [u8] {
    match text {
        [b'u', escape @ ..] => unicode(escape, buffer),
        [escape, after @ ..] => {
            buffer.push(match escape {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'b' => 8,
                b'f' => 12,
                other => *other,
            });
            after
        }
        [] => text,
    }
}

/// Decodes the four digits after `\u`, and the second half of a pair. Half a pair alone becomes a byte that is no
/// UTF-8. Returns what follows.
fn unicode<'t>(text: &'t [u8], buffer: &mut Vec<u8>) -> &'t [u8] {
    let four = |text: &[u8]| {
        let digits = text.first_chunk::<4>()?;
        digits.iter().try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)?))
    };
    let Some(first) = four(text) else { return text };
    let rest = text.get(4..).unwrap_or_default();
    let (code, rest) = match (first, rest) {
        (0xd800..0xdc00, [b'\\', b'u', second @ ..]) => match four(second) {
            Some(low @ 0xdc00..0xe000) => {
                (0x1_0000 + ((first - 0xd800) << 10 | (low - 0xdc00)), second.get(4..).unwrap_or_default())
            }
            _ => (first, rest),
        },
        _ => (first, rest),
    };
    match char::from_u32(code) {
        Some(character) => buffer.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        None => buffer.push(0xff),
    }
    rest
}
