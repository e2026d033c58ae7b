//! How fast a model makes output: what an attempt may have made that was abandoned before anything of it was seen.

use crate::wire::bytes::Reader;

/// Output tokens per second of one choice, learned from the answers of a model.
///
/// One answer moves it by at most 1/16 up or 1/64 down, whatever it says, so it settles where one answer in five is
/// faster. Differences of less than 1/16 are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(u32);

impl Default for Rate {
    fn default() -> Self {
        Self(Self::PRIOR)
    }
}

/// An answer that a rate can be learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Output tokens of one choice.
    pub tokens: u64,
    /// The time from the start of the attempt to the end of its answer, in milliseconds.
    pub ms: u64,
    /// Whether it can show that the model is slow. A stream cannot: its caller may have read it slowly.
    pub may_lower: bool,
}

impl Rate {
    /// Tokens per second × `ONE`.
    const ONE: u32 = 64;
    /// What is assumed of a model until it is known: 100 tokens per second.
    const PRIOR: u32 = 100 * Self::ONE;
    /// The lowest and the highest rate: 5 and 5000 tokens per second.
    const LEAST: u32 = 5 * Self::ONE;
    const MOST: u32 = 5000 * Self::ONE;
    /// Shorter answers say little: most of their time passes before the first token.
    const MIN_TOKENS: u64 = 32;
    const MIN_MS: u64 = 50;

    /// Decodes a stored rate. If nothing is stored, nothing has been learned.
    pub fn decode(record: &[u8]) -> Self {
        let known = Reader::new(record).u32().unwrap_or(Self::PRIOR);
        Self(known.clamp(Self::LEAST, Self::MOST))
    }

    /// Encodes the rate for the store.
    pub fn encode(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }

    /// Returns the output tokens of one choice after this time, rounded up.
    pub fn tokens(self, ms: u64) -> u64 {
        ms.saturating_mul(u64::from(self.0)).div_ceil(1000 * u64::from(Self::ONE))
    }

    /// Returns the rate after an answer.
    pub fn learn(self, pace: &Pace) -> Self {
        if pace.tokens < Self::MIN_TOKENS || pace.ms < Self::MIN_MS {
            return self;
        }
        let seen = pace.tokens.saturating_mul(1000 * u64::from(Self::ONE)) / pace.ms;
        let seen = u32::try_from(seen).unwrap_or(Self::MOST).clamp(Self::LEAST, Self::MOST);
        let (above, below) = (seen.saturating_sub(self.0), self.0.saturating_sub(seen));
        if above > self.0 / 16 {
            Self((self.0 + self.0 / 16).min(seen))
        } else if below > self.0 / 16 && pace.may_lower {
            Self((self.0 - self.0 / 64).max(seen))
        } else {
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(tokens: u64, ms: u64) -> Pace {
        Pace { tokens, ms, may_lower: true }
    }

    fn after(rate: Rate, answers: usize, pace: Pace) -> u64 {
        (0..answers).fold(rate, |rate, _| rate.learn(&pace)).tokens(1000)
    }

    #[test]
    fn it_is_a_hundred_until_it_is_known_and_follows_what_most_answers_show() {
        let prior = Rate::default();
        assert_eq!((prior.tokens(1900), prior.tokens(1), prior.tokens(0)), (190, 1, 0));
        assert_eq!(Rate::decode(b""), prior);
        assert_eq!(Rate::decode(&prior.learn(&pace(1000, 1000)).encode()), prior.learn(&pace(1000, 1000)));
        assert!((930..=1010).contains(&after(prior, 60, pace(4000, 4000))));
        assert!((18..=22).contains(&after(prior, 200, pace(400, 20_000))));
    }

    #[test]
    fn one_odd_answer_hardly_moves_it_and_its_bounds_hold() {
        let prior = Rate::default();
        assert_eq!(after(prior, 1, pace(u64::MAX, 50)), 107, "rounded up");
        assert_eq!(after(prior, 1, pace(32, u64::MAX)), 99);
        assert!((4700..=5000).contains(&after(prior, 10_000, pace(u64::MAX, 50))));
        assert!((5..=6).contains(&after(prior, 10_000, pace(32, u64::MAX))));
        for too_little in [pace(31, 50), pace(1_000_000, 49), pace(0, 0)] {
            assert_eq!(prior.learn(&too_little), prior);
        }
        for damaged in [0, u32::MAX] {
            assert!((5..=5000).contains(&Rate::decode(&damaged.to_le_bytes()).tokens(1000)));
        }
    }

    #[test]
    fn a_caller_that_reads_slowly_does_not_make_the_model_slow() {
        let stream = Pace { may_lower: false, ..pace(100, 100_000) };
        assert_eq!(Rate::default().learn(&stream), Rate::default());
        let fast = Pace { may_lower: false, ..pace(1000, 1000) };
        assert!(Rate::default().learn(&fast) > Rate::default());
    }
}
