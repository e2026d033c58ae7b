//! The table holds what it is given, within its limit, and shares its room among tenants.

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
    let last = (999_000..1_000_000).filter(|n| table.lookup(&mut data, &entry(*n, 0, 0, 0).key, "t").is_some()).count();
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
        let of =
            |tenant: &str, number: u64, now: u64| Entry { tenant: tenant.into(), ..entry(number, len, now, 1 << 40) };
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
