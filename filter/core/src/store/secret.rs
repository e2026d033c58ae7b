//! A secret drawn at run time. Neither it nor a hash under it leaves the process.

/// 128 bits of the host's random numbers, for hashing what others choose.
#[derive(Clone)]
pub struct Secret(u64, u64);

impl Secret {
    /// Returns the secret as the two words of a hash key.
    pub fn words(&self) -> (u64, u64) {
        (self.0, self.1)
    }

    /// Encodes the secret for the other workers of the process, so that all hash alike.
    pub fn to_bytes(&self) -> [u8; 16] {
        (u128::from(self.0) << 64 | u128::from(self.1)).to_be_bytes()
    }

    /// Decodes what `to_bytes` encoded.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self((both >> 64) as u64, both as u64)
    }
}

impl Default for Secret {
    fn default() -> Self {
        let mut bytes = [0; 16];
        #[expect(
            clippy::expect_used,
            reason = "a host without random numbers must not serve with a secret that can be guessed"
        )]
        getrandom::fill(&mut bytes).expect("the host has random numbers");
        Self::from_bytes(bytes)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}
