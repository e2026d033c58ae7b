//! Where a tenant's users are counted: two records for each user, chosen by a hash under a secret.
//!
//! The hash is keyed, so a caller cannot choose user ids that share a record with another user's. Each user has a home
//! record and one other, and is counted in exactly one of them. With that choice, a table of twice as many places as
//! `quota.users` has room for all of them: the tests insert that many.
//!
//! All workers of an Envoy use the same secret and the same number of records, which they agree on in shared data. When
//! the policy changes `quota.users`, they remember the former numbers, so that a user's counters move along.

use crate::policy::limits::ScopeKey;
use crate::store::secret::Secret;
use crate::store::shared_data::SharedData;
use crate::wire::bytes::{Reader, Writer};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::hash::Hasher as _;

/// Users per record if all of `quota.users` are active: half of the places.
const USERS_PER_RECORD: u32 = 8;

/// Former numbers of records that are remembered.
const MAX_FORMER: usize = 3;

/// The record of the secret and the numbers of records.
const AGREED: &str = "pointsman.quota.users";
const VERSION: u8 = 1;
/// Tries to agree. Each failure means that another worker wrote, and only a new policy makes one write.
const TRIES: usize = 16;

/// The places of users, the same in all workers.
#[derive(Debug, Clone)]
pub struct UserTable {
    secret: Secret,
    /// The number of records, at least two, and the former ones, the latest first.
    records: Vec<u32>,
}

/// The records of one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Places {
    /// The record that is looked up first. It says whether the user is in the other one.
    pub home: u32,
    pub other: u32,
    /// Identifies the user in its home record while it is counted in the other one.
    pub tag: u64,
}

impl Default for UserTable {
    /// Creates the smallest table.
    fn default() -> Self {
        Self::new(0)
    }
}

impl UserTable {
    /// Creates a table with room for this many active users, under a secret of its own.
    pub fn new(users: u32) -> Self {
        Self { secret: Secret::default(), records: vec![records(users)] }
    }

    /// Adopts the secret that the workers of this Envoy agreed on, or offers its own, and makes the table one for
    /// `users` active users.
    pub fn agree(&mut self, data: &mut dyn SharedData, users: u32) {
        let wanted = records(users);
        for _ in 0..TRIES {
            let (record, version) = data.get(AGREED);
            if let Some(agreed) = Self::decode(&record) {
                *self = agreed;
            } else {
                self.records.clear();
            }
            if self.records.first() == Some(&wanted) {
                return;
            }
            self.records.retain(|former| *former != wanted);
            self.records.insert(0, wanted);
            self.records.truncate(1 + MAX_FORMER);
            if data.set(AGREED, &self.encode(), version) {
                return;
            }
        }
    }

    fn decode(record: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(record);
        let version = reader.u8()?;
        let secret = Secret::from_bytes(*reader.array()?);
        let mut records = Vec::new();
        while let Some(count) = reader.u32() {
            records.push(count);
        }
        let is_valid = version == VERSION && (1..=1 + MAX_FORMER).contains(&records.len());
        (is_valid && records.iter().all(|count| *count >= 2)).then_some(Self { secret, records })
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(17 + 4 * self.records.len());
        out.u8(VERSION);
        out.raw(&self.secret.to_bytes());
        self.records.iter().for_each(|count| out.u32(*count));
        out.finish()
    }

    /// Returns the current places of a user.
    pub(super) fn places(&self, user: &ScopeKey) -> Places {
        places(self.hash(user), self.records.first().copied().unwrap_or(2))
    }

    /// Returns where the user was before `quota.users` changed.
    pub(super) fn former(&self, user: &ScopeKey) -> impl Iterator<Item = Places> {
        let hash = self.hash(user);
        self.records.iter().skip(1).map(move |count| places(hash, *count))
    }

    /// Returns whether `quota.users` has changed.
    pub(super) fn has_former(&self) -> bool {
        self.records.len() > 1
    }

    fn hash(&self, user: &ScopeKey) -> u128 {
        let (a, b) = self.secret.words();
        let mut hasher = SipHasher13::new_with_keys(a, b);
        hasher.write(user);
        hasher.finish128().as_u128()
    }
}

