//! How many tokens a text has, without a tokenizer.
//!
//! There are two answers. [`bound`] is an upper bound for prompts, and is what quotas reserve. [`TokenCounter`] is
//! close for ordinary text, and is what a stream is charged that broke off before its provider counted. It weighs
//! classes of characters, and hostile text can have some four times as many tokens.

pub mod bound;
pub mod sample;

use crate::wire::bytes::Reader;
use std::hint::black_box;
use wide::u8x16;

/// Weights in tokens × 64.
mod weight {
    /// An ASCII letter, in addition to the weight of its word.
    pub const LETTER: u64 = 6;
    /// The same in a block that is one run without a break. No word is that long, so it is random letters, or base64.
    pub const UNBROKEN: u64 = 50;
    /// The start of a run of letters.
    pub const WORD: u64 = 44;
    pub const SPACE: u64 = 20;
    /// A backslash, which in JSON is part of an escape.
    pub const ESCAPE: u64 = 24;
    /// A digit, or any other ASCII character.
    pub const SIGN: u64 = 60;
    /// A Latin letter with a diacritic, of two bytes (U+0080 to U+027F).
    pub const MARKED: u64 = 87;
    /// Any other character of two bytes.
    pub const TWO_BYTES: u64 = 64;
    /// A character of the block with the Latin letters that have two diacritics (U+1000 to U+1FFF).
    pub const TWICE_MARKED: u64 = 53;
    /// Any other character of three bytes: Chinese, Japanese, Korean.
    pub const THREE_BYTES: u64 = 82;
    pub const FOUR_BYTES: u64 = 192;
}

/// Counts of ASCII classes, for each of the sixteen bytes of a block.
#[derive(Clone, Copy)]
struct Sums {
    letters: u8x16,
    spaces: u8x16,
    escapes: u8x16,
}

/// The same for bytes outside ASCII.
#[derive(Clone, Copy)]
struct HighSums {
    high: u8x16,
    marked: u8x16,
    two: u8x16,
    twice: u8x16,
    three: u8x16,
    four: u8x16,
}

/// What blocks are compared with.
///
/// Hidden from the compiler: V8 rebuilds a vector that it knows to be constant wherever it is used.
#[derive(Clone, Copy)]
struct Patterns {
    /// The bit that distinguishes lower from upper case; also a space.
    small: u8x16,
    a: u8x16,
    last: u8x16,
    backslash: u8x16,
}

impl Patterns {
    fn new() -> Self {
        let [small, a, last, backslash] = black_box([b' ', b'a', 25, b'\\']).map(u8x16::splat);
        Self { small, a, last, backslash }
    }

    /// Returns a mask of the ASCII letters.
    #[inline]
    fn letters(self, block: u8x16) -> u8x16 {
        let from_a = (block | self.small) - self.a;
        from_a.min(self.last).simd_eq(from_a)
    }
}

impl Sums {
    const NONE: Self = Self { letters: u8x16::ZERO, spaces: u8x16::ZERO, escapes: u8x16::ZERO };

    /// Adds a block. `inside` says whether the byte before it is part of a word. Returns how many words begin, how many
    /// letters are part of an unbroken run, and whether the last byte is part of a word. A byte of a mask is 255, which
    /// is minus one.
    #[inline]
    fn add(&mut self, sums: &mut HighSums, is: Patterns, block: u8x16, inside: bool) -> (u32, u32, bool) {
        let letters = is.letters(block);
        self.letters -= letters;
        let spaces = block.simd_eq(is.small);
        self.spaces -= spaces;
        self.escapes -= block.simd_eq(is.backslash);
        // The highest bit of a byte is set outside ASCII.
        let high = block.to_bitmask();
        if high != 0 {
            sums.add(block);
        }
        let letters_at = letters.to_bitmask();
        // Most blocks of text have a space and need no closer look.
        let unbroken = match spaces.to_bitmask() {
            0 if is_unbroken(block, letters_at, high) => letters_at.count_ones(),
            _ => 0,
        };
        let words = letters_at | high;
        let begins = letters_at & !(words << 1 | u32::from(inside));
        (begins.count_ones(), unbroken, words >> 15 == 1)
    }
}

/// Counts the letters of unbroken runs in four ASCII blocks. `letters` and `spaces` have one bit for each byte.
#[inline(never)]
fn unbroken(window: &[u8; 64], letters: u64, spaces: u64) -> u64 {
    let of = |(i, block): (usize, &[u8; 16])| {
        let [letters, spaces] = [letters, spaces].map(|bits| (bits >> (16 * i)) as u16);
        match spaces {
            0 if is_unbroken(u8x16::new(*block), letters.into(), 0) => letters.count_ones(),
            _ => 0,
        }
    };
    window.as_chunks::<16>().0.iter().enumerate().map(of).map(u64::from).sum()
}

