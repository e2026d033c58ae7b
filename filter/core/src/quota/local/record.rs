//! The bytes of one record in the local store: the counters of all scopes that one atomic step must see together.

use crate::policy::limits::ScopeKey;
use crate::quota::counters::{Counters, Lease};
use crate::quota::window::Amount;
use crate::wire::bytes::{Reader, Writer};

const VERSION: u8 = 3;
const SCOPE_BYTES: usize = 120;
const LEASE_BYTES: usize = 32;
/// Stands for a bucket that has no drain rate.
const NO_RATE: u64 = u64::MAX;

/// Reads the scopes of a record. Bytes of another format version, which only another version of the filter can have
/// written, hold no scopes.
pub fn decode(record: &[u8]) -> Vec<(ScopeKey, Counters)> {
    let mut all = Vec::with_capacity(1);
    let Some((VERSION, rest)) = record.split_first().map(|(version, rest)| (*version, rest)) else { return all };
    let mut reader = Reader::new(rest);
    while let Some(scope) = scope(&mut reader) {
        all.push(scope);
    }
    all
}

/// Writes the record of these scopes.
pub fn encode(scopes: &[(ScopeKey, Counters)]) -> Vec<u8> {
    let mut out = Writer::with_capacity(1 + size(scopes));
    out.u8(VERSION);
    for (key, counters) in scopes {
        write_scope(&mut out, key, counters);
    }
    out.finish()
}

/// Returns the number of bytes that `write_scope` writes for all of these scopes.
pub(super) fn size(scopes: &[(ScopeKey, Counters)]) -> usize {
    let leases: usize = scopes.iter().map(|(_, counters)| counters.leases.len()).sum();
    scopes.len() * SCOPE_BYTES + leases * LEASE_BYTES
}

/// Writes one scope, for [`scope`].
pub(super) fn write_scope(out: &mut Writer, key: &ScopeKey, counters: &Counters) {
    let Counters {
        at_ms,
        requests,
        tokens,
        rates,
        day,
        day_tokens,
        day_cost,
        month,
        month_cost,
        reported,
        told,
        leases,
    } = counters;
    out.raw(key);
    for number in [at_ms, requests, tokens, day_tokens, day_cost, month_cost] {
        out.u64(*number);
    }
    for rate in rates {
        out.u64(rate.unwrap_or(NO_RATE));
    }
    out.u32(*day);
    out.u32(*month);
    for share in reported.iter().chain(told) {
        out.u16(*share);
    }
    out.count(leases.len());
    for Lease { expires, count, held } in leases {
        out.u32(*expires);
        out.u32(*count);
        for number in [held.tokens, held.day_tokens, held.cost] {
            out.u64(number);
        }
    }
}

fn rate(reader: &mut Reader) -> Option<Option<u64>> {
    reader.u64().map(|rate| (rate != NO_RATE).then_some(rate))
}

/// Reads one scope.
pub(super) fn scope(reader: &mut Reader) -> Option<(ScopeKey, Counters)> {
    let key = *reader.array()?;
    let mut counters = Counters {
        at_ms: reader.u64()?,
        requests: reader.u64()?,
        tokens: reader.u64()?,
        day_tokens: reader.u64()?,
        day_cost: reader.u64()?,
        month_cost: reader.u64()?,
        rates: [rate(reader)?, rate(reader)?],
        day: reader.u32()?,
        month: reader.u32()?,
        reported: [reader.u16()?, reader.u16()?, reader.u16()?],
        told: [reader.u16()?, reader.u16()?, reader.u16()?],
        leases: Vec::new(),
    };
    let leases = reader.count()?;
    counters.leases.reserve_exact(leases.min(16));
    for _ in 0..leases {
        let (expires, count) = (reader.u32()?, reader.u32()?);
        let held = Amount { tokens: reader.u64()?, day_tokens: reader.u64()?, cost: reader.u64()? };
        counters.leases.push(Lease { expires, count, held });
    }
    Some((key, counters))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_damage_does_not_panic() {
        let lease = Lease { expires: 7, count: 2, held: Amount { tokens: 1, day_tokens: 2, cost: 3 } };
        let counters = Counters {
            at_ms: 1,
            requests: 2,
            tokens: 3,
            rates: [Some(9), None],
            day: 4,
            day_tokens: 5,
            day_cost: 6,
            month: 7,
            month_cost: 8,
            reported: [1, 2, 1000],
            told: [4, 5, 6],
            leases: vec![lease, lease],
        };
        let scopes = [([0; 32], counters.clone()), ([9; 32], Counters::default()), ([8; 32], counters)];
        let record = encode(&scopes);
        assert_eq!(decode(&record), scopes);
        assert_eq!((record.len(), record.capacity()), (1 + 3 * SCOPE_BYTES + 4 * LEASE_BYTES, record.len()));
        for cut in 0..record.len() {
            let _ = decode(&record[..cut]);
        }
        assert!(decode(b"").is_empty() && decode(&[3; 200]).is_empty());
        let _ = decode(&[1; 500]);
    }
}
