//! The local store: a bounded, set-associative table in data that all workers of one Envoy share.
//!
//! The host's store has no delete, and a key costs memory permanently. So keys are slots, of which there is a fixed
//! number. An entry may be in any of the four slots of its set. A slot changes in one atomic step, and the bytes held
//! are counted with it. Space is reserved before a slot is written and released afterwards, so that the bytes held
//! never exceed the count, nor the count the limit. If there is no room, a clock hand goes round the slots, a stretch
//! at a time. In each stretch it frees the expired entries first and then, if that is not enough, others.
//!
//! One tenant can take all that is free. But when an entry needs the room of another, a tenant that holds more than its
//! share evicts its own entries only, and the others evict those of such tenants first.
//!
//! A lower limit means fewer slots. The entries in the other slots are freed like any entry. The host keeps the memory
//! for those slots until it restarts, but it does not count against a later limit, so that the smaller table has its
//! full room.

use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::local::holdings::{Holdings, Owner};
use crate::cache::local::key_index::BUCKET_COST;
use crate::store::shared_data::{NEW, RECORD_COST, SharedData};
use crate::wire::bytes::{Reader, Writer};

/// The table under one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Maximum bytes that the table may hold, including its own bookkeeping.
    pub limit: u64,
    /// The bytes of these that one tenant may hold when others need room.
    pub share: u64,
}

/// The counts of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Bytes of entries.
    pub entries: u64,
    /// Slots that were ever written. Each costs [`RECORD_COST`] permanently.
    pub written: u32,
    /// All written slots are below this number.
    end: u32,
    /// Position of the clock hand.
    hand: u32,
    /// Buckets of [`crate::cache::local::key_index`] that were ever written.
    buckets: u32,
    holdings: Holdings,
}

/// An entry that was in a slot: its bytes, and its tenant if they are those of an entry.
#[derive(Debug, Clone, Copy)]
struct Old {
    bytes: u64,
    owner: Option<Owner>,
}

/// Which entries the hand may free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victims {
    Expired,
    /// Of this tenant.
    Own(Owner),
    /// Of tenants that hold more than their share.
    Over,
    Any,
}

const WAYS: u32 = 4;
/// Approximate minimum bytes of an entry, including the cost of its slot. More slots than such entries are of no use.
const MIN_ENTRY: u64 = 1024;
const MAX_SLOTS: u64 = 1 << 18;
/// Slots that the hand examines for one entry, so that no request scans much of the table. The hand examines two more
/// for each `MIN_ENTRY` bytes of the entry.
const MAX_STEPS: usize = 64;
/// Slots that the hand claims at a time, and the maximum when much space is missing.
const STRETCH: u32 = 8;
const MAX_STRETCH: u32 = 128;
const TRIES: usize = 100;

const TOTAL: &str = "pointsman.cache.total";

fn name(slot: u32) -> String {
    // Runs up to four times per request, so it avoids `format!`.
    ["pointsman.cache.", &slot.to_string()].concat()
}

impl Table {
    fn slots(self) -> u32 {
        (self.limit / MIN_ENTRY).clamp(u64::from(WAYS), MAX_SLOTS).next_multiple_of(u64::from(WAYS)) as u32
    }

    /// Returns the slots of the key's set, starting with one that depends on the key.
    fn set_of(self, key: &Key) -> impl Iterator<Item = u32> + use<> {
        let [a, b, c, d, way, ..] = key.0;
        let first = u32::from_le_bytes([a, b, c, d]) % (self.slots() / WAYS) * WAYS;
        (0..WAYS).map(move |i| first + (u32::from(way) + i) % WAYS)
    }

    /// Returns the tenant's entry of this key, whatever its age.
    pub fn lookup(self, data: &mut dyn SharedData, key: &Key, tenant: &str) -> Option<Entry> {
        self.set_of(key).find_map(|slot| {
            let (record, _) = data.get(&name(slot));
            Entry::decode(&record, key, tenant)
        })
    }

