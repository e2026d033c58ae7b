//! A JSON scanner (RFC 8259) that validates and finds spans, without building a tree.
//!
//! It makes a single pass. Strings, which are nearly all of a prompt, are scanned sixteen bytes at a time, and UTF-8 is
//! validated only if a byte outside ASCII was seen.

use std::borrow::Cow;
use std::ops::Range;
use wide::u8x16;

pub mod names;
mod strings;

#[cfg(test)]
mod tests;

/// Byte range of a value or a key in the scanned text.
pub type Span = Range<usize>;

/// The kind of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number.
    Number,
    /// `true` or `false`
    Bool,
    /// `null`
    Null,
}

/// A value's kind and span; a string's span includes its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// What it is.
    pub kind: Kind,
    /// Where it is.
    pub span: Span,
}

/// Why a text is not valid JSON, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidJson {
    /// Byte offset.
    pub at: usize,
    /// What is wrong there.
    pub why: Why,
}

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The text ends in the middle of a value.
    End,
    /// A byte that the grammar does not allow here.
    Unexpected,
    /// An unescaped control character in a string.
    Control,
    /// An escape that JSON does not define.
    Escape,
    /// Nested more deeply than the limit.
    TooDeep,
    /// More values than the limit.
    TooMany,
    /// Bytes that are not UTF-8.
    Utf8,
}

impl InvalidJson {
    /// Returns a message for people: what is wrong and where, without any of the text.
    pub fn message(self) -> String {
        let what = match self.why {
            Why::End => "unexpected end of JSON",
            Why::Unexpected => "invalid JSON",
            Why::Control => "unescaped control character in a JSON string",
            Why::Escape => "invalid escape in a JSON string",
            Why::TooDeep => "JSON is nested too deeply",
            Why::TooMany => "JSON has too many values",
            Why::Utf8 => "JSON is not valid UTF-8",
        };
        format!("{what}, at byte {}", self.at)
    }
}

/// Scans a text from its start.
pub struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    depth: u32,
    max_depth: u32,
    /// How many more members and elements may come.
    left: u32,
    seen: u8x16,
    /// Whether `NaN` and `Infinity` are numbers.
    is_lenient: bool,
}

impl<'a> Scanner<'a> {
    /// Creates a scanner that allows `max_depth` nested arrays and objects.
    pub fn new(text: &'a [u8], max_depth: u32) -> Self {
        Self { text, at: 0, depth: 0, max_depth, left: u32::MAX, seen: u8x16::ZERO, is_lenient: false }
    }

    /// Creates a scanner that also allows at most `max_values` members of objects and elements of arrays in all. This
    /// bounds the time of a scan: text takes a nanosecond or two for each byte, a value ten times as long.
    pub fn bounded(text: &'a [u8], max_depth: u32, max_values: u32) -> Self {
        Self { left: max_values, ..Self::new(text, max_depth) }
    }

    /// Creates a scanner for the text of a server: a byte order mark may precede it, and `NaN`, `Infinity` and
    /// `-Infinity`, which Python writes into JSON, are numbers.
    pub fn lenient(text: &'a [u8], max_depth: u32) -> Self {
        let at = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        Self { at, is_lenient: true, ..Self::new(text, max_depth) }
    }

    /// Returns the bytes of `span`.
    pub fn bytes(&self, span: &Span) -> &'a [u8] {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// Ends the scan. Only white space may follow, and the whole text must be UTF-8.
    ///
    /// # Errors
    /// [`Why::Unexpected`] or [`Why::Utf8`].
    pub fn finish(mut self) -> Result<(), InvalidJson> {
        self.space();
        if self.at < self.text.len() {
            return Err(self.error(Why::Unexpected));
        }
        let outside_ascii = self.seen.to_array().iter().any(|b| *b >= 0x80);
        if outside_ascii && simdutf8::basic::from_utf8(self.text).is_err() {
            let at = std::str::from_utf8(self.text).map_or_else(|e| e.valid_up_to(), |_| 0);
            return Err(InvalidJson { at, why: Why::Utf8 });
        }
        Ok(())
    }

    /// Returns the kind of the next value without reading it.
    ///
    /// # Errors
    /// If no value starts here.
    pub fn peek(&mut self) -> Result<Kind, InvalidJson> {
        self.space();
        match self.byte() {
            b'{' => Ok(Kind::Object),
            b'[' => Ok(Kind::Array),
            b'"' => Ok(Kind::String),
            b't' | b'f' => Ok(Kind::Bool),
            b'n' => Ok(Kind::Null),
            b'-' | b'0'..=b'9' => Ok(Kind::Number),
            b'N' | b'I' if self.is_lenient => Ok(Kind::Number),
            _ => Err(self.error(Why::Unexpected)),
        }
    }

