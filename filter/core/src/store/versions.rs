//! Records of shared data as this worker last wrote them, so that it can change one without reading it again. A read
//! costs ten times a write, because the host has to call the module for the memory.
//!
//! The host refuses a write whose version is not the record's, but it reports a version only on reads. Versions come
//! from one counter, which every write of any record in the process raises by one (proxy-wasm-cpp-host,
//! `SharedData::nextCas`). So a write gets a version that is at least one above the latest known one. The record is
//! remembered with exactly one above. If it has that version, no other worker has written it since, because a later
//! write got a higher version. Otherwise the host refuses the write, and the record is read. A worker that writes alone
//! always knows the latest version, once it has seen one.

use crate::store::quick_hash::QuickHash;
use crate::store::shared_data::{NEW, SharedData};
use std::collections::HashMap;

/// Maximum bytes that are remembered.
const MAX_BYTES: usize = 1 << 20;
/// Approximate overhead of a record, in bytes.
const RECORD_COST: usize = 128;
/// How long a record is remembered, in milliseconds. The 32-bit counter of versions cannot wrap in that time.
const KEPT_MS: u64 = 60_000;
/// Maximum number of updates that read first, without a try, after lost races.
const MAX_PASSES: u32 = 63;
/// Tries of one change. Each failure means that another worker succeeded, so a few workers never need that many.
const TRIES: usize = 1000;

/// What one worker remembers of its writes.
#[derive(Debug, Default)]
pub struct WriteCache {
    /// The latest version known to be assigned; 0 if none is known.
    latest: u32,
    records: HashMap<Box<str>, Record, QuickHash>,
    bytes: usize,
    /// How many more updates read first, and how many did so after the last failure. The next failure doubles that.
    passes: u32,
    next_passes: u32,
    /// Whether `latest` is behind, so that a version has to be read after a write.
    is_behind: bool,
}

#[derive(Debug, Default)]
struct Record {
    bytes: Vec<u8>,
    /// Its version, if it was not written since; 0 if nothing is remembered.
    version: u32,
    at_ms: u64,
}

impl WriteCache {
    /// Changes a record in one atomic step. `change` gets the record (empty at first) and returns the new one, or
    /// `None` to leave it unchanged. It may be called again if another worker wrote first, or may have, so its last
    /// result counts. `now_ms` is in milliseconds since the Unix epoch.
    ///
    /// Returns `None` if `change` did, or if other workers won every race.
    pub fn update<T>(
        &mut self,
        data: &mut impl SharedData,
        name: &str,
        now_ms: u64,
        mut change: impl FnMut(&[u8]) -> Option<(Vec<u8>, T)>,
    ) -> Option<T> {
        // A refusal by `change` only counts for the current record: another worker may have made room.
        if let Some((record, version)) = self.take(name, now_ms)
            && let Some((new, value)) = change(&record)
        {
            if data.set(name, &new, version) {
                self.next_passes = 0;
                self.wrote(data, name, new, now_ms);
                return Some(value);
            }
            self.is_behind = true;
            self.next_passes = (self.next_passes * 2 + 1).min(MAX_PASSES);
            self.passes = self.next_passes;
        }
        for _ in 0..TRIES {
            let (record, version) = data.get(name);
            self.observe_version(version);
            let (new, value) = change(&record)?;
            if data.set(name, &new, version) {
                self.wrote(data, name, new, now_ms);
                return Some(value);
            }
        }
        None
    }

    /// Notes the version of a record that was read.
    pub fn observe_version(&mut self, version: u32) {
        // The counter wraps. Fewer than 2^31 writes happen between two observations.
        if version != NEW && (self.latest == 0 || version.wrapping_sub(self.latest) < 1 << 31) {
            self.latest = version;
        }
    }

    /// Notes that a record was written, which assigned a version.
    pub fn count(&mut self) {
        if self.latest != 0 {
            // The host skips 0.
            self.latest = self.latest.checked_add(1).unwrap_or(1);
        }
    }

    /// Takes the remembered record out. It is remembered again when it is written.
    fn take(&mut self, name: &str, now_ms: u64) -> Option<(Vec<u8>, u32)> {
        if self.passes > 0 {
            self.passes -= 1;
            return None;
        }
        let known = self.records.get_mut(name)?;
        let record = std::mem::take(known);
        self.bytes = self.bytes.saturating_sub(record.bytes.len());
        (record.version != 0 && now_ms.saturating_sub(record.at_ms) < KEPT_MS).then_some((record.bytes, record.version))
    }

