//! Bytes of records: numbers in little-endian order, and texts with their lengths before them.

/// Adds a text, its length before it.
pub fn put(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Adds a text or its absence.
pub fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put(out, text);
    }
}

/// Reads bytes from their start; `None` once they say something else.
pub struct Reader<'a>(
    /// What has not been read.
    pub &'a [u8],
);

impl<'a> Reader<'a> {
    /// The next bytes, so many of them.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of eight bytes.
    pub fn number(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    /// A count of four bytes.
    pub fn count(&mut self) -> Option<usize> {
        let count = self.take(4)?.try_into().ok().map(u32::from_le_bytes)?;
        usize::try_from(count).ok()
    }

    /// A truth value.
    pub fn flag(&mut self) -> Option<bool> {
        match self.take(1)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    /// A text.
    pub fn text(&mut self) -> Option<String> {
        let len = self.count()?;
        // An answer may be long: this looks at sixteen bytes at a time.
        simdutf8::basic::from_utf8(self.take(len)?).ok().map(str::to_owned)
    }

    /// A text or its absence.
    pub fn optional(&mut self) -> Option<Option<String>> {
        if self.flag()? { self.text().map(Some) } else { Some(None) }
    }
}
