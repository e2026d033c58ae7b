//! What `render` writes for.

use std::fmt;

/// What applies the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// An Envoy that reads them itself.
    Envoy,
    /// Istio: EnvoyFilters, and what its pods need.
    Istio,
    /// Envoy Gateway: an EnvoyPatchPolicy, and what its pods need.
    EnvoyGateway,
}

/// As it is written on the command line.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Envoy => "envoy",
            Self::Istio => "istio",
            Self::EnvoyGateway => "envoy-gateway",
        })
    }
}