    /// Reads any one value.
    ///
    /// # Errors
    /// If it is not valid JSON.
    pub fn value(&mut self) -> Result<Scanned, InvalidJson> {
        let kind = self.peek()?;
        let start = self.at;
        match kind {
            Kind::Object => self.object(|scanner, _| scanner.value().map(drop))?,
            Kind::Array => self.array(|scanner, _| scanner.value().map(drop))?,
            Kind::String => {
                self.string()?;
            }
            Kind::Number => self.number()?,
            Kind::Bool if self.byte() == b't' => self.literal(b"true")?,
            Kind::Bool => self.literal(b"false")?,
            Kind::Null => self.literal(b"null")?,
        }
        Ok(Scanned { kind, span: start..self.at })
    }

    /// Reads one object. Calls `member` with each key's span, quotes included; it must read the value.
    ///
    /// # Errors
    /// If it is not a valid object, and any error that `member` returns.
    pub fn object<E: From<InvalidJson>>(
        &mut self,
        mut member: impl FnMut(&mut Self, Span) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'{')?;
        self.space();
        if self.byte() == b'}' {
            self.at += 1;
        } else {
            loop {
                self.count(1)?;
                self.space();
                let key = self.string()?;
                self.space();
                self.expect(b':')?;
                member(self, key)?;
                if self.next_or_close(b'}')? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads one array. Calls `element` with each element's index; it must read the element.
    ///
    /// # Errors
    /// If it is not a valid array, and any error that `element` returns.
    pub fn array<E: From<InvalidJson>>(
        &mut self,
        mut element: impl FnMut(&mut Self, usize) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'[')?;
        self.space();
        if self.byte() == b']' {
            self.at += 1;
        } else {
            for index in 0.. {
                self.count(1)?;
                element(self, index)?;
                if self.next_or_close(b']')? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Returns the byte offset that the scan has reached.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Counts something that takes as long as `values` values.
    #[inline]
    fn count(&mut self, values: u32) -> Result<(), InvalidJson> {
        match self.left.checked_sub(values) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(InvalidJson { at: self.at, why: Why::TooMany }),
        }
    }

    fn error(&self, why: Why) -> InvalidJson {
        let why = if why == Why::Unexpected && self.at >= self.text.len() { Why::End } else { why };
        InvalidJson { at: self.at, why }
    }

    /// Returns the current byte. At the end it returns 0, which the grammar allows nowhere.
    #[inline]
    fn byte(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    fn space(&mut self) {
        while matches!(self.byte(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), InvalidJson> {
        if self.byte() != byte {
            return Err(self.error(Why::Unexpected));
        }
        self.at += 1;
        Ok(())
    }

    fn open(&mut self, byte: u8) -> Result<(), InvalidJson> {
        self.space();
        self.expect(byte)?;
        self.depth += 1;
        if self.depth > self.max_depth {
            return Err(InvalidJson { at: self.at - 1, why: Why::TooDeep });
        }
        Ok(())
    }

    /// Reads the byte after an element: `true` if it closes, `false` if it is a comma.
    fn next_or_close(&mut self, close: u8) -> Result<bool, InvalidJson> {
        self.space();
        let byte = self.byte();
        if byte != close && byte != b',' {
            return Err(self.error(Why::Unexpected));
        }
        self.at += 1;
        Ok(byte == close)
    }

    fn literal(&mut self, word: &[u8]) -> Result<(), InvalidJson> {
        for byte in word {
            self.expect(*byte)?;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), InvalidJson> {
        if self.byte() == b'-' {
            self.at += 1;
        }
        match self.byte() {
            b'N' if self.is_lenient => return self.literal(b"NaN"),
            b'I' if self.is_lenient => return self.literal(b"Infinity"),
            _ => {}
        }
        if self.byte() == b'0' {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.byte() == b'.' {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.byte(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), InvalidJson> {
        if !self.byte().is_ascii_digit() {
            return Err(self.error(Why::Unexpected));
        }
        while self.byte().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }
}

/// Returns whether an object in a valid text has a name twice, or a name with escapes, so that readers may differ on
/// what it says. A text that is not valid JSON is as doubtful.
pub fn has_doubtful_names(text: &[u8], max_depth: u32) -> bool {
    let mut scanner = Scanner::new(text, max_depth);
    doubtful(&mut scanner).unwrap_or(true)
}

fn doubtful(s: &mut Scanner) -> Result<bool, InvalidJson> {
    let mut found = false;
    match s.peek()? {
        Kind::Object => {
            let mut names: Vec<&[u8]> = Vec::new();
            s.object(|s, key| {
                let name = s.bytes(&key);
                found |= memchr::memchr(b'\\', name).is_some();
                names.push(name);
                found |= doubtful(s)?;
                Ok::<_, InvalidJson>(())
            })?;
            names.sort_unstable();
            found |= names.windows(2).any(|pair| matches!(pair, [one, other] if one == other));
        }
        Kind::Array => s.array(|s, _| {
            found |= doubtful(s)?;
            Ok::<_, InvalidJson>(())
        })?,
        _ => {
            s.value()?;
        }
    }
    Ok(found)
}

/// Returns the text of a scanned string; `quoted` includes the quotes. It is borrowed unless it has escapes.
///
/// Returns `None` if the text is not UTF-8, or if an escape is half a surrogate pair, which is not a character.
pub fn unquote(quoted: &[u8]) -> Option<Cow<'_, str>> {
    let inner = quoted.get(1..quoted.len().checked_sub(1)?)?;
    if memchr::memchr(b'\\', inner).is_none() {
        return std::str::from_utf8(inner).ok().map(Cow::Borrowed);
    }
    serde_json::from_slice::<String>(quoted).ok().map(Cow::Owned)
}

/// Counts the characters in the strings of a valid JSON text, names of members included. An escape counts as one.
pub fn characters(text: &[u8]) -> usize {
    let (mut count, mut in_string, mut at) = (0, false, 0);
    while let Some(byte) = text.get(at) {
        at += match (byte, in_string) {
            (b'"', _) => {
                in_string = !in_string;
                1
            }
            (b'\\', true) => {
                count += 1;
                if text.get(at + 1) == Some(&b'u') { 6 } else { 2 }
            }
            // Count only the first byte of a multi-byte character.
            (byte, true) => {
                count += usize::from(byte & 0xc0 != 0x80);
                1
            }
            (_, false) => 1,
        };
    }
    count
}

/// Returns the length in bytes of the JSON string at the start of `text`, quotes included; `None` if there is none, or
/// if it is not UTF-8.
pub fn string_len(text: &[u8]) -> Option<usize> {
    let mut scanner = Scanner::new(text, 0);
    let span = scanner.string().ok()?;
    let is_ascii = scanner.seen.to_array().iter().all(u8::is_ascii);
    (is_ascii || simdutf8::basic::from_utf8(scanner.bytes(&span)).is_ok()).then_some(span.end)
}

/// Returns whether [`quote_into`] can write these eight bytes unchanged.
fn is_plain(word: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The top bit of a byte is set if the byte of `word` is less than `n`, which is at most 128. Bytes above such a
    // byte may be wrong because of a borrow, which does not change whether any is set (Bit Twiddling Hacks, hasless).
    let less = |word: u64, n: u64| word.wrapping_sub(ONES * n) & !word;
    let is = |byte: u8| less(word ^ (ONES * u64::from(byte)), 1);
    (less(word, 0x20) | is(b'"') | is(b'\\') | is(0x7f)) & (ONES * 0x80) == 0
}

/// Appends `text` to `out` as a JSON string.
pub fn quote_into(out: &mut Vec<u8>, text: &str) {
    let text = text.as_bytes();
    out.reserve(text.len() + 10);
    out.push(b'"');
    // Eight bytes at a time: most texts are short, and in Wasm a copy of unknown length is slow to start.
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        if is_plain(u64::from_le_bytes(*word)) {
            out.extend_from_slice(word);
        } else {
            quote_bytes(out, word);
        }
    }
    let mut last = [b' '; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    if is_plain(u64::from_le_bytes(last)) {
        let end = out.len() + rest.len();
        out.extend_from_slice(&last);
        out.truncate(end);
    } else {
        quote_bytes(out, rest);
    }
    out.push(b'"');
}

#[cold]
fn quote_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            b'\n' => out.extend(b"\\n"),
            0..0x20 | 0x7f => out.extend(format!("\\u{byte:04x}").into_bytes()),
            _ => out.push(*byte),
        }
    }
}
