//! How many requests a model is serving, over all workers: a small record in shared data that repairs itself.
//!
//! A request counts in the slot of the minute in which it began, and leaves that slot when it ends. A slot stops
//! counting after [`LEASE_MINUTES`], so requests that a crashed worker never released are dropped. So is a request that
//! runs longer than that.

use crate::wire::bytes::{Reader, Writer};

/// Maximum time for which a request counts, in minutes.
pub const LEASE_MINUTES: u32 = 15;

const SLOTS: usize = 16;
const SLOT_BYTES: usize = 8;

/// The slot that a request counts in, for [`release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u32);

/// Returns the record with one more request, or `None` if `limit` requests are already being served.
pub fn acquire(record: &[u8], now_ms: u64, limit: u32) -> Option<(Vec<u8>, Slot)> {
    let minute = minute_of(now_ms);
    let mut slots = decode(record);
    if total(&slots, minute) >= u64::from(limit) {
        return None;
    }
    let (epoch, count) = slots.get_mut(minute as usize % SLOTS)?;
    if *epoch != minute {
        (*epoch, *count) = (minute, 0);
    }
    *count = count.saturating_add(1);
    Some((encode(&slots), Slot(minute)))
}

/// Returns the record without the request of `slot`.
pub fn release(record: &[u8], slot: Slot) -> Vec<u8> {
    let mut slots = decode(record);
    if let Some((_, count)) = slots.get_mut(slot.0 as usize % SLOTS).filter(|(epoch, _)| *epoch == slot.0) {
        *count = count.saturating_sub(1);
    }
    encode(&slots)
}

/// Returns whether `limit` requests are being served.
pub fn is_full(record: &[u8], now_ms: u64, limit: u32) -> bool {
    total(&decode(record), minute_of(now_ms)) >= u64::from(limit)
}

type Slots = [(u32, u32); SLOTS];

fn minute_of(now_ms: u64) -> u32 {
    (now_ms / 60_000) as u32
}

/// Slots of the future, left by a clock that jumped back, count too: their requests are still running.
fn total(slots: &Slots, minute: u32) -> u64 {
    let live =
        |epoch: u32| minute.saturating_sub(epoch) < LEASE_MINUTES && epoch.saturating_sub(minute) < LEASE_MINUTES;
    slots.iter().filter(|(epoch, _)| live(*epoch)).map(|(_, count)| u64::from(*count)).sum()
}

fn decode(record: &[u8]) -> Slots {
    let (mut slots, mut reader) = (Slots::default(), Reader::new(record));
    for slot in &mut slots {
        let (Some(epoch), Some(count)) = (reader.u32(), reader.u32()) else { break };
        *slot = (epoch, count);
    }
    slots
}

fn encode(slots: &Slots) -> Vec<u8> {
    let mut out = Writer::with_capacity(SLOTS * SLOT_BYTES);
    for (epoch, count) in slots {
        out.u32(*epoch);
        out.u32(*count);
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    #[test]
    fn a_full_model_admits_again_when_one_request_ends() {
        let now = 1_700_000_000_000;
        let (one, first) = acquire(b"", now, 2).unwrap();
        let (two, _) = acquire(&one, now + MINUTE, 2).unwrap();
        assert!(is_full(&two, now + MINUTE, 2) && acquire(&two, now + MINUTE, 2).is_none());
        let freed = release(&two, first);
        assert!(!is_full(&freed, now + MINUTE, 2) && acquire(&freed, now + MINUTE, 2).is_some());
    }

    #[test]
    fn what_is_never_given_back_is_forgotten() {
        let now = 1_700_000_000_000;
        let (record, slot) = acquire(b"", now, 1).unwrap();
        assert!(acquire(&record, now + 13 * MINUTE, 1).is_none());
        let (later, _) = acquire(&record, now + 16 * MINUTE, 1).unwrap();
        // The slot was reused or has expired, so releasing it now changes no other count.
        assert!(is_full(&release(&later, slot), now + 16 * MINUTE, 1));
    }

    #[test]
    fn damaged_records_and_jumping_clocks_neither_panic_nor_go_below_zero() {
        for record in [&b"x"[..], &[255; 128], &[0; 500]] {
            let _ = is_full(record, 0, 1);
            let _ = release(record, Slot(7));
            let _ = acquire(record, u64::MAX, u32::MAX);
        }
        let now = 1_700_000_000_000;
        let (record, slot) = acquire(b"", now, 1).unwrap();
        assert!(is_full(&record, now - 5 * MINUTE, 1));
        let empty = release(&release(&record, slot), slot);
        assert!(!is_full(&empty, now, 1));
    }
}