/// Returns whether a block without a space has at most one break, and that one within ASCII.
fn is_unbroken(block: u8x16, letters: u32, high: u32) -> bool {
    let breaks = !(letters | within(block, b'0', 10).to_bitmask()) & 0xffff;
    breaks & breaks.wrapping_sub(1) == 0 && (breaks & high) == 0
}

impl HighSums {
    const NONE: Self = Self {
        high: u8x16::ZERO,
        marked: u8x16::ZERO,
        two: u8x16::ZERO,
        twice: u8x16::ZERO,
        three: u8x16::ZERO,
        four: u8x16::ZERO,
    };

    /// Returns tokens × 64 of what is outside ASCII.
    fn total(&self) -> u64 {
        let [marked, two, twice, three, four] = [self.marked, self.two, self.twice, self.three, self.four].map(total);
        marked * weight::MARKED
            + two * weight::TWO_BYTES
            + twice * weight::TWICE_MARKED
            + three.saturating_sub(twice) * weight::THREE_BYTES
            + four * weight::FOUR_BYTES
    }

    // Not inlined, so that ASCII text does not carry these sums along.
    #[inline(never)]
    fn add(&mut self, block: u8x16) {
        self.high -= above(block, 0x7f);
        self.marked -= within(block, 0xc0, 0x0a);
        self.two -= within(block, 0xca, 0x16);
        self.twice -= block.simd_eq(u8x16::splat(0xe1));
        self.three -= within(block, 0xe0, 0x10);
        self.four -= above(block, 0xef);
    }
}

/// Returns a mask of the bytes from `first` on, `count` values in all.
#[inline]
fn within(block: u8x16, first: u8, count: u8) -> u8x16 {
    let from = block - u8x16::splat(first);
    from.min(u8x16::splat(count - 1)).simd_eq(from)
}

#[inline]
fn above(block: u8x16, bound: u8) -> u8x16 {
    block.max(u8x16::splat(bound + 1)).simd_eq(block)
}

/// Returns the sum of sixteen bytes: first four sums of up to 1020 each, and then their sum.
fn total(sums: u8x16) -> u64 {
    const BYTES: u64 = 0x00ff_00ff_00ff_00ff;
    let sums = sums.to_array();
    let (bytes, _) = sums.as_chunks::<8>();
    let [low, high] = [0, 1].map(|half| bytes.get(half).map_or(0, |bytes| u64::from_le_bytes(*bytes)));
    let pairs = (low & BYTES) + (low >> 8 & BYTES) + (high & BYTES) + (high >> 8 & BYTES);
    pairs.wrapping_mul(0x0001_0001_0001_0001) >> 48
}

/// The counts of a piece of text: by window where possible, else by block.
struct Piece {
    patterns: Patterns,
    sums: Sums,
    high: HighSums,
    /// Letters and spaces of windows, which are counted four blocks at a time.
    letters: u64,
    spaces: u64,
    /// How many words begin.
    words: u64,
    /// Letters of unbroken runs.
    unbroken: u64,
    /// Whether the last byte is part of a word.
    inside: bool,
}

impl Piece {
    /// A byte of `Sums` counts up to 255, so the totals are taken before one can overflow.
    const BYTES: usize = 16 * 255;

    fn block(&mut self, block: &[u8; 16]) {
        let (begun, of_run, inside) = self.sums.add(&mut self.high, self.patterns, u8x16::new(*block), self.inside);
        self.words += u64::from(begun);
        self.unbroken += u64::from(of_run);
        self.inside = inside;
    }

    /// Counts four blocks together if they are ASCII. Otherwise returns `false` and counts nothing.
    #[inline]
    fn window(&mut self, window: &[u8; 64]) -> bool {
        let is = self.patterns;
        let (blocks, _) = window.as_chunks::<16>();
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| blocks.get(i).map_or(u8x16::ZERO, |block| u8x16::new(*block)));
        if ((a | b) | (c | d)).to_bitmask() != 0 {
            return false;
        }
        let bits = |[a, b, c, d]: [u8x16; 4]| {
            let bits = |block: u8x16| u64::from(block.to_bitmask());
            bits(a) | bits(b) << 16 | bits(c) << 32 | bits(d) << 48
        };
        let spaces = bits([a, b, c, d].map(|block| block.simd_eq(is.small)));
        for block in [a, b, c, d] {
            self.sums.escapes -= block.simd_eq(is.backslash);
        }
        let letters = bits([a, b, c, d].map(|block| is.letters(block)));
        self.words += u64::from((letters & !(letters << 1 | u64::from(self.inside))).count_ones());
        self.letters += u64::from(letters.count_ones());
        self.spaces += u64::from(spaces.count_ones());
        self.inside = letters >> 63 == 1;
        // Most blocks of text have a space.
        let has_block_without = (spaces.wrapping_sub(LOWS) & !spaces & HIGHS) != 0;
        if has_block_without {
            self.unbroken += unbroken(window, letters, spaces);
        }
        true
    }

    /// Returns tokens × 64 of a piece of `bytes` bytes.
    fn total(&self, bytes: usize) -> u64 {
        let (sums, high) = (&self.sums, total(self.high.high));
        let [letters, spaces, escapes] = [sums.letters, sums.spaces, sums.escapes].map(total);
        let (letters, spaces) = (letters + self.letters, spaces + self.spaces);
        let signs = (bytes as u64).saturating_sub(letters + spaces + escapes + high);
        letters * weight::LETTER
            + self.unbroken * (weight::UNBROKEN - weight::LETTER)
            + self.words * weight::WORD
            + spaces * weight::SPACE
            + escapes * weight::ESCAPE
            + signs * weight::SIGN
            + if high == 0 { 0 } else { self.high.total() }
    }
}

