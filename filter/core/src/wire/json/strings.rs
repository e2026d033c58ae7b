//! Scans strings, which are nearly all of a prompt: 16 bytes at a time, and 64 in runs of text.

use crate::wire::json::{InvalidJson, Scanner, Span, Why};
use std::hint::black_box;
use wide::u8x16;

impl Scanner<'_> {
    /// Reads a string and returns its span, quotes included.
    #[inline]
    pub(super) fn string(&mut self) -> Result<Span, InvalidJson> {
        let start = self.at;
        self.expect(b'"')?;
        // Most names and many values end within one block, with no special byte before their end.
        if let Some(bytes) = self.text.get(self.at..).and_then(|rest| rest.first_chunk::<16>()) {
            let block = u8x16::new(*bytes);
            let end = SPECIAL.find(block).to_bitmask().trailing_zeros() as usize;
            if bytes.get(end) == Some(&b'"') {
                // This includes the bytes after the string. They are part of the text too, so it does no harm to see
                // them twice.
                self.seen |= block;
                self.at += end + 1;
                return Ok(start..self.at);
            }
        }
        self.long_string(start)
    }

    /// Reads a string of any length, whose opening quotation mark at `start` has been read.
    fn long_string(&mut self, start: usize) -> Result<Span, InvalidJson> {
        let patterns = Special::hidden();
        loop {
            let base = self.at;
            let rest = self.text.get(base..).unwrap_or_default();
            let block = rest.first_chunk::<16>().map_or_else(|| padded(rest), |block| u8x16::new(*block));
            // As above, this may include bytes after the string.
            self.seen |= block;
            let mut special = patterns.find(block).to_bitmask();
            if special == 0 {
                self.at += 16;
                self.skip_text(patterns);
                continue;
            }
            // Handle every special byte of this block in turn, without searching the block again.
            while special != 0 {
                self.at = base + special.trailing_zeros() as usize;
                match self.byte() {
                    b'"' => {
                        self.at += 1;
                        return Ok(start..self.at);
                    }
                    b'\\' => self.escape()?,
                    _ if self.at < self.text.len() => return Err(self.error(Why::Control)),
                    _ => return Err(self.error(Why::Unexpected)),
                }
                special = match self.at - base {
                    read @ 0..16 => special >> read << read,
                    _ => 0,
                };
            }
            self.at = self.at.max(base + 16);
        }
    }

    /// Skips text and escapes, 64 bytes at a time. Stops at a quotation mark, at a byte or escape that a string cannot
    /// contain, or when fewer than 64 bytes are left.
    fn skip_text(&mut self, patterns: Special) {
        let (mut at, mut seen) = (self.at, self.seen);
        while let Some(window) = self.text.get(at..).and_then(|rest| rest.first_chunk::<64>()) {
            let [a, b, c, d] = [0, 16, 32, 48].map(|from| sixteen(window, from));
            seen |= (a | b) | (c | d);
            let [a, b, c, d] = [a, b, c, d].map(|block| patterns.find(block));
            if ((a | b) | (c | d)).to_bitmask() == 0 {
                at += 64;
                continue;
            }
            let bits = |block: u8x16| u64::from(block.to_bitmask());
            match skip_escapes(window, bits(a) | bits(b) << 16 | bits(c) << 32 | bits(d) << 48) {
                Ok(read) => at += read,
                Err(read) => {
                    at += read;
                    break;
                }
            }
        }
        (self.at, self.seen) = (at, seen);
    }

    fn escape(&mut self) -> Result<(), InvalidJson> {
        self.at += 1;
        match self.byte() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {
                self.at += 1;
                Ok(())
            }
            b'u' => {
                self.at += 1;
                for _ in 0..4 {
                    if !self.byte().is_ascii_hexdigit() {
                        return Err(self.error(if self.at < self.text.len() { Why::Escape } else { Why::End }));
                    }
                    self.at += 1;
                }
                Ok(())
            }
            _ => Err(self.error(if self.at < self.text.len() { Why::Escape } else { Why::End })),
        }
    }
}

/// Skips escapes. `special`: a bit for each byte of `window` that is not plain text. `Ok`: the number of bytes skipped,
/// up to an escape that the window cuts off. `Err`: the number of bytes before one that is not part of a valid escape.
#[inline]
fn skip_escapes(window: &[u8; 64], mut special: u64) -> Result<usize, usize> {
    let byte = |at: usize| window.get(at).copied();
    while special != 0 {
        let at = special.trailing_zeros() as usize;
        match (byte(at), byte(at + 1)) {
            (Some(b'\\'), None) => return Ok(at),
            (Some(b'\\'), Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => {}
            (Some(b'\\'), Some(b'u')) => match window.get(at + 2..at + 6) {
                None => return Ok(at),
                Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => {}
                Some(_) => return Err(at),
            },
            _ => return Err(at),
        }
        // The escaped byte may itself be marked as special.
        special &= !(3 << at);
    }
    Ok(64)
}

/// Finds the bytes that a string cannot contain unescaped: `"`, `\` and control characters.
#[derive(Clone, Copy)]
struct Special {
    two: u8x16,
    space: u8x16,
    backslash: u8x16,
}

/// The patterns for a single use.
const SPECIAL: Special =
    Special { two: u8x16::new([2; 16]), space: u8x16::new([b' '; 16]), backslash: u8x16::new([b'\\'; 16]) };

impl Special {
    /// Returns the patterns hidden from the compiler: V8 would build a constant vector again at every use.
    #[inline]
    fn hidden() -> Self {
        let [two, space, backslash] = black_box([2, b' ', b'\\']).map(u8x16::splat);
        Self { two, space, backslash }
    }

    /// `"` differs from a space in one bit. With that bit flipped, `"` and every control character are no greater than
    /// a space, and every other byte is.
    #[inline]
    fn find(self, block: u8x16) -> u8x16 {
        let changed = block ^ self.two;
        changed.min(self.space).simd_eq(changed) | block.simd_eq(self.backslash)
    }
}

/// Returns sixteen bytes of `window` from `at` on.
#[inline]
fn sixteen(window: &[u8; 64], at: usize) -> u8x16 {
    let bytes = window.get(at..).and_then(|rest| rest.first_chunk::<16>());
    bytes.map_or(u8x16::ZERO, |bytes| u8x16::new(*bytes))
}

/// Returns the last bytes of a text, padded with zeros.
#[cold]
fn padded(rest: &[u8]) -> u8x16 {
    let mut padded = [0u8; 16];
    for (to, from) in padded.iter_mut().zip(rest) {
        *to = *from;
    }
    u8x16::new(padded)
}
