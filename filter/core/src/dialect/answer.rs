//! What the dialects' readers report about an answer, independent of the dialect.

use crate::cache::local::recording::FULL;
use crate::service_tier::ServedTier;
use crate::tokens::TokenCounter;
use crate::usage::ReportedUsage;

/// The kind of a stream event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// Carries no part of the answer: a comment or a ping.
    Silent,
    /// The end marker.
    End,
    /// It says by its type, or by a line that is no event's, that the stream failed.
    Error,
    /// A part of the answer, or what came in its place.
    Chunk(Result<Chunk, Fault>),
}

/// A part of a streamed answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The text that it adds to the answer, counted for the token estimate.
    pub text: TokenCounter,
    /// Whether it has text, even an empty one.
    pub has_text: bool,
    /// The usage of the answer so far.
    pub usage: Option<ReportedUsage>,
    /// Whether the usage is that of the answer before this part.
    pub is_usage_before: bool,
    /// The service tier that it names.
    pub service_tier: Option<ServedTier>,
    /// What remains of it for a caller that did not ask for the usage.
    pub without_usage: WithoutUsage,
}

/// What the start of an event is that is too long to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongEvent {
    /// A comment, which carries no part of the answer.
    Silent,
    /// A part of the answer.
    Chunk,
    /// Anything else.
    Malformed,
}

/// What remains of a chunk for a caller that did not ask for the usage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WithoutUsage {
    /// All of it: it has a part of the answer, or no usage.
    #[default]
    Whole,
    /// Only what the server adds to the usage.
    Extras,
    /// Nothing.
    Nothing,
}

/// What is wrong with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It reports an error.
    Reported,
    /// It cannot be read.
    Malformed,
}

/// What a whole answer reports about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeAnswer {
    /// Its usage, if present.
    pub usage: Option<ReportedUsage>,
    /// The service tier that it names.
    pub service_tier: Option<ServedTier>,
    /// Its text, counted for the token estimate; empty if the usage has output tokens.
    pub text: TokenCounter,
}

/// A whole answer, put together from a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    /// The body.
    pub body: Vec<u8>,
    /// Whether the stream left a doubt what the provider's own whole answer would have been.
    pub is_doubtful: bool,
}

/// Why an answer is not stored, or not put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotKept(pub &'static str);

impl NotKept {
    /// Returns whether it takes too much memory.
    pub fn is_size(self) -> bool {
        matches!(self.0, TOO_LONG | FULL)
    }
}

/// Why an answer is not recorded that is longer than its limit.
pub const TOO_LONG: &str = "too_long";