/// The lowest and the highest bit of each of four 16-bit words.
const LOWS: u64 = 0x0001_0001_0001_0001;
const HIGHS: u64 = LOWS << 15;

/// Estimates tokens × 64 of a text, which may be JSON with escapes.
pub fn scaled_tokens(text: &[u8]) -> u64 {
    let patterns = Patterns::new();
    let (mut sum, mut inside) = (0u64, false);
    for text in text.chunks(Piece::BYTES) {
        let (sums, high) = (Sums::NONE, HighSums::NONE);
        let mut piece = Piece { patterns, sums, high, letters: 0, spaces: 0, words: 0, unbroken: 0, inside };
        let (windows, rest) = text.as_chunks::<64>();
        for window in windows {
            if !piece.window(window) {
                window.as_chunks::<16>().0.iter().for_each(|block| piece.block(block));
            }
        }
        let (blocks, rest) = rest.as_chunks::<16>();
        blocks.iter().for_each(|block| piece.block(block));
        inside = piece.inside;
        if !rest.is_empty() {
            // Padded with zeros, which are neither letters nor in any other sum. A run ends with the text.
            let mut block = [0u8; 16];
            block.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            let unbroken = piece.unbroken;
            piece.block(&block);
            piece.unbroken = unbroken;
        }
        sum += piece.total(text.len());
    }
    sum
}

/// Counts the tokens of a text that arrives in pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenCounter(u64);

impl TokenCounter {
    /// Adds a piece. If it begins within a word, that counts as the start of a word.
    pub fn push(&mut self, piece: &[u8]) {
        self.0 = self.0.saturating_add(scaled_tokens(piece));
    }

    /// Adds this many bytes without looking at them. Four bytes are about one token of English.
    pub fn push_unseen(&mut self, bytes: usize) {
        self.0 = self.0.saturating_add((bytes as u64).saturating_mul(16));
    }

    /// Adds the count of another counter.
    pub fn add(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }

    /// Returns whether nothing was counted.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the number of tokens, rounded up.
    pub fn tokens(self) -> u64 {
        self.0.div_ceil(64)
    }
}

/// Estimates the tokens of a text.
pub fn tokens(text: &[u8]) -> u64 {
    scaled_tokens(text).div_ceil(64)
}

/// The ratio of what a model's provider counts to the bound of [`bound`], for tokenizers that it does not cover. It is
/// learned from the provider's usage.
///
/// One answer moves it by at most 1/32 up or 1/128 down, whatever the usage. So it settles where one answer in five
/// counts more than the corrected bound, and odd prompts that are rarer than that cannot carry it along. It never falls
/// below one, where the bound holds as it is, and never rises above double.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Correction(u32);

impl Default for Correction {
    fn default() -> Self {
        Self(Self::ONE)
    }
}

impl Correction {
    const ONE: u32 = 1024;
    const LEAST: u32 = Self::ONE;
    const MOST: u32 = 2048;
    const RISE: u32 = 32;
    const FALL: u32 = 8;
    /// Smaller differences are ignored.
    const NEAR: u32 = 8;

    /// Decodes a stored correction. If nothing is stored, nothing has been learned.
    pub fn decode(record: &[u8]) -> Self {
        let known = Reader::new(record).u32().unwrap_or(Self::ONE);
        Self(known.clamp(Self::LEAST, Self::MOST))
    }

    /// Encodes the correction for the store.
    pub fn encode(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }

    /// Returns the corrected bound.
    pub fn apply(self, bound: u64) -> u64 {
        bound.saturating_mul(u64::from(self.0)).div_ceil(u64::from(Self::ONE))
    }

    /// Returns the correction after an answer whose input had this bound and was then counted. Bounds below 64 tokens
    /// change nothing, because short prompts say little.
    pub fn learn(self, bound: u64, counted: u64) -> Self {
        if bound < 64 || counted == 0 {
            return self;
        }
        let seen = counted.saturating_mul(u64::from(Self::ONE)) / bound;
        let seen = u32::try_from(seen).unwrap_or(Self::MOST).clamp(Self::LEAST, Self::MOST);
        let (above, below) = (seen.saturating_sub(self.0), self.0.saturating_sub(seen));
        match (above >= Self::NEAR, below >= Self::NEAR) {
            (true, _) => Self(self.0 + above.min(Self::RISE)),
            (_, true) => Self(self.0 - below.min(Self::FALL)),
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests;
