//! The output limit that quotas put on a request.

use crate::ids::ModelId;

/// What quotas say of the output of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputLimit<'p> {
    /// Most output tokens.
    pub most: Option<u64>,
    /// Most output tokens of single models.
    pub models: &'p [(ModelId, u64)],
    /// Whether a request without a limit is given one: what is reserved must bound what is used.
    pub always: bool,
}
