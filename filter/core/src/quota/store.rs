//! The shared data that quotas need.

use crate::quota::rate::{Pace, Rate};
use crate::quota::users::UserTable;
use crate::tokens::Correction;
use std::rc::Rc;

/// The store of the counters that all workers share.
pub trait Store {
    /// Changes a record (empty at first) in one atomic step. `change` may run again if another worker was faster.
    /// Returns whether the record was changed. It is not if `change` returns `None`.
    fn update(&mut self, key: &str, change: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool;
    /// Returns a record, empty if there is none.
    fn read(&mut self, key: &str) -> Vec<u8>;
    /// Returns where users are counted, as all workers agreed.
    fn users(&mut self) -> Rc<UserTable>;
    /// Returns the time, in milliseconds since the Unix epoch.
    fn now_ms(&mut self) -> u64;
    /// Returns what has been learned about a model's tokenizer.
    fn correction(&mut self, model: &str) -> Correction;
    /// Learns about a model's tokenizer, for all workers: [`Correction::learn`].
    fn learn(&mut self, model: &str, estimate: u64, counted: u64);
    /// Returns how fast a model makes output, as far as learned.
    fn rate(&mut self, model: &str) -> Rate;
    /// Learns how fast a model makes output, for all workers: [`Rate::learn`]. May ignore answers that come too often.
    fn learn_rate(&mut self, model: &str, pace: &Pace);
    /// Returns a number that no other request of any Envoy gets.
    fn unique(&mut self) -> u128;
}