    fn wrote(&mut self, data: &mut impl SharedData, name: &str, mut bytes: Vec<u8>, now_ms: u64) {
        self.count();
        if self.passes > 0 {
            return;
        }
        let mut version = self.latest;
        if self.is_behind || version == 0 {
            // Another worker may have written the record since, but bytes and version belong together.
            (bytes, version) = data.get(name);
            self.observe_version(version);
            self.is_behind = false;
        }
        if matches!(version, 0 | NEW) {
            return;
        }
        self.bytes += bytes.len();
        if self.bytes + (self.records.len() + 1) * RECORD_COST > MAX_BYTES {
            self.records.clear();
            self.bytes = bytes.len();
        }
        let record = Record { bytes, version, at_ms: now_ms };
        match self.records.get_mut(name) {
            Some(known) => {
                self.bytes = self.bytes.saturating_sub(known.bytes.len());
                *known = record;
            }
            None => drop(self.records.insert(name.into(), record)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::fixture::Random;

    /// A host's store, with one counter for all records.
    #[derive(Default)]
    struct Host {
        records: HashMap<String, (Vec<u8>, u32)>,
        last: u32,
        reads: u32,
        refused: u32,
    }

    impl SharedData for Host {
        fn get(&mut self, name: &str) -> (Vec<u8>, u32) {
            self.reads += 1;
            self.records.get(name).cloned().unwrap_or((Vec::new(), NEW))
        }
        fn set(&mut self, name: &str, record: &[u8], version: u32) -> bool {
            if self.records.get(name).is_some_and(|(_, now)| *now != version) {
                self.refused += 1;
                return false;
            }
            self.last = self.last.checked_add(1).unwrap_or(1);
            self.records.insert(name.to_owned(), (record.to_vec(), self.last));
            true
        }
    }

    fn number(record: &[u8]) -> u64 {
        record.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn add(worker: &mut WriteCache, host: &mut Host, name: &str, now_ms: u64) -> Option<u64> {
        worker.update(host, name, now_ms, |record| {
            let next = number(record) + 1;
            Some((next.to_le_bytes().to_vec(), next))
        })
    }

    #[test]
    fn one_worker_reads_each_record_once() {
        let (mut host, mut worker) = (Host { last: 100, ..Host::default() }, WriteCache::default());
        add(&mut worker, &mut host, "other", 0);
        let reads = host.reads;
        for round in 1..=50 {
            for name in ["a", "b", "c"] {
                assert_eq!(add(&mut worker, &mut host, name, 5), Some(round));
            }
        }
        assert_eq!((host.reads - reads, host.refused), (3, 0));
    }

    #[test]
    fn what_another_worker_wrote_is_read() {
        let (mut host, mut one, mut other) = (Host::default(), WriteCache::default(), WriteCache::default());
        assert_eq!(add(&mut one, &mut host, "a", 0), Some(1));
        assert_eq!(add(&mut other, &mut host, "a", 0), Some(2));
        assert_eq!(add(&mut one, &mut host, "a", 0), Some(3));
        assert_eq!(add(&mut other, &mut host, "a", 0), Some(4));
    }

    #[test]
    fn a_refusal_is_of_the_record_as_it_is_and_not_as_it_was_written() {
        let (mut host, mut one, mut other) = (Host::default(), WriteCache::default(), WriteCache::default());
        let mut acquire = |host: &mut Host| one.update(host, "a", 0, |r| (number(r) < 1).then_some((vec![1; 8], ())));
        assert!(acquire(&mut host).is_some() && acquire(&mut host).is_none());
        other.update(&mut host, "a", 0, |_| Some((vec![0; 8], ())));
        assert!(acquire(&mut host).is_some(), "the other worker has made room");
    }

    #[test]
    fn workers_lose_no_change_whatever_they_know_of_each_others_writes() {
        let mut random = Random(7);
        for start in [0, 41, NEW - 300] {
            let mut host = Host { last: start, ..Host::default() };
            let mut workers: [WriteCache; 3] = Default::default();
            let mut sums = [0; 4];
            for step in 0..40_000 {
                let (who, which) = (random.below(3) as usize, random.below(4) as usize);
                let name = ["a", "b", "c", "d"][which];
                match random.below(20) {
                    // A write by a worker that remembers nothing, by another plugin, or by the cache.
                    0 => drop(host.set("x", b"", host.records.get("x").map_or(NEW, |r| r.1))),
                    1 => workers[who] = WriteCache::default(),
                    _ => {
                        sums[which] += 1;
                        assert_eq!(add(&mut workers[who], &mut host, name, step * 9), Some(sums[which]), "step {step}");
                    }
                }
            }
        }
    }

    #[test]
    fn where_others_are_always_faster_few_tries_are_in_vain() {
        let (mut host, mut one, mut other) = (Host::default(), WriteCache::default(), WriteCache::default());
        for _ in 0..1000 {
            add(&mut one, &mut host, "a", 0);
            add(&mut other, &mut host, "a", 0);
        }
        assert!(host.refused < 60, "{}", host.refused);
    }

    #[test]
    fn neither_time_nor_memory_is_without_bound() {
        let (mut host, mut worker) = (Host::default(), WriteCache::default());
        add(&mut worker, &mut host, "a", 0);
        add(&mut worker, &mut host, "a", KEPT_MS - 1);
        let reads = host.reads;
        add(&mut worker, &mut host, "a", 2 * KEPT_MS);
        assert_eq!(host.reads, reads + 1);
        for n in 0..20_000 {
            worker.update(&mut host, &n.to_string(), 0, |_| Some((vec![0; 300], ())));
            let held: usize = worker.records.values().map(|record| record.bytes.len()).sum();
            assert!(held == worker.bytes && held + worker.records.len() * RECORD_COST <= MAX_BYTES, "{n}");
        }
    }
}
