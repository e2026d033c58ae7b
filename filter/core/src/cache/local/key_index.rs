//! Cache keys of answered questions, in data that all workers of this Envoy share: once one worker knows a key, another
//! one need not hash the question with SHA-256 for its own first hit.
//!
//! As in [`crate::cache::local::key_memo`], no decision depends on the index. A worker that has stored an answer, or
//! has computed the key of one, writes fingerprint and key to the fingerprint's bucket. A bucket holds up to six of
//! them, and the oldest are dropped first. If another worker overwrites a record, or the bucket is damaged, the
//! question is unknown and its key is computed. The host's store has no delete, so the number of buckets is fixed.
//! Their memory is a share of the cache's memory that the table of answers does not get.

use crate::cache::key::Key;
use crate::cache::local::key_memo::Fingerprint;
use crate::store::shared_data::{NEW, RECORD_COST, SharedData};
use crate::wire::bytes::{Reader, Writer};

/// The index under one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedKeyIndex {
    buckets: u32,
}

/// Maximum bytes of a bucket.
const BUCKET: usize = 512;
/// Maximum bytes of a bucket, including the host's overhead.
pub const BUCKET_COST: u64 = RECORD_COST + BUCKET as u64;
/// The buckets get one part in `SHARE` of the cache's memory.
const SHARE: u64 = 8;
const MAX_BUCKETS: u64 = 1 << 17;
/// Maximum bytes of an identity. Only the worker on which it hit knows a question with a longer one.
const MAX_IDENTITY: usize = 128;
/// Bytes of hash and key.
const FIXED: usize = 16 + 32;

impl SharedKeyIndex {
    /// Sizes the index for a cache that is limited to `memory_bytes`.
    pub fn within(memory_bytes: u64) -> Self {
        Self { buckets: (memory_bytes / SHARE / BUCKET_COST).clamp(1, MAX_BUCKETS) as u32 }
    }

    /// Returns the maximum bytes of all buckets together.
    pub fn max_bytes(self) -> u64 {
        u64::from(self.buckets) * BUCKET_COST
    }

    fn name(self, fingerprint: &Fingerprint) -> String {
        let bucket = (fingerprint.hash >> 64) as u64 % u64::from(self.buckets);
        let mut digits = itoa::Buffer::new();
        ["pointsman.known.", digits.format(bucket)].concat()
    }

    /// Returns the key of the question with this fingerprint, if the index has it.
    pub fn lookup(self, data: &mut dyn SharedData, fingerprint: &Fingerprint) -> Option<Key> {
        if fingerprint.identity.len() > MAX_IDENTITY {
            return None;
        }
        let (bucket, _) = data.get(&self.name(fingerprint));
        Known::all(&bucket).find(|known| known.is(fingerprint)).map(|known| Key(*known.key))
    }

    /// Adds the key of a question for the other workers. Returns `true` if this wrote the bucket for the first time.
    pub fn insert(self, data: &mut dyn SharedData, fingerprint: &Fingerprint, key: &Key) -> bool {
        let Ok(len) = u8::try_from(fingerprint.identity.len()) else { return false };
        if usize::from(len) > MAX_IDENTITY {
            return false;
        }
        let name = self.name(fingerprint);
        let (before, version) = data.get(&name);
        let mut first = Writer::with_capacity(BUCKET);
        first.u8(len);
        first.u128(fingerprint.hash);
        first.raw(&key.0);
        first.raw(&fingerprint.identity);
        let mut bucket = first.finish();
        for known in Known::all(&before).filter(|known| !known.is(fingerprint)) {
            if bucket.len() + known.whole.len() > BUCKET {
                break;
            }
            bucket.extend_from_slice(known.whole);
        }
        // After a lost race, the other worker's record is just as useful.
        data.set(&name, &bucket, version) && version == NEW
    }
}

/// One record of a bucket.
struct Known<'a> {
    whole: &'a [u8],
    hash: u128,
    key: &'a [u8; 32],
    identity: &'a [u8],
}

