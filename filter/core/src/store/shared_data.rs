//! Records that all workers share: the one trait of shared data that the host implements.

/// Records that all workers share, each with a version.
pub trait SharedData {
    /// The record of this name (empty if there is none), and its version.
    fn get(&mut self, name: &str) -> (Vec<u8>, u32);
    /// Writes the record if its version still is this one; `false` if somebody was faster.
    fn set(&mut self, name: &str, record: &[u8], version: u32) -> bool;
}

/// The version of a record that does not exist.
pub const NEW: u32 = u32::MAX;

/// Bytes that the host needs for a record besides those of the record (94 were measured), with its name.
pub const RECORD_COST: u64 = 160;
