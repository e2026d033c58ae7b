//! Counters as the bytes of one record of the local store: all scopes that one atomic step must see together.

use crate::policy::limits::ScopeKey;
use crate::quota::counters::{Counters, Lease};
use crate::quota::window::Amount;

const VERSION: u8 = 3;
const SCOPE_BYTES: usize = 120;
const LEASE_BYTES: usize = 32;
/// Of a minute's bucket that has none.
const NO_RATE: u64 = u64::MAX;

/// The scopes of a record. Bytes that are no record, which only another version can have written, hold none.
pub fn decode(record: &[u8]) -> Vec<(ScopeKey, Counters)> {
    let mut all = Vec::with_capacity(1);
    let Some((VERSION, rest)) = record.split_first().map(|(version, rest)| (*version, rest)) else { return all };
    let mut reader = Reader(rest);
    while let Some(scope) = reader.scope() {
        all.push(scope);
    }
    all
}

/// The bytes of these scopes.
pub fn encode(scopes: &[(ScopeKey, Counters)]) -> Vec<u8> {
    let leases: usize = scopes.iter().map(|(_, counters)| counters.leases.len()).sum();
    let mut out = Vec::with_capacity(1 + scopes.len() * SCOPE_BYTES + leases * LEASE_BYTES);
    out.push(VERSION);
    for (key, counters) in scopes {
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
        out.extend_from_slice(key);
        for number in [at_ms, requests, tokens, day_tokens, day_cost, month_cost] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for rate in rates {
            out.extend_from_slice(&rate.unwrap_or(NO_RATE).to_le_bytes());
        }
        out.extend_from_slice(&day.to_le_bytes());
        out.extend_from_slice(&month.to_le_bytes());
        for share in reported.iter().chain(told) {
            out.extend_from_slice(&share.to_le_bytes());
        }
        out.extend_from_slice(&u32::try_from(leases.len()).unwrap_or(u32::MAX).to_le_bytes());
        for Lease { expires, count, held } in leases {
            out.extend_from_slice(&expires.to_le_bytes());
            out.extend_from_slice(&count.to_le_bytes());
            for number in [held.tokens, held.day_tokens, held.cost] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }
    out
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn long(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn int(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn short(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_le_bytes)
    }

    fn rate(&mut self) -> Option<Option<u64>> {
        self.long().map(|rate| (rate != NO_RATE).then_some(rate))
    }

    fn scope(&mut self) -> Option<(ScopeKey, Counters)> {
        let key = self.bytes()?;
        let mut counters = Counters {
            at_ms: self.long()?,
            requests: self.long()?,
            tokens: self.long()?,
            day_tokens: self.long()?,
            day_cost: self.long()?,
            month_cost: self.long()?,
            rates: [self.rate()?, self.rate()?],
            day: self.int()?,
            month: self.int()?,
            reported: [self.short()?, self.short()?, self.short()?],
            told: [self.short()?, self.short()?, self.short()?],
            leases: Vec::new(),
        };
        let leases = self.int()?;
        counters.leases.reserve_exact(leases.min(16) as usize);
        for _ in 0..leases {
            let (expires, count) = (self.int()?, self.int()?);
            let held = Amount { tokens: self.long()?, day_tokens: self.long()?, cost: self.long()? };
            counters.leases.push(Lease { expires, count, held });
        }
        Some((key, counters))
    }
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
