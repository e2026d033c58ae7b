//! The bytes of a record of users, and which of them make room for another.

use crate::policy::limits::{Limits, ScopeKey};
use crate::quota::counters::Counters;
use crate::quota::local::record;
use crate::quota::window::{Moment, Windows};
use crate::wire::bytes::{Reader, Writer};

const VERSION: u8 = 4;
const HEAD_BYTES: usize = 9;
const TAG_BYTES: usize = 8;

/// Places for users in a record. A record holds more only while all of them have running requests.
pub(super) const PLACES: usize = 16;

/// How long an idle user keeps its place in a record that has room, in milliseconds. Its day is remembered, because the
/// clock may jump back to the day before.
const IDLE_MS: u64 = 3_600_000;

/// Users that a record remembers to be counted in another one.
const MAX_AWAY: usize = 32;

/// Maximum number of users of a record while all of them have running requests. Without the secret, somebody who wants
/// that many in one record has to keep a multiple of the table's places busy.
pub(super) const MAX_RUNNING: usize = 64;

/// A record of users.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserRecord {
    /// How many of `away` have been forgotten. Wraps.
    forgotten: u32,
    /// Tags of the users that have their home here and are counted in their other record, in order.
    away: Vec<u64>,
    /// The users that are counted here.
    users: Vec<(ScopeKey, Counters)>,
}

impl UserRecord {
    /// Reads a record. Bytes of another format version, which only another version of the filter can have written, hold
    /// no users.
    pub fn decode(bytes: &[u8]) -> Self {
        let mut all = Self::default();
        let mut reader = Reader::new(bytes);
        if reader.u8() != Some(VERSION) {
            return all;
        }
        let (Some(forgotten), Some(away)) = (reader.u32(), reader.count()) else { return all };
        all.forgotten = forgotten;
        for _ in 0..away {
            let Some(tag) = reader.u64() else { return all };
            all.away.push(tag);
        }
        while let Some(user) = record::scope(&mut reader) {
            all.users.push(user);
        }
        all
    }

    /// Writes the record.
    pub fn encode(&self) -> Vec<u8> {
        let size = HEAD_BYTES + self.away.len() * TAG_BYTES + record::size(&self.users);
        let mut out = Writer::with_capacity(size);
        out.u8(VERSION);
        out.u32(self.forgotten);
        out.count(self.away.len());
        self.away.iter().for_each(|tag| out.u64(*tag));
        for (key, counters) in &self.users {
            record::write_scope(&mut out, key, counters);
        }
        out.finish()
    }

    /// Returns the number of users counted here.
    pub(super) fn len(&self) -> usize {
        self.users.len()
    }

    /// Returns the users counted here.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &ScopeKey> {
        self.users.iter().map(|(key, _)| key)
    }

    /// Returns a number that changes when a user that is counted elsewhere is forgotten.
    pub(super) fn forgotten(&self) -> u32 {
        self.forgotten
    }

    /// Returns a user's counters.
    pub(super) fn user(&mut self, key: &ScopeKey) -> Option<&mut Counters> {
        self.users.iter_mut().find(|(known, _)| known == key).map(|(_, counters)| counters)
    }

    /// Removes a user and returns its counters.
    pub(super) fn remove(&mut self, key: &ScopeKey) -> Option<Counters> {
        let at = self.users.iter().position(|(known, _)| known == key)?;
        Some(self.users.swap_remove(at).1)
    }

    /// Returns whether a user that has its home here is counted in its other record.
    pub(super) fn is_away(&self, tag: u64) -> bool {
        self.away.contains(&tag)
    }

    /// Notes that a user that has its home here is counted in its other record.
    pub(super) fn send_away(&mut self, tag: u64) {
        if self.away.len() >= MAX_AWAY {
            self.away.remove(0);
            self.forgotten = self.forgotten.wrapping_add(1);
        }
        self.away.push(tag);
    }

    /// Adds a user, which must not be counted here yet. If there is no room, evicts the one that has used the least of
    /// its windows, as long as `may_evict`. Returns how many were evicted, or `None` if there is no room.
    pub(super) fn insert(
        &mut self,
        key: &ScopeKey,
        counters: Counters,
        limits: &Limits,
        moment: &Moment,
        may_evict: bool,
    ) -> Option<u64> {
        // Advance each user by its own limits, or by none if it has none now.
        let unlimited = Windows::default();
        for (key, counters) in self.users.iter_mut().filter(|(_, counters)| !counters.is_idle()) {
            counters.catch_up(limits.user(key).unwrap_or(&unlimited), moment);
        }
        let is_full = self.users.len() >= PLACES;
        let is_old = |counters: &Counters| moment.now_ms.saturating_sub(counters.at_ms()) >= IDLE_MS;
        self.users.retain(|(_, counters)| !counters.is_idle() || !is_full && !is_old(counters));
        let mut evicted = 0;
        while self.users.len() >= PLACES {
            let all = self.users.iter().enumerate();
            let rank = |(at, (key, counters)): (usize, &(ScopeKey, Counters))| {
                let share = limits.user(key).map_or(0, |windows| counters.share(windows));
                (counters.is_running(), share, counters.at_ms(), at)
            };
            let Some((is_running, .., at)) = all.map(rank).min() else { break };
            // Nobody is refused because others are busy: while all are, the record grows.
            if is_running && self.users.len() < MAX_RUNNING {
                break;
            }
            if !may_evict {
                return None;
            }
            self.users.swap_remove(at);
            evicted += 1;
        }
        self.users.push((*key, counters));
        Some(evicted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_does_not_panic() {
        let counters = Counters { at_ms: 1, day_tokens: 2, ..Counters::default() };
        let mut record =
            UserRecord { users: vec![([1; 32], counters), ([2; 32], Counters::default())], ..UserRecord::default() };
        (0..40).for_each(|tag| record.send_away(tag));
        let bytes = record.encode();
        assert_eq!((UserRecord::decode(&bytes), bytes.len()), (record.clone(), bytes.capacity()));
        assert!(record.is_away(39) && record.is_away(8) && !record.is_away(7));
        assert_eq!(record.forgotten(), 8);
        for cut in 0..bytes.len() {
            let _ = UserRecord::decode(&bytes[..cut]);
        }
        for other in [&[3; 300][..], &[4; 300], b"", &[4, 0, 0, 0, 0, 255, 255, 255, 255]] {
            let _ = UserRecord::decode(other);
        }
        assert_eq!(UserRecord::decode(&[3; 300]), UserRecord::default());
    }
}
