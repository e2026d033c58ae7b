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

impl OutputLimit<'_> {
    /// Most output tokens of this model.
    pub fn of(&self, model: ModelId) -> Option<u64> {
        let own = self.models.iter().find(|(id, _)| *id == model).map(|(_, most)| *most);
        self.most.into_iter().chain(own).min()
    }
}
