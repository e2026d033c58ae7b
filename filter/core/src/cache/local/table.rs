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

    /// Reserves `need` bytes for a tenant's entry, and the cost of a new slot. Frees other slots if necessary, but
    /// never `slot`.
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
mod tests;
