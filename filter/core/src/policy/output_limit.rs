//! The output limit that quotas put on a request.

use crate::ids::ModelId;
use crate::policy::limits::Limits;

/// What quotas say of the output of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputLimit<'p> {
    /// Max output tokens of every model.
    pub max: Option<u64>,
    /// The limits of the tenant, which may have others for single models.
    pub limits: Option<&'p Limits>,
    /// Whether a request without a limit is given one: what is reserved must bound what is used.
    pub always: bool,
}

impl OutputLimit<'_> {
    /// Max output tokens of this model.
    pub fn of(&self, model: ModelId) -> Option<u64> {
        let own = self.limits.and_then(|limits| limits.max_output_of(model));
        self.max.into_iter().chain(own).min()
    }
}
