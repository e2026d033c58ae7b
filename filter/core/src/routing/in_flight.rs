//! How many requests a model is serving, over all workers and for each tenant: a small record in shared data that
//! repairs itself.
//!
//! A request counts in the minute in which it began, and leaves it when it ends. A minute stops counting after
//! [`LEASE_MINUTES`], so requests that a crashed worker never released are dropped. So is a request that runs longer
//! than that. The record holds only counts above zero, so it has at most as many as requests run.

use crate::store::quick_hash::QuickHash;
use crate::wire::bytes::{Reader, Writer};
use std::hash::BuildHasher as _;

/// Maximum time for which a request counts, in minutes.
pub const LEASE_MINUTES: u32 = 15;

const VERSION: u8 = 2;
const COUNT_BYTES: usize = 16;

/// The places of a model, for the requests of one tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Places in all.
    pub limit: u32,
    /// Places that one tenant may hold.
    pub share: u32,
    tenant: u64,
}

/// Why a model has no place for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// All its places are taken.
    Model,
    /// The tenant holds its share of them.
    Share,
}

/// What a request counts in, for [`release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    minute: u32,
    tenant: u64,
}

/// The requests of one tenant that began in the same minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    slot: Slot,
    requests: u32,
}

impl Places {
    /// Returns the places of a model with `limit` of them, of which each tenant may hold `share`.
    pub fn new(limit: u32, share: u32, tenant: &str) -> Self {
        // Where a tenant may hold all places, none is told from the others.
        let tenant = if share < limit { QuickHash::default().hash_one(tenant) } else { 0 };
        Self { limit, share, tenant }
    }

    /// Returns places without a limit. `tenant`: from [`Places::tenant`].
    pub fn unlimited(tenant: u64) -> Self {
        Self { limit: u32::MAX, share: u32::MAX, tenant }
    }

    /// Returns whose requests are counted together.
    pub fn tenant(&self) -> u64 {
        self.tenant
    }
}

/// Returns the record with one more request.
///
/// # Errors
/// [`Full`] if there is no place.
pub fn acquire(record: &[u8], now_ms: u64, places: Places) -> Result<(Vec<u8>, Slot), Full> {
    let minute = minute_of(now_ms);
    let mut counts = decode(record);
    counts.retain(|count| is_live(count, minute));
    room(&counts, places)?;
    let slot = Slot { minute, tenant: places.tenant };
    match counts.iter_mut().find(|count| count.slot == slot) {
        Some(count) => count.requests = count.requests.saturating_add(1),
        None => counts.push(Count { slot, requests: 1 }),
    }
    Ok((encode(&counts), slot))
}

/// Returns the record without the request of `slot`.
pub fn release(record: &[u8], slot: Slot) -> Vec<u8> {
    let mut counts = decode(record);
    if let Some(count) = counts.iter_mut().find(|count| count.slot == slot) {
        count.requests = count.requests.saturating_sub(1);
    }
    encode(&counts)
}

/// Checks that there is a place for another request of the tenant.
///
/// # Errors
/// [`Full`] if there is no place.
pub fn check(record: &[u8], now_ms: u64, places: Places) -> Result<(), Full> {
    let (mut counts, minute) = (decode(record), minute_of(now_ms));
    counts.retain(|count| is_live(count, minute));
    room(&counts, places)
}

fn room(counts: &[Count], places: Places) -> Result<(), Full> {
    let total = |of: &dyn Fn(&Count) -> bool| -> u64 {
        counts.iter().filter(|count| of(count)).map(|count| u64::from(count.requests)).sum()
    };
    if total(&|_| true) >= u64::from(places.limit) {
        return Err(Full::Model);
    }
    match total(&|count| count.slot.tenant == places.tenant) >= u64::from(places.share) {
        true => Err(Full::Share),
        false => Ok(()),
    }
}

fn minute_of(now_ms: u64) -> u32 {
    (now_ms / 60_000) as u32
}

/// Minutes of the future, left by a clock that jumped back, count too: their requests are still running.
fn is_live(count: &Count, minute: u32) -> bool {
    count.slot.minute.abs_diff(minute) < LEASE_MINUTES
}

