//! The capabilities of a model.

use crate::config::Capability;

/// The capabilities of a model: those that the policy lists, or all if it has no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities(Option<u16>);

impl Capabilities {
    pub(super) fn from_config(listed: Option<&[Capability]>) -> Self {
        Self(listed.map(|all| all.iter().fold(0, |bits, one| bits | bit(*one))))
    }

    pub(super) fn has(self, capability: Capability) -> bool {
        self.0.is_none_or(|listed| listed & bit(capability) != 0)
    }

    /// Returns whether there is a list with this capability.
    pub(super) fn lists(self, capability: Capability) -> bool {
        self.0.is_some_and(|listed| listed & bit(capability) != 0)
    }
}

fn bit(capability: Capability) -> u16 {
    1 << capability as u16
}
