//! The tokens of one answer.

use crate::tokens::TokenCounter;

/// Tokens of one answer.
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
    /// What is charged where no usage came. The input counts four bytes a token, unless the caller of this knows it
    /// better.
    pub fn estimate(input_bytes: usize, output: TokenCounter) -> Self {
        Self { input: (input_bytes as u64).div_ceil(4), cached_input: 0, output: output.tokens() }
    }
}
