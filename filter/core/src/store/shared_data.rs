//! Versioned records that all workers share: the trait that the host implements.

/// Records that all workers share, each with a version.
pub trait SharedData {
    /// Returns the record of this name (empty if there is none) and its version.
    fn get(&mut self, name: &str) -> (Vec<u8>, u32);
    /// Writes the record if it still has this version. Returns `false` if another write came first.
    fn set(&mut self, name: &str, record: &[u8], version: u32) -> bool;
}

/// The version of a record that does not exist.
pub const NEW: u32 = u32::MAX;

/// Bytes that the host needs for a record besides its content, including the name. 94 were measured.
pub const RECORD_COST: u64 = 160;