/// Returns the number of records for this many active users.
fn records(users: u32) -> u32 {
    users.div_ceil(USERS_PER_RECORD).max(2)
}

fn places(hash: u128, records: u32) -> Places {
    let (first, second, count) = (hash as u64, (hash >> 64) as u64, u64::from(records.max(2)));
    let home = first % count;
    let other = (home + 1 + second % (count - 1)) % count;
    // A tag that was written for another number of records means another record.
    let tag = (first ^ count).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Places { home: home as u32, other: other as u32, tag }
}

/// Returns the name of a record of users.
pub(super) fn name(tenant_record: &str, place: u32) -> String {
    // A tenant's name cannot contain `#`.
    format!("{tenant_record}#{place}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::shared_data::NEW;
    use std::collections::{BTreeSet, HashMap};

    #[derive(Default)]
    struct Data(HashMap<String, (Vec<u8>, u32)>);

    impl SharedData for Data {
        fn get(&mut self, name: &str) -> (Vec<u8>, u32) {
            self.0.get(name).cloned().unwrap_or((Vec::new(), NEW))
        }
        fn set(&mut self, name: &str, record: &[u8], version: u32) -> bool {
            let now = self.0.get(name).map_or(NEW, |(_, version)| *version);
            let is_current = now == version;
            if is_current {
                self.0.insert(name.to_owned(), (record.to_vec(), now.wrapping_add(2)));
            }
            is_current
        }
    }

    #[test]
    fn all_workers_of_an_envoy_find_a_user_in_the_same_records_and_those_of_another_envoy_do_not() {
        let all_places = |table: &UserTable| (0..64).map(|n| table.places(&[n; 32])).collect::<Vec<_>>();
        let (mut data, mut one, mut two) = (Data::default(), UserTable::new(1024), UserTable::new(1024));
        assert_ne!(all_places(&one), all_places(&two));
        one.agree(&mut data, 1024);
        two.agree(&mut data, 1024);
        assert_eq!(all_places(&one), all_places(&two));
        two = UserTable::new(1024);
        two.agree(&mut Data::default(), 1024);
        assert_ne!(all_places(&one), all_places(&two));
    }

    #[test]
    fn users_who_share_a_record_under_one_secret_do_not_under_another() {
        let key = |n: u32| {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&n.to_le_bytes());
            key
        };
        let known = UserTable::new(1024);
        let victim = known.places(&key(0));
        let chosen: Vec<u32> = (1..200_000)
            .filter(|n| {
                let places = known.places(&key(*n));
                BTreeSet::from([places.home, places.other]) == BTreeSet::from([victim.home, victim.other])
            })
            .take(16)
            .collect();
        assert_eq!(chosen.len(), 16);
        let another = UserTable::new(1024);
        let homes: BTreeSet<u32> = chosen.iter().map(|n| another.places(&key(*n)).home).collect();
        assert!(homes.len() > 8, "{homes:?}");
    }

    #[test]
    fn both_records_exist_and_differ() {
        for count in [2, 3, 128, 8192] {
            for n in 0..=255_u8 {
                let Places { home, other, .. } = places(u128::from_be_bytes([n; 16]) >> (n % 64), count);
                assert!(home < count && other < count && home != other, "{count} {n}");
            }
        }
    }

    #[test]
    fn the_numbers_of_records_before_are_remembered_and_damage_is_replaced() {
        let (mut data, mut table) = (Data::default(), UserTable::new(16));
        for users in [16, 1024, 16, 4096, 100, 65_536, 50] {
            table.agree(&mut data, users);
            let mut other = UserTable::new(users);
            other.agree(&mut data, users);
            assert_eq!((&other.records, other.records[0]), (&table.records, records(users)));
        }
        assert_eq!(table.records, [7, 8192, 13, 512]);
        let version = data.get(AGREED).1;
        assert!(data.set(AGREED, b"damaged", version));
        table.agree(&mut data, 16);
        assert_eq!(table.records, [2]);
    }
}