    /// Stores the encoded entry of `key` in place of an older one. Returns `false` if there was no room, or if other
    /// workers won every race.
    pub fn insert(self, data: &mut dyn SharedData, key: &Key, record: &[u8], now_ms: u64) -> bool {
        let need = record.len() as u64;
        let owner = Owner::of(Entry::peek(record).map_or("", |entry| entry.tenant));
        for _ in 0..TRIES {
            let Some((slot, old, version)) = self.place(data, key, owner, need, now_ms) else { return false };
            // A slot without a record will permanently cost its own bytes.
            let is_new = version == NEW;
            if !self.make_room(data, (owner, need), is_new, now_ms, slot) {
                return false;
            }
            if data.set(&name(slot), record, version) {
                if old.bytes > 0 || is_new {
                    count(data, |held| {
                        held.remove(old);
                        held.end = held.end.max(slot + 1);
                    });
                }
                return true;
            }
            count(data, |held| {
                held.remove(Old { bytes: need, owner: Some(owner) });
                held.written = held.written.saturating_sub(u32::from(is_new));
            });
        }
        false
    }

    /// Chooses the slot of an entry: that of its older self, else an empty one, else an expired one, else the oldest of
    /// those that the tenant may evict. Also returns what is in the slot and its version.
    fn place(
        self,
        data: &mut dyn SharedData,
        key: &Key,
        owner: Owner,
        need: u64,
        now_ms: u64,
    ) -> Option<(u32, Old, u32)> {
        let mut taken = Vec::new();
        let mut best: Option<(u64, u32, Old, u32)> = None;
        for slot in self.set_of(key) {
            let (record, version) = data.get(&name(slot));
            let entry = Entry::peek(&record);
            let old = Old { bytes: record.len() as u64, owner: entry.map(|entry| Owner::of(entry.tenant)) };
            let rank = match entry {
                Some(entry) if entry.key == *key => return Some((slot, old, version)),
                None => 0,
                Some(entry) if entry.expires_ms <= now_ms => 1,
                Some(entry) => {
                    taken.push((entry.created_ms, slot, old, version));
                    continue;
                }
            };
            if best.is_none_or(|(least, ..)| rank < least) {
                best = Some((rank, slot, old, version));
            }
        }
        if let Some((_, slot, old, version)) = best {
            return Some((slot, old, version));
        }
        let held = Self::occupancy(data).holdings;
        let own = held.weight(owner, MIN_ENTRY, Some(need));
        let has_too_much = own > self.share;
        // First those of tenants with too much, then of those who hold as much as this one, each by age.
        let rank = |(created, _, old, _): &(u64, u32, Old, u32)| {
            let weight = old.owner.map_or(0, |other| held.weight(other, MIN_ENTRY, (other == owner).then_some(need)));
            (weight <= self.share, weight < own, *created)
        };
        let may = |(.., old, _): &&(u64, u32, Old, u32)| !has_too_much || old.owner == Some(owner);
        let oldest = taken.iter().filter(may).min_by_key(|entry| rank(entry));
        oldest.map(|(_, slot, old, version)| (*slot, *old, *version))
    }

    /// Returns the bytes that count against the limit. Slots beyond those of this table do not count.
    fn used(self, held: &Occupancy) -> u64 {
        held.entries.saturating_add(RECORD_COST * u64::from(held.written.min(self.slots())))
    }

    /// Reserves `need` bytes for a tenant's entry, and the cost of a new slot. Frees other slots if necessary, but never
    /// `slot`.
    fn make_room(
        self,
        data: &mut dyn SharedData,
        (owner, need): (Owner, u64),
        is_new: bool,
        now_ms: u64,
        slot: u32,
    ) -> bool {
        if need > self.limit {
            return false;
        }
        let mut steps = 0;
        for _ in 0..TRIES {
            let (record, version) = data.get(TOTAL);
            let mut held = Occupancy::decode(&record);
            let has_too_much = held.holdings.weight(owner, MIN_ENTRY, Some(need)) > self.share;
            let before = held.clone();
            held.add(owner, need);
            held.written = held.written.saturating_add(u32::from(is_new));
            let mut missing = self.used(&held).saturating_sub(self.limit);
            if missing == 0 {
                if data.set(TOTAL, &held.encode(), version) {
                    return true;
                }
                continue;
            }
            let most = MAX_STEPS + (2 * need / MIN_ENTRY) as usize;
            if steps >= most {
                return false;
            }
            held = before;
            // Claim the next stretch, so that another worker gets the one after it.
            let short = u32::try_from(missing / MIN_ENTRY).unwrap_or(u32::MAX);
            let stretch = short.clamp(STRETCH, MAX_STRETCH).min(held.end);
            let first = held.hand;
            held.hand = ahead(first, stretch, held.end);
            if !data.set(TOTAL, &held.encode(), version) {
                continue;
            }
            // First the expired entries of this stretch, then others.
            let others = match held.holdings.has_over(self.share, MIN_ENTRY) {
                _ if has_too_much => Victims::Own(owner),
                true if steps < most / 2 => Victims::Over,
                _ => Victims::Any,
            };
            for victims in [Victims::Expired, others] {
                for i in 0..stretch {
                    let other = ahead(first, i, held.end);
                    if missing > 0 && other != slot {
                        missing = missing.saturating_sub(self.free(data, other, (victims, &held.holdings), now_ms));
                    }
                }
            }
            steps += stretch.max(1) as usize;
        }
        false
    }

