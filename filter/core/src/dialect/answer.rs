//! What the readers of dialects say of an answer, in no dialect.

use crate::tokens::TokenCounter;
use crate::usage::Usage;

/// What one event of a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamEvent {
    /// It says nothing of the answer: a comment, a ping.
    Silent,
    /// The end marker.
    End,
    /// It says by its type that it is an error.
    Error,
    /// A part of the answer, or what came in place of one.
    Chunk(Result<Chunk, Fault>),
}

/// A part of a streamed answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chunk {
    /// What it has of the answer's text, by estimate.
    pub text: TokenCounter,
    /// Whether it has any text, be it empty.
    pub has_text: bool,
    /// The usage of the answer so far.
    pub usage: Option<Usage>,
    /// Whether it has nothing of the answer itself, so that a caller who did not ask for the usage lacks nothing
    /// without it.
    pub is_usage_alone: bool,
}

/// What is wrong with a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It reports an error.
    Reported,
    /// It cannot be read.
    Malformed,
}

/// What a whole answer says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WholeAnswer {
    /// Its usage, if it has one.
    pub usage: Option<Usage>,
    /// Its text, by estimate; nothing where the usage counts it.
    pub text: TokenCounter,
}

/// Why an answer is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotKept(pub &'static str);
