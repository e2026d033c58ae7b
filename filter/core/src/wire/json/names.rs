//! The names of members, as the most lenient reader understands them, at a bounded cost.

use crate::wire::json::{InvalidJson, Scanner, Span, unquote};
use std::borrow::Cow;

/// The longest name that is compared with known ones, in bytes. Each of its characters may be an escape of six bytes.
const MAX_NAME: usize = 6 * 40;

/// How many values such a name counts as, because decoding it takes as long.
const DECODED_NAME: u32 = 10;

impl<'a> Scanner<'a> {
    /// Returns the name at `key` with escapes decoded, for comparison with known names. A name that is too long to be
    /// known is empty.
    ///
    /// # Errors
    /// [`Why::TooMany`](crate::wire::json::Why::TooMany), if too many names need decoding.
    #[inline]
    pub fn name(&mut self, key: &Span) -> Result<Cow<'a, [u8]>, InvalidJson> {
        match self.plain_name(key) {
            Some(name) => Ok(Cow::Borrowed(name)),
            None => Ok(Cow::Owned(self.decode_name(key)?.into_bytes())),
        }
    }

    /// Returns the name at `key` as [`Scanner::name`] does, with its case folded as Go's `encoding/json` folds it, for
    /// comparison with names in lower case.
    ///
    /// # Errors
    /// As for [`Scanner::name`].
    #[inline]
    pub fn folded_name(&mut self, key: &Span) -> Result<Cow<'a, [u8]>, InvalidJson> {
        match self.plain_name(key) {
            Some(name) => Ok(Cow::Borrowed(name)),
            None => Ok(Cow::Owned(fold(&self.decode_name(key)?).collect::<String>().into_bytes())),
        }
    }

    /// Returns a name of the usual form, which needs no decoding or folding.
    #[inline]
    fn plain_name(&self, key: &Span) -> Option<&'a [u8]> {
        let inner = self.bytes(&(key.start + 1..key.end.saturating_sub(1)));
        inner.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_').then_some(inner)
    }

    #[cold]
    fn decode_name(&mut self, key: &Span) -> Result<String, InvalidJson> {
        if key.len() > MAX_NAME {
            return Ok(String::new());
        }
        self.count(DECODED_NAME)?;
        Ok(unquote(self.bytes(key)).unwrap_or_default().into_owned())
    }
}

/// Returns the name at `key` with its quotes and with escapes decoded, for comparison with known names. For the answers
/// of providers, in which hardly any name has an escape: nothing bounds how many are decoded.
pub fn quoted<'a>(s: &Scanner<'a>, key: &Span) -> Cow<'a, [u8]> {
    let name = s.bytes(key);
    match memchr::memchr(b'\\', name).and_then(|_| unquote(name)) {
        Some(decoded) => Cow::Owned([b"\"", decoded.as_bytes(), b"\""].concat()),
        None => Cow::Borrowed(name),
    }
}

/// Returns the characters of a name in lower case. Go also folds two letters outside ASCII.
pub fn fold(name: &str) -> impl Iterator<Item = char> {
    name.chars().map(|c| match c {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    })
}