    /// Empties a slot if its entry is among the victims. Returns the bytes that this freed.
    fn free(self, data: &mut dyn SharedData, slot: u32, (victims, holdings): (Victims, &Holdings), now_ms: u64) -> u64 {
        let (record, version) = data.get(&name(slot));
        let Some(entry) = Entry::peek(&record) else { return 0 };
        // Slots beyond this policy's belonged to one with a higher limit. No lookup reaches them any more.
        let is_lost = slot >= self.slots();
        let owner = Owner::of(entry.tenant);
        let may = is_lost
            || entry.expires_ms <= now_ms
            || match victims {
                Victims::Expired => false,
                Victims::Own(own) => owner == own,
                Victims::Over => holdings.weight(owner, MIN_ENTRY, None) > self.share,
                Victims::Any => true,
            };
        if !may || !data.set(&name(slot), b"", version) {
            return 0;
        }
        let freed = record.len() as u64;
        count(data, |held| held.remove(Old { bytes: freed, owner: Some(owner) }));
        freed
    }

    /// Counts a bucket of [`crate::cache::local::key_index`] that was written for the first time. Buckets have their
    /// own part of the cache's memory and use none of the table's.
    pub fn count_bucket(data: &mut dyn SharedData) {
        count(data, |held| held.buckets = held.buckets.saturating_add(1));
    }

    /// Returns the current counts.
    pub fn occupancy(data: &mut dyn SharedData) -> Occupancy {
        Occupancy::decode(&data.get(TOTAL).0)
    }
}

fn count(data: &mut dyn SharedData, change: impl Fn(&mut Occupancy)) {
    // Each failure means that another worker succeeded.
    for _ in 0..10 * TRIES {
        let (record, version) = data.get(TOTAL);
        let mut held = Occupancy::decode(&record);
        change(&mut held);
        if data.set(TOTAL, &held.encode(), version) {
            return;
        }
    }
}

impl Occupancy {
    /// Returns the bytes of entries, slots and buckets together.
    pub fn bytes(&self) -> u64 {
        let own = RECORD_COST * u64::from(self.written) + BUCKET_COST * u64::from(self.buckets);
        self.entries.saturating_add(own)
    }

    fn add(&mut self, owner: Owner, bytes: u64) {
        self.entries = self.entries.saturating_add(bytes);
        self.holdings.add(owner, bytes);
    }

    fn remove(&mut self, old: Old) {
        self.entries = self.entries.saturating_sub(old.bytes);
        if let Some(owner) = old.owner {
            self.holdings.remove(owner, old.bytes);
        }
    }

    fn decode(record: &[u8]) -> Self {
        let mut reader = Reader::new(record);
        let entries = reader.u64().unwrap_or(0);
        let mut number = || reader.u32().unwrap_or(0);
        let (written, end, hand, buckets) = (number(), number(), number(), number());
        Self { entries, written, end, hand, buckets, holdings: Holdings::decode(&mut reader) }
    }

    fn encode(&self) -> Vec<u8> {
        let Self { entries, written, end, hand, buckets, holdings } = self;
        let mut out = Writer::with_capacity(8 + 4 * 4);
        out.u64(*entries);
        [written, end, hand, buckets].into_iter().for_each(|number| out.u32(*number));
        holdings.encode(&mut out);
        out.finish()
    }
}