impl<'a> Known<'a> {
    /// Iterates over the records of a bucket, up to the first unreadable one.
    fn all(mut bucket: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let mut reader = Reader::new(bucket);
            let len = usize::from(reader.u8()?);
            let (hash, key, identity) = (reader.u128()?, reader.array()?, reader.raw(len)?);
            let whole = bucket.get(..1 + FIXED + len)?;
            bucket = reader.rest();
            Some(Self { whole, hash, key, identity })
        })
    }

    fn is(&self, fingerprint: &Fingerprint) -> bool {
        self.hash == fingerprint.hash && *self.identity == *fingerprint.identity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fixture::Memory;

    fn print(hash: u128, identity: &[u8]) -> Fingerprint {
        Fingerprint { hash, identity: identity.into() }
    }

    /// Has a single bucket.
    const ONE: SharedKeyIndex = SharedKeyIndex { buckets: 1 };

    #[test]
    fn a_key_is_found_by_its_whole_fingerprint_alone() {
        let mut data = Memory::default();
        assert_eq!(ONE.lookup(&mut data, &print(1, b"acme")), None);
        assert!(ONE.insert(&mut data, &print(1, b"acme"), &Key([1; 32])));
        assert!(!ONE.insert(&mut data, &print(1, b"emca"), &Key([2; 32])));
        assert!(!ONE.insert(&mut data, &print(2, b"acme"), &Key([3; 32])));
        let mut find = |hash, identity: &[u8]| ONE.lookup(&mut data, &print(hash, identity)).map(|key| key.0[0]);
        assert_eq!([find(1, b"acme"), find(1, b"emca"), find(2, b"acme")], [Some(1), Some(2), Some(3)]);
        assert_eq!([find(2, b"emca"), find(1, b"acm"), find(1, b"acmee"), find(3, b"")], [None; 4]);
    }

    #[test]
    fn the_newest_stay_and_none_takes_more_than_its_bucket() {
        let mut data = Memory::default();
        for n in 0..100_u8 {
            ONE.insert(&mut data, &print(n.into(), &[n; 27]), &Key([n; 32]));
            // The same question again takes no more room.
            ONE.insert(&mut data, &print(n.into(), &[n; 27]), &Key([n; 32]));
            assert!(data.0.values().all(|(bucket, _)| bucket.len() <= BUCKET));
        }
        let known: Vec<u8> =
            (0..100).filter(|n| ONE.lookup(&mut data, &print((*n).into(), &[*n; 27])).is_some()).collect();
        assert_eq!(known, [94, 95, 96, 97, 98, 99]);
        for n in 0..10 {
            ONE.insert(&mut data, &print(n, &[0; MAX_IDENTITY]), &Key([7; 32]));
        }
        assert_eq!(ONE.lookup(&mut data, &print(9, &[0; MAX_IDENTITY])), Some(Key([7; 32])));
        assert_eq!(ONE.lookup(&mut data, &print(7, &[0; MAX_IDENTITY])), None);
        assert!(!ONE.insert(&mut data, &print(1, &[0; MAX_IDENTITY + 1]), &Key([7; 32])));
        assert!(!ONE.insert(&mut data, &print(1, &[0; 300]), &Key([7; 32])));
        assert_eq!(ONE.lookup(&mut data, &print(1, &[0; MAX_IDENTITY + 1])), None);
    }

    #[test]
    fn what_cannot_be_read_is_not_known() {
        let mut data = Memory::default();
        ONE.insert(&mut data, &print(2, b"second"), &Key([2; 32]));
        ONE.insert(&mut data, &print(1, b"first"), &Key([1; 32]));
        let whole = data.0["pointsman.known.0"].0.clone();
        for cut in 0..whole.len() {
            data.0.insert("pointsman.known.0".to_owned(), (whole[..cut].to_vec(), 1));
            let second = ONE.lookup(&mut data, &print(2, b"second"));
            assert_eq!(second, None, "{cut}");
        }
        data.0.insert("pointsman.known.0".to_owned(), (vec![0xff; 600], 1));
        assert_eq!(ONE.lookup(&mut data, &print(1, b"first")), None);
        assert!(!ONE.insert(&mut data, &print(1, b"first"), &Key([1; 32])), "it was there before");
        assert_eq!(ONE.lookup(&mut data, &print(1, b"first")), Some(Key([1; 32])));
    }

    #[test]
    fn who_is_slower_leaves_what_is_there() {
        struct Race(Memory);
        impl SharedData for Race {
            fn get(&mut self, name: &str) -> (Vec<u8>, u32) {
                let seen = self.0.get(name);
                self.0.set(name, b"another's", seen.1);
                seen
            }
            fn set(&mut self, name: &str, record: &[u8], version: u32) -> bool {
                self.0.set(name, record, version)
            }
        }
        let mut race = Race(Memory::default());
        assert!(!ONE.insert(&mut race, &print(1, b"a"), &Key([1; 32])));
        assert_eq!(race.0.0["pointsman.known.0"].0, b"another's");
    }

    #[test]
    fn they_take_an_eighth_of_the_memory_and_many_fit() {
        for memory in [1 << 20, 64 << 20, 1 << 34] {
            let index = SharedKeyIndex::within(memory);
            assert!(index.max_bytes() <= memory / SHARE);
            let spread: std::collections::HashSet<String> = (0..10_000_u128)
                .map(|n| index.name(&print(n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835), b"")))
                .collect();
            assert!(spread.len() >= (index.buckets as usize).min(5000), "{}", spread.len());
        }
        assert_eq!(SharedKeyIndex::within(64 << 20).buckets, 12_483);
    }
}
