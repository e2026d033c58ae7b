//! The output limit that quotas set for a request.

use crate::ids::ModelId;
use crate::policy::limits::Limits;

/// The output limits of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputLimit<'p> {
    /// Maximum output tokens of every model.
    pub max: Option<u64>,
    /// The tenant's limits, which may set lower ones for single models.
    pub limits: Option<&'p Limits>,
    /// Whether to add a limit to a request that has none: what is reserved must bound what is used.
    pub always: bool,
}

impl OutputLimit<'_> {
    /// Returns these limits with a lower one for every model.
    pub fn limited(self, max: u64) -> Self {
        Self { max: Some(self.max.map_or(max, |own| own.min(max))), ..self }
    }

    /// Returns the maximum output tokens of this model.
    pub fn of(&self, model: ModelId) -> Option<u64> {
        let own = self.limits.and_then(|limits| limits.max_output_of(model));
        self.max.into_iter().chain(own).min()
    }
}