/// Returns the slot that is `steps` after `from`, around a table of `slots`. A damaged record may have any numbers.
fn ahead(from: u32, steps: u32, slots: u32) -> u32 {
    let slot = (u64::from(from) + u64::from(steps)) % u64::from(slots.max(1));
    u32::try_from(slot).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fixture;
    use std::collections::HashMap;

    /// Like Envoy's shared data: versions count up, and a record that was never written has none.
    #[derive(Default)]
    struct Memory {
        records: HashMap<String, (Vec<u8>, u32)>,
        /// One write in this many loses to an imaginary other worker; 0 for none.
        contention: u32,
        writes: u32,
    }

    impl SharedData for Memory {
        fn get(&mut self, name: &str) -> (Vec<u8>, u32) {
            self.records.get(name).cloned().unwrap_or((Vec::new(), NEW))
        }
        fn set(&mut self, name: &str, record: &[u8], version: u32) -> bool {
            self.writes += 1;
            let now = self.get(name).1;
            if now != version || self.contention > 0 && self.writes.is_multiple_of(self.contention) {
                return false;
            }
            let next = if now == NEW { 1 } else { now + 1 };
            self.records.insert(name.to_owned(), (record.to_vec(), next));
            true
        }
    }

    impl Memory {
        /// Returns what the host really holds, at the same costs.
        fn bytes(&self) -> u64 {
            let slots = self.records.iter().filter(|(name, _)| *name != TOTAL);
            slots.map(|(_, (record, _))| record.len() as u64 + RECORD_COST).sum()
        }
    }

    /// Spreads numbers as a hash would (SplitMix64), at a lower cost.
    fn key(number: u64) -> Key {
        let mut state = number;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)).to_le_bytes()
        };
        let mut bytes = [0; 32];
        bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&next()));
        Key(bytes)
    }

    /// A table of one tenant.
    fn whole(limit: u64) -> Table {
        Table { limit, share: limit }
    }

    fn keep(table: Table, data: &mut Memory, entry: &Entry, now_ms: u64) -> bool {
        table.insert(data, &entry.key, &entry.encode(), now_ms)
    }

    fn entry(number: u64, len: usize, created_ms: u64, ttl_ms: u64) -> Entry {
        fixture::entry(key(number), len, created_ms, ttl_ms)
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_kept_is_found_and_the_newer_one_replaces_the_older() {
        let (table, mut data) = (whole(MIB), Memory::default());
        let one = entry(1, 500, 10, 1000);
        assert_eq!(table.lookup(&mut data, &one.key, "t"), None);
        assert!(keep(table, &mut data, &one, 10));
        assert_eq!(table.lookup(&mut data, &one.key, "t"), Some(one.clone()));
        let newer = entry(1, 900, 20, 1000);
        assert!(keep(table, &mut data, &newer, 20));
        assert_eq!(table.lookup(&mut data, &one.key, "t"), Some(newer));
        assert_eq!(Table::occupancy(&mut data).bytes(), data.bytes());
        assert_eq!(table.lookup(&mut data, &entry(2, 1, 0, 0).key, "t"), None);
    }

    #[test]
    fn a_million_distinct_entries_stay_below_the_limit_and_are_counted_to_the_byte() {
        let (table, mut data) = (whole(4 * MIB), Memory::default());
        let mut kept = 0;
        for number in 0..1_000_000u64 {
            let len = (number.wrapping_mul(0x9e37_79b9) >> 7) as usize % 6000;
            let one = entry(number, len, number, 50_000);
            kept += u64::from(keep(table, &mut data, &one, number));
            if number % 10_007 == 0 {
                let held = Table::occupancy(&mut data).bytes();
                assert_eq!(held, data.bytes(), "{number}");
                assert!(held <= table.limit, "{number}: {held}");
                assert!(number < 20_000 || held > table.limit / 2, "{number}: only {held} are used");
            }
        }
        assert!(kept > 990_000, "{kept}");
        let last =
            (999_000..1_000_000).filter(|n| table.lookup(&mut data, &entry(*n, 0, 0, 0).key, "t").is_some()).count();
        assert!(last > 300, "{last} of the last thousand are left");
    }

    #[test]
    fn lost_races_neither_lose_nor_invent_a_byte() {
        let (table, mut data) = (whole(MIB), Memory { contention: 3, ..Memory::default() });
        for number in 0..20_000u64 {
            keep(table, &mut data, &entry(number % 3000, (number % 4000) as usize, number, 500), number);
        }
        assert_eq!(Table::occupancy(&mut data).bytes(), data.bytes());
        assert!(data.bytes() <= MIB);
    }

    #[test]
    fn a_lower_limit_is_reached_and_what_lies_beyond_it_is_freed_but_for_the_slots_themselves() {
        for lower in [4 * MIB, MIB] {
            let mut data = Memory::default();
            let wide = whole(8 * MIB);
            (0..16_000u64).for_each(|n| {
                keep(wide, &mut data, &entry(n, 300, n, 1 << 40), n);
            });
            let slots = Table::occupancy(&mut data).written;
            assert!(slots > 7000, "{slots}");
            let narrow = whole(lower);
            (16_000..40_000u64).for_each(|n| {
                keep(narrow, &mut data, &entry(n, 700, n, 1 << 40), n);
            });
            let held = Table::occupancy(&mut data);
            assert_eq!(held.bytes(), data.bytes());
            let lost = RECORD_COST * u64::from(held.written - narrow.slots());
            assert!(held.bytes() <= lower + lost && held.entries > lower / 2, "{held:?}");
            let last =
                (39_000..40_000).filter(|n| narrow.lookup(&mut data, &entry(*n, 0, 0, 0).key, "t").is_some()).count();
            assert!(last > 300, "{last}");
            // When the limit is raised again, the table uses all slots.
            (40_000..60_000u64).for_each(|n| {
                keep(wide, &mut data, &entry(n, 700, n, 1 << 40), n);
            });
            let held = Table::occupancy(&mut data).bytes();
            assert!(held == data.bytes() && held <= wide.limit && held > wide.limit / 2, "{held}");
        }
    }

    #[test]
    fn a_table_that_is_full_of_short_entries_takes_a_long_one_too() {
        let (table, mut data) = (whole(8 * MIB), Memory::default());
        for number in 0..12_000 {
            keep(table, &mut data, &entry(number, 900, number, 1 << 40), number);
        }
        for (number, len) in [(20_000, 65_000), (20_001, 200_000), (20_002, 500_000)] {
            let before = Table::occupancy(&mut data).bytes();
            assert!(before + len as u64 > table.limit, "it is full: {before}");
            let long = entry(number, len, number, 1 << 40);
            assert!(keep(table, &mut data, &long, number), "{len}");
            assert_eq!(table.lookup(&mut data, &long.key, "t"), Some(long));
            let held = Table::occupancy(&mut data).bytes();
            assert_eq!(held, data.bytes());
            // Frees only what is needed, apart from the last stretch.
            assert!(held <= table.limit && held + 2 * u64::from(MAX_STRETCH) * 1100 > table.limit, "{held}");
            for more in 0..2000 {
                let number = number * 10_000 + more;
                keep(table, &mut data, &entry(number, 900, number, 1 << 40), number);
            }
        }
    }

    #[test]
    fn an_entry_too_long_for_the_table_is_not_kept_and_frees_nothing() {
        let (table, mut data) = (whole(MIB), Memory::default());
        assert!(keep(table, &mut data, &entry(1, 100, 0, 1000), 0));
        assert!(!keep(table, &mut data, &entry(2, 2 << 20, 0, 1000), 0));
        assert!(table.lookup(&mut data, &entry(1, 0, 0, 0).key, "t").is_some());
    }

    #[test]
    fn a_tenant_with_more_than_its_share_evicts_its_own_entries_and_is_evicted_first() {
        for len in [100, 2000] {
            let (table, mut data) = (Table { limit: MIB, share: MIB / 2 }, Memory::default());
            let of = |tenant: &str, number: u64, now: u64| Entry {
                tenant: tenant.into(),
                ..entry(number, len, now, 1 << 40)
            };
            let found = |data: &mut Memory, tenant: &str, numbers: std::ops::Range<u64>| {
                numbers.filter(|n| table.lookup(data, &key(*n), tenant).is_some()).count()
            };
            for number in 0..50 {
                assert!(keep(table, &mut data, &of("small", number, number), number));
            }
            // Far more than the table holds.
            for number in 1000..9000 {
                keep(table, &mut data, &of("big", number, number), number);
            }
            let left = found(&mut data, "small", 0..50);
            assert!(left >= 47, "{len}: {left} of 50");
            let big = found(&mut data, "big", 1000..9000);
            assert!(big > 300, "{len}: {big}, what is free is used");
            // Another tenant takes its room from the one that has too much.
            for number in 100..200 {
                assert!(keep(table, &mut data, &of("third", number, 9000 + number), 9000 + number), "{len} {number}");
            }
            assert!(found(&mut data, "third", 100..200) >= 95, "{len}");
            assert!(found(&mut data, "small", 0..50) >= 45, "{len}");
            let held = Table::occupancy(&mut data);
            assert_eq!(held.bytes(), data.bytes());
            assert_eq!(held.holdings.total().0, held.entries, "each byte is counted to its tenant");
        }
    }
}
