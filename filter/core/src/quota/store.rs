//! What quotas need of shared data.

use crate::tokens::Correction;

/// Where the counters of all workers are.
pub trait Store {
    /// Changes a record (empty at first) in one atomic step; `change` may be called again where another worker was
    /// faster. Returns whether it was changed: not where `change` returned nothing.
    fn update(&mut self, key: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool;
    /// The record; empty if there is none.
    fn read(&mut self, key: &str) -> Vec<u8>;
    /// Milliseconds since the Unix epoch.
    fn now_ms(&mut self) -> u64;
    /// What has been learned of a model's tokenizer.
    fn correction(&mut self, model: &str) -> Correction;
    /// Learns of a model's tokenizer, for all workers: [`Correction::learn`].
    fn learn(&mut self, model: &str, estimate: u64, counted: u64);
    /// A number that no other request of any Envoy has been given.
    fn unique(&mut self) -> u128;
}
