//! A secret that is drawn where the program runs and leaves it in no form.

use std::hash::{BuildHasher, RandomState};

/// 128 bits of the host's random numbers, to hash under what others choose.
#[derive(Clone)]
pub struct Secret(u64, u64);

impl Secret {
    /// For a hash that is keyed by two words.
    pub fn words(&self) -> (u64, u64) {
        (self.0, self.1)
    }
}

impl Default for Secret {
    fn default() -> Self {
        // The standard library has its state of the host's random numbers: what it makes of two numbers is as secret.
        let random = RandomState::new();
        Self(random.hash_one(0_u8), random.hash_one(1_u8))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}