/// A record of another format, which only another version of the filter can have written, counts nothing.
fn decode(record: &[u8]) -> Vec<Count> {
    let mut counts = Vec::new();
    let Some((&VERSION, rest)) = record.split_first() else { return counts };
    if rest.len() % COUNT_BYTES != 0 {
        return counts;
    }
    let mut reader = Reader::new(rest);
    while let (Some(minute), Some(requests), Some(tenant)) = (reader.u32(), reader.u32(), reader.u64()) {
        counts.push(Count { slot: Slot { minute, tenant }, requests });
    }
    counts
}

fn encode(counts: &[Count]) -> Vec<u8> {
    let mut out = Writer::with_capacity(1 + counts.len() * COUNT_BYTES);
    out.u8(VERSION);
    for count in counts.iter().filter(|count| count.requests > 0) {
        out.u32(count.slot.minute);
        out.u32(count.requests);
        out.u64(count.slot.tenant);
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const NOW: u64 = 1_700_000_000_000;

    fn all(limit: u32) -> Places {
        Places::new(limit, limit, "acme")
    }

    fn is_full(record: &[u8], now_ms: u64, limit: u32) -> bool {
        check(record, now_ms, all(limit)) == Err(Full::Model)
    }

    #[test]
    fn a_full_model_admits_again_when_one_request_ends() {
        let (one, first) = acquire(b"", NOW, all(2)).unwrap();
        let (two, _) = acquire(&one, NOW + MINUTE, all(2)).unwrap();
        assert!(is_full(&two, NOW + MINUTE, 2) && acquire(&two, NOW + MINUTE, all(2)) == Err(Full::Model));
        let freed = release(&two, first);
        assert!(!is_full(&freed, NOW + MINUTE, 2) && acquire(&freed, NOW + MINUTE, all(2)).is_ok());
    }

    #[test]
    fn a_tenant_holds_its_share_and_the_others_the_rest() {
        let of = |tenant| Places::new(5, 3, tenant);
        let mut record = Vec::new();
        let mut slots = Vec::new();
        for minute in 0..3 {
            let (more, slot) = acquire(&record, NOW + minute * MINUTE, of("acme")).unwrap();
            (record, slots) = (more, [slots, vec![slot]].concat());
        }
        assert_eq!(acquire(&record, NOW + 3 * MINUTE, of("acme")).unwrap_err(), Full::Share);
        for _ in 0..2 {
            record = acquire(&record, NOW + 3 * MINUTE, of("other")).unwrap().0;
        }
        for tenant in ["acme", "other", "third"] {
            assert_eq!(check(&record, NOW + 3 * MINUTE, of(tenant)), Err(Full::Model));
        }
        record = release(&record, slots[1]);
        assert_eq!(check(&record, NOW + 3 * MINUTE, of("acme")), Ok(()));
        // What was never released is forgotten, tenant by tenant.
        assert_eq!(check(&record, NOW + 16 * MINUTE, Places::new(5, 1, "acme")), Err(Full::Share));
        assert_eq!(check(&record, NOW + 17 * MINUTE, Places::new(5, 1, "acme")), Ok(()));
        assert_eq!(check(&record, NOW + 17 * MINUTE, Places::new(5, 2, "other")), Err(Full::Share));
    }

    #[test]
    fn what_is_never_given_back_is_forgotten() {
        let (record, slot) = acquire(b"", NOW, all(1)).unwrap();
        assert!(acquire(&record, NOW + 13 * MINUTE, all(1)).is_err());
        let (later, _) = acquire(&record, NOW + 16 * MINUTE, all(1)).unwrap();
        // The first one has expired, so releasing it now changes no other count.
        assert!(is_full(&release(&later, slot), NOW + 16 * MINUTE, 1));
        assert_eq!(later.len(), 1 + COUNT_BYTES, "and costs nothing");
    }

    #[test]
    fn damaged_records_and_jumping_clocks_neither_panic_nor_go_below_zero() {
        for record in [&b"x"[..], &[255; 128], &[2; 129], &[2; 130], &[0; 500]] {
            let _ = check(record, 0, all(1));
            let _ = release(record, Slot { minute: 7, tenant: 0 });
            let _ = acquire(record, u64::MAX, all(u32::MAX));
        }
        let (record, slot) = acquire(b"", NOW, all(1)).unwrap();
        assert!(is_full(&record, NOW - 5 * MINUTE, 1));
        let empty = release(&release(&record, slot), slot);
        assert!(!is_full(&empty, NOW, 1));
    }
}
