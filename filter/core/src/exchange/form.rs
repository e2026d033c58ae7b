//! In which form a whole answer is asked for (`stream_upstream`): as a stream that it is put together from, or whole.

use crate::cache::local::recording::RecordingBudget;

/// The form of an answer whose task has `stream_upstream` and whose caller does not stream.
#[derive(Debug)]
pub(super) enum Form {
    /// It is put together from a stream, with memory set aside for it until it is whole.
    Assembled(Option<RecordingBudget>),
    /// The same, and the stream left a doubt what the whole answer is.
    Doubtful,
    /// It is asked for whole.
    Whole(Why),
}

/// Why an answer is asked for whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// A stream may not tell all that the whole answer to the request would.
    Request,
    /// The streams of a model of the plan have no usage.
    Model,
    /// An earlier stream of a model of the plan left a doubt to the same tenant.
    Doubted,
    /// There is no room for it: the tenant holds its share, or others hold the rest.
    NoRoom,
}

impl Form {
    /// Returns whether the answer is put together from a stream.
    pub(super) fn is_assembled(&self) -> bool {
        !matches!(self, Self::Whole(_))
    }

    /// Returns the word for it in the audit record.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Assembled(_) => "assembled",
            Self::Doubtful => "doubtful",
            Self::Whole(Why::Request) => "request",
            Self::Whole(Why::Model) => "model",
            Self::Whole(Why::Doubted) => "doubted",
            Self::Whole(Why::NoRoom) => "no_room",
        }
    }

    /// Returns why the answer is not put together, or not for certain, for the metric.
    pub(super) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Assembled(_) => None,
            other => Some(other.word()),
        }
    }
}
