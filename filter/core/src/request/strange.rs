//! Top-level fields that may change what a request costs in a way that no price covers.

/// Why a field does not simply pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strange {
    /// With it, the provider chooses another model or another host.
    Routing,
    /// The gateway does not know it, so it may ask for anything.
    Unknown,
}

/// Such a field of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrangeField {
    /// Its index among the request's members.
    pub member: usize,
    /// Why it does not simply pass.
    pub strange: Strange,
}
