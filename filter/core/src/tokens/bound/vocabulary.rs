//! The first merges of a vocabulary: how many tokens they leave of a piece.

use std::ops::Range;

/// The longest piece whose merges are made. Longer ones count one token per byte, so that the time per byte is bounded.
pub(super) const MAX_PIECE: usize = 512;

/// Stands for two parts that do not merge.
const NONE: u16 = u16::MAX;

/// Single bytes are the first tokens.
const BYTES: usize = 256;

/// The first merges of a byte-level BPE vocabulary. A token's number is its rank: lower numbers merge first.
pub(super) struct Vocabulary {
    /// A hash table with open addressing: the two halves of a token and its number, 16 bits each. 0 is empty. No other
    /// two tokens ever merge to this one: while it is made, nothing outside it matters, so it is always made alike.
    merges: Vec<u64>,
    /// How far to shift a hash to get a place in the table.
    shift: u32,
    /// Merges of pieces with ASCII characters other than spaces end at this token. Of the tokens that follow, the table
    /// has only those without ASCII.
    ascii_end: u16,
}

impl Vocabulary {
    /// Builds the vocabulary from the generated table, in 16-bit words: the end of the tokens with ASCII, then the two
    /// halves of each token. Adds all tokens to `words`.
    pub fn new(table: &[u8], family: u32, words: &mut Words) -> Self {
        let (table, _) = table.as_chunks::<2>();
        let table: Vec<u16> = table.iter().map(|word| u16::from_le_bytes(*word)).collect();
        let (head, halves) = table.split_at_checked(1).unwrap_or_default();
        let (halves, _) = halves.as_chunks::<2>();
        let size = (halves.len() * 4 / 3).next_power_of_two().max(2);
        let ascii_end = head.first().copied().unwrap_or_default();
        let mut vocabulary = Self { merges: vec![0; size], shift: 32 - size.ilog2(), ascii_end };
        // The bytes of all tokens, to put halves together.
        let (mut pool, mut ends) = (Vec::new(), Vec::with_capacity(halves.len()));
        for halves @ [first, second] in halves {
            let number = (BYTES + ends.len()) as u16;
            vocabulary.insert(*first, *second, number);
            let start = pool.len();
            for half in halves {
                match u8::try_from(*half) {
                    Ok(byte) => pool.push(byte),
                    Err(_) => pool.extend_from_within(span(&ends, usize::from(*half) - BYTES)),
                }
            }
            ends.push(pool.len() as u32);
            words.insert(pool.get(start..).unwrap_or_default(), family);
        }
        vocabulary
    }

    fn place(&self, first: u16, second: u16) -> (u64, usize) {
        let halves = u32::from(first) << 16 | u32::from(second);
        (u64::from(halves) << 16, (halves.wrapping_mul(0x9e37_79b1) >> self.shift) as usize)
    }

    fn insert(&mut self, first: u16, second: u16, number: u16) {
        let (key, mut at) = self.place(first, second);
        let mask = self.merges.len() - 1;
        while let Some(slot) = self.merges.get_mut(at) {
            if *slot == 0 {
                *slot = key | u64::from(number);
                return;
            }
            at = (at + 1) & mask;
        }
    }

    /// Returns the token that two tokens make.
    #[inline]
    fn merged(&self, first: u16, second: u16, end: u16) -> u16 {
        let (key, mut at) = self.place(first, second);
        let mask = self.merges.len() - 1;
        while let Some(slot) = self.merges.get(at).filter(|slot| **slot != 0) {
            if (slot ^ key) >> 16 == 0 {
                let number = *slot as u16;
                return if number < end { number } else { NONE };
            }
            at = (at + 1) & mask;
        }
        NONE
    }

    /// Returns how many tokens are left of a piece that is no token.
    pub fn count(&self, piece: &[u8]) -> u64 {
        let has_ascii = || piece.iter().any(|byte| byte.is_ascii() && *byte != b' ');
        let end = if has_ascii() { self.ascii_end } else { NONE };
        match piece.len() {
            0..=1 => piece.len() as u64,
            2..=24 => self.merge::<24>(piece, end),
            25..=MAX_PIECE => self.merge::<MAX_PIECE>(piece, end),
            longer => longer as u64,
        }
    }

