//! A quick hash for maps whose keys are of the policy. It does not withstand keys that somebody chooses, so no caller's words
//! may be among them.

use std::hash::{BuildHasherDefault, Hasher};

/// For `HashMap<K, V, QuickHash>`.
pub type QuickHash = BuildHasherDefault<QuickHasher>;

/// A word at a time: multiplied, and both halves of the product added without carry, as wyhash does it.
#[derive(Debug, Clone, Copy)]
pub struct QuickHasher(u64);

const START: u64 = 0x243f_6a88_85a3_08d3;
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Default for QuickHasher {
    fn default() -> Self {
        Self(START)
    }
}

impl QuickHasher {
    fn add(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word) * u128::from(FACTOR);
        self.0 = product as u64 ^ (product >> 64) as u64;
    }
}

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.add(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            self.add(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.add(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        self.add(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.add(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.add(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::hash::BuildHasher as _;

    #[test]
    fn names_that_differ_little_are_spread_well() {
        let names: Vec<String> = (0..4096).map(|n| format!("pointsman.quota.tenant-{n}")).collect();
        let of = |name: &String| QuickHash::default().hash_one(name);
        assert_eq!(names.iter().map(of).collect::<HashSet<_>>().len(), names.len());
        // As a map of twice as many places sees them: a random function would leave 39 % of 4096 without one of their own.
        let places = names.iter().map(|name| of(name) % 8192).collect::<HashSet<_>>().len();
        assert!(places > 3000, "{places}");
    }
}
