//! Token usage of one answer.

use crate::tokens::TokenCounter;

/// Token usage of one answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Input tokens, cached ones included.
    pub input: u64,
    /// Input tokens that the provider read from its prompt cache.
    pub cached_input: u64,
    /// Input tokens that the provider wrote into its prompt cache.
    pub cache_write: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
    /// Input tokens that are audio.
    pub audio_input: u64,
    /// Output tokens that are audio.
    pub audio_output: u64,
}

/// Usage as a provider reported it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReportedUsage {
    /// Input tokens, cached ones included; `None` if the provider did not count them.
    pub input: Option<u64>,
    /// Input tokens that the provider read from its prompt cache.
    pub cached_input: u64,
    /// Input tokens that the provider wrote into its prompt cache.
    pub cache_write: u64,
    /// Output tokens, reasoning included; 0 if the provider did not count them.
    pub output: u64,
    /// Input tokens that are audio.
    pub audio_input: u64,
    /// Output tokens that are audio.
    pub audio_output: u64,
}

impl ReportedUsage {
    /// Returns the usage after a later report of the same answer. What it does not count keeps its count.
    pub fn then(self, later: Self) -> Self {
        let input = later.input.or(self.input);
        let of_input = if later.input.is_some() { later } else { self };
        let of_output = if later.output > 0 { later } else { self };
        Self {
            input,
            cached_input: of_input.cached_input,
            cache_write: of_input.cache_write,
            output: of_output.output,
            audio_input: of_input.audio_input,
            audio_output: of_output.audio_output,
        }
    }
}

/// Which counts of a [`Usage`] are estimates of the gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimated {
    /// The input tokens.
    pub input: bool,
    /// The output tokens.
    pub output: bool,
}

impl Estimated {
    /// Whether any count is an estimate.
    pub fn any(self) -> bool {
        self.input || self.output
    }
}

impl Usage {
    /// Estimates what to charge if the provider reported no usage. The input counts one token per four bytes, unless
    /// the caller knows a better number.
    pub fn estimate(input_bytes: usize, output: TokenCounter) -> Self {
        Self { input: input_tokens(input_bytes), output: output.tokens(), ..Self::default() }
    }

    /// Completes `reported` with estimates of what the provider did not count: the input by its size in bytes, the
    /// output by the `text` that it does not cover. A count of the provider is never replaced by a lower estimate.
    pub fn complete(reported: ReportedUsage, input_bytes: usize, uncovered: TokenCounter) -> (Self, Estimated) {
        let ReportedUsage { input, cached_input, cache_write, output, audio_input, audio_output } = reported;
        let estimated = Estimated { input: input.is_none(), output: uncovered.tokens() > output };
        let input = input.unwrap_or_else(|| input_tokens(input_bytes));
        let output = output.max(uncovered.tokens());
        let usage = Self { input, cached_input, cache_write, output, audio_input, audio_output };
        (usage.limit_parts(), estimated)
    }

    /// Limits the tokens of the prompt cache and of audio to the tokens that they are part of.
    pub fn limit_parts(mut self) -> Self {
        self.cached_input = self.cached_input.min(self.input);
        self.cache_write = self.cache_write.min(self.input - self.cached_input);
        self.audio_input = self.audio_input.min(self.input);
        self.audio_output = self.audio_output.min(self.output);
        self
    }
}

/// Estimates the tokens of a text of this size.
pub fn input_tokens(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(4)
}