    /// Makes the merges up to the token `end` in a piece of up to `N` bytes.
    fn merge<const N: usize>(&self, piece: &[u8], end: u16) -> u64 {
        // The parts, and the token that each makes with the part after it.
        let (mut parts, mut merged) = ([0u16; N], [NONE; N]);
        let mut count = piece.len().min(N);
        for (part, byte) in parts.iter_mut().zip(piece) {
            *part = u16::from(*byte);
        }
        for (merged, pair) in merged.iter_mut().zip(piece.windows(2)) {
            if let [first, second] = pair {
                *merged = self.merged(u16::from(*first), u16::from(*second), end);
            }
        }
        while let Some(pairs) = merged.get(..count.saturating_sub(1)) {
            let first = pairs.iter().fold(NONE, |first, token| first.min(*token));
            if first == NONE {
                break;
            }
            let Some(at) = pairs.iter().position(|token| *token == first) else { break };
            parts.copy_within(at + 1..count, at);
            merged.copy_within(at + 1..count, at);
            count -= 1;
            if let Some(part) = parts.get_mut(at) {
                *part = first;
            }
            let part = |at: usize| parts.get(at).copied().unwrap_or_default();
            if let Some(merged) = merged.get_mut(at) {
                *merged = if at + 1 < count { self.merged(first, part(at + 1), end) } else { NONE };
            }
            if let Some(before) = at.checked_sub(1)
                && let Some(merged) = merged.get_mut(before)
            {
                *merged = self.merged(part(before), first, end);
            }
        }
        count as u64
    }
}

fn span(ends: &[u32], index: usize) -> Range<usize> {
    let end = |index: usize| ends.get(index).map_or(0, |end| *end as usize);
    index.checked_sub(1).map_or(0, end)..end(index)
}

/// The tokens of all vocabularies, found by their bytes: tokenizers look a piece up before they merge.
pub(super) struct Words {
    /// The bytes of all tokens, one after the other.
    pool: Vec<u8>,
    /// Where each token ends in the pool, and which families have it.
    ends: Vec<u32>,
    families: Vec<u8>,
    /// A hash table with open addressing: the upper half of a token's hash, and its index plus one. 0 is empty.
    slots: Vec<u32>,
}

impl Words {
    /// Makes room for up to this many tokens.
    pub fn new(most: usize) -> Self {
        let slots = vec![0; (most * 4 / 3).next_power_of_two().max(2)];
        Self { pool: Vec::new(), ends: Vec::new(), families: Vec::new(), slots }
    }

    /// Returns the place of a token in the table: its own, or the empty one where it belongs.
    fn place(&self, token: &[u8]) -> (u32, usize, Option<usize>) {
        let hash = hash(token);
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while let Some(slot) = self.slots.get(at).filter(|slot| **slot != 0) {
            if (slot ^ hash) & 0xffff_0000 == 0 {
                let index = usize::from(*slot as u16) - 1;
                if self.pool.get(span(&self.ends, index)).is_some_and(|known| known == token) {
                    return (hash, at, Some(index));
                }
            }
            at = (at + 1) & mask;
        }
        (hash, at, None)
    }

    fn insert(&mut self, token: &[u8], family: u32) {
        let bit = 1u8 << family;
        let (hash, at, known) = self.place(token);
        if let Some(families) = known.and_then(|index| self.families.get_mut(index)) {
            *families |= bit;
        } else if self.ends.len() + 1 < usize::from(u16::MAX) && self.ends.len() + 1 < self.slots.len() {
            self.pool.extend_from_slice(token);
            self.ends.push(self.pool.len() as u32);
            self.families.push(bit);
            if let Some(slot) = self.slots.get_mut(at) {
                *slot = hash & 0xffff_0000 | self.ends.len() as u32;
            }
        }
    }

    /// Returns the families that have this piece as one token, one bit for each.
    pub fn families(&self, piece: &[u8]) -> u8 {
        self.place(piece).2.and_then(|index| self.families.get(index)).copied().unwrap_or_default()
    }
}

/// Hashes the bytes of a token.
fn hash(bytes: &[u8]) -> u32 {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash.rotate_left(29) ^ word).wrapping_mul(FACTOR);
    let length = bytes.len() as u64;
    let hash = if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        let middle = bytes.get(8..bytes.len() - 8).unwrap_or_default().as_chunks::<8>().0;
        let hash = middle.iter().fold(length, |hash, word| mix(hash, u64::from_le_bytes(*word)));
        mix(mix(hash, u64::from_le_bytes(*first)), u64::from_le_bytes(*last))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        mix(length, u64::from(first) << 32 | u64::from(last))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<2>(), bytes.last_chunk::<2>()) {
        let (first, last) = (u16::from_le_bytes(*first), u16::from_le_bytes(*last));
        mix(length, u64::from(first) << 16 | u64::from(last))
    } else {
        0
    };
    (hash >> 32) as u32 ^ hash as u32
}
