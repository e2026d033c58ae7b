//! What each tenant holds of the local store, counted in the record that counts the whole.

use crate::store::quick_hash::QuickHash;
use crate::store::shared_data::RECORD_COST;
use crate::wire::bytes::{Reader, Writer};
use std::hash::BuildHasher as _;

/// A tenant, as a hash of its name. Names come from the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner(u64);

/// What one tenant holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Holding {
    owner: Owner,
    bytes: u64,
    entries: u32,
}

/// What all tenants hold. Only those that hold entries are in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holdings(Vec<Holding>);

impl Owner {
    pub fn of(tenant: &str) -> Self {
        Self(QuickHash::default().hash_one(tenant))
    }
}

impl Holding {
    /// What it takes of the store's limit: its bytes, or its slots if they are more. There is one slot for each
    /// `per_slot` bytes of the limit.
    fn weight(&self, per_slot: u64) -> u64 {
        let entries = u64::from(self.entries);
        self.bytes.saturating_add(entries.saturating_mul(RECORD_COST)).max(entries.saturating_mul(per_slot))
    }
}

impl Holdings {
    pub fn add(&mut self, owner: Owner, bytes: u64) {
        match self.0.iter_mut().find(|holding| holding.owner == owner) {
            Some(Holding { bytes: held, entries, .. }) => {
                (*held, *entries) = (held.saturating_add(bytes), entries.saturating_add(1));
            }
            None => self.0.push(Holding { owner, bytes, entries: 1 }),
        }
    }

    pub fn remove(&mut self, owner: Owner, bytes: u64) {
        let Some(at) = self.0.iter().position(|holding| holding.owner == owner) else { return };
        let Some(holding) = self.0.get_mut(at) else { return };
        holding.bytes = holding.bytes.saturating_sub(bytes);
        holding.entries = holding.entries.saturating_sub(1);
        if holding.entries == 0 {
            self.0.swap_remove(at);
        }
    }

    /// Returns what a tenant takes of the store's limit, in bytes, with one more entry if `more` is its size.
    pub fn weight(&self, owner: Owner, per_slot: u64, more: Option<u64>) -> u64 {
        let known = self.0.iter().find(|holding| holding.owner == owner).copied();
        let mut holding = known.unwrap_or(Holding { owner, bytes: 0, entries: 0 });
        if let Some(more) = more {
            holding.bytes = holding.bytes.saturating_add(more);
            holding.entries = holding.entries.saturating_add(1);
        }
        holding.weight(per_slot)
    }

    /// Returns whether any tenant holds more than `share` bytes of the limit.
    pub fn has_over(&self, share: u64, per_slot: u64) -> bool {
        self.0.iter().any(|holding| holding.weight(per_slot) > share)
    }

    /// Reads what `encode` wrote, to the end of the record.
    pub fn decode(reader: &mut Reader) -> Self {
        let mut all = Vec::new();
        while let (Some(owner), Some(bytes), Some(entries)) = (reader.u64(), reader.u64(), reader.u32()) {
            all.push(Holding { owner: Owner(owner), bytes, entries });
        }
        Self(all)
    }

    pub fn encode(&self, out: &mut Writer) {
        for Holding { owner, bytes, entries } in &self.0 {
            out.u64(owner.0);
            out.u64(*bytes);
            out.u32(*entries);
        }
    }

    #[cfg(test)]
    pub fn total(&self) -> (u64, u32) {
        self.0.iter().fold((0, 0), |(bytes, entries), h| (bytes + h.bytes, entries + h.entries))
    }
}
