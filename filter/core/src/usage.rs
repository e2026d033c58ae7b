//! Token usage of one answer.

use crate::tokens::TokenCounter;

/// Token usage of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input tokens, cached ones included.
    pub input: u64,
    /// Input tokens that the provider read from its prompt cache.
    pub cached_input: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
}

impl Usage {
    /// Estimates what to charge if the provider reported no usage. The input counts one token per four bytes, unless
    /// the caller knows a better number.
    pub fn estimate(input_bytes: usize, output: TokenCounter) -> Self {
        Self { input: (input_bytes as u64).div_ceil(4), cached_input: 0, output: output.tokens() }
    }
}
