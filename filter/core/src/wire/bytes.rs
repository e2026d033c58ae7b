//! One codec for every record that only the gateway itself reads: little-endian numbers, and bytes with a length
//! prefix.
//!
//! A [`Reader`] reads in the same order what a [`Writer`] wrote. It never panics: it returns `None` if the bytes end
//! too early or are invalid.

/// The target of a [`Writer`].
pub trait Sink {
    /// Appends these bytes.
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl<S: Sink> Sink for &mut S {
    fn put(&mut self, bytes: &[u8]) {
        (**self).put(bytes);
    }
}

/// Writes a record.
#[derive(Debug)]
pub struct Writer<S = Vec<u8>>(S);

/// Reads a record.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl Writer {
    /// Creates an empty record with capacity for `bytes` bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }
}

impl<S: Sink> Writer<S> {
    /// Creates a writer that appends to `sink`.
    pub fn to(sink: S) -> Self {
        Self(sink)
    }

    /// Returns the sink.
    pub fn finish(self) -> S {
        self.0
    }

    /// Writes bytes without a length: the reader knows their number, or they are the last of the record.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.put(bytes);
    }

    /// Writes bytes with a length prefix. Their length must be less than 4 GiB, or they cannot be read back.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// Writes the number of items that follow, with the same limit.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// Writes a boolean.
    pub fn flag(&mut self, flag: bool) {
        self.u8(u8::from(flag));
    }

    /// Writes text with a length prefix.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Writes optional text.
    pub fn optional_text(&mut self, text: Option<&str>) {
        self.flag(text.is_some());
        if let Some(text) = text {
            self.text(text);
        }
    }
}

impl<'a> Reader<'a> {
    /// Creates a reader that starts at the first of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the unread bytes.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// Returns `Some` if everything was read.
    pub fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    /// Reads `count` bytes.
    pub fn raw(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// Reads `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(taken)
    }

    /// Reads bytes with a length prefix.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let count = self.count()?;
        self.raw(count)
    }

    /// Reads the number of items that follow. It may be wrong: do not reserve memory for it without a check.
    pub fn count(&mut self) -> Option<usize> {
        usize::try_from(self.u32()?).ok()
    }

    /// Reads a boolean.
    pub fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Reads text with a length prefix. UTF-8 validation uses SIMD, because the text may be long.
    pub fn text(&mut self) -> Option<&'a str> {
        simdutf8::basic::from_utf8(self.bytes()?).ok()
    }

    /// Reads optional text.
    pub fn optional_text(&mut self) -> Option<Option<&'a str>> {
        if self.flag()? { self.text().map(Some) } else { Some(None) }
    }
}

macro_rules! numbers {
    ($($number:ident)*) => {
        impl<S: Sink> Writer<S> {$(
            /// Writes a number.
            pub fn $number(&mut self, number: $number) {
                self.raw(&number.to_le_bytes());
            }
        )*}

        impl Reader<'_> {$(
            /// Reads a number.
            pub fn $number(&mut self) -> Option<$number> {
                self.array().map(|bytes| $number::from_le_bytes(*bytes))
            }
        )*}
    };
}

numbers! { u8 u16 u32 u64 u128 }

#[cfg(test)]
mod tests {
    use super::*;

    type All<'a> = (u8, u16, u32, u64, u128, bool, &'a [u8], &'a str, [Option<&'a str>; 2], [u8; 3], usize);

    const ALL: All = (1, 0x203, 4, 5 << 40, 6 << 100, true, b"\xff", "é", [None, Some("")], [7; 3], 8);

    fn write(all: All) -> Vec<u8> {
        let (a, b, c, d, e, flag, bytes, text, optional, array, count) = all;
        let mut out = Writer::with_capacity(0);
        out.u8(a);
        out.u16(b);
        out.u32(c);
        out.u64(d);
        out.u128(e);
        out.flag(flag);
        out.bytes(bytes);
        out.text(text);
        optional.iter().for_each(|text| out.optional_text(*text));
        out.raw(&array);
        out.count(count);
        out.finish()
    }

    fn read(record: &[u8]) -> Option<All<'_>> {
        let mut reader = Reader::new(record);
        let all = (
            reader.u8()?,
            reader.u16()?,
            reader.u32()?,
            reader.u64()?,
            reader.u128()?,
            reader.flag()?,
            reader.bytes()?,
            reader.text()?,
            [reader.optional_text()?, reader.optional_text()?],
            *reader.array()?,
            reader.count()?,
        );
        reader.end().map(|()| all)
    }

    #[test]
    fn what_is_written_is_read() {
        let record = write(ALL);
        assert_eq!(read(&record), Some(ALL));
        assert_eq!(record.get(1..3), Some(&[3, 2][..]), "little-endian");
    }

    #[test]
    fn a_record_that_ends_too_early_or_late_is_none_and_damage_does_not_panic() {
        let record = write(ALL);
        for cut in 0..record.len() {
            assert_eq!(read(&record[..cut]), None, "{cut}");
        }
        assert_eq!(read(&[&record[..], &[0]].concat()), None);
        for at in 0..record.len() {
            for byte in 0..=255 {
                let mut damaged = record.clone();
                damaged[at] = byte;
                // Either another value or an error.
                assert!(byte == record[at] || read(&damaged) != Some(ALL), "{at} {byte}");
            }
        }
    }

    #[test]
    fn a_length_that_cannot_be_and_a_flag_that_is_neither_are_none() {
        assert_eq!(Reader::new(&[255; 40]).bytes(), None);
        assert_eq!(Reader::new(&[2]).flag(), None);
        assert_eq!(Reader::new(&[1, 0, 0, 0, 0xff]).text(), None);
    }

    #[test]
    fn a_writer_goes_on_after_what_is_there() {
        let mut record = vec![1];
        Writer::to(&mut record).u16(2);
        assert_eq!(record, [1, 2, 0]);
    }
}
