//! The versions of the meshes, and the Envoy that each ships.

use crate::render::version::EnvoyVersion;
use std::fmt;

/// A mesh that `render` writes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mesh {
    /// Istio: its ingress and egress gateways and its sidecars.
    Istio,
    /// Envoy Gateway.
    EnvoyGateway,
}

impl Mesh {
    /// Returns the minor version of the first supported release, which ships Envoy 1.36. Each later one ships the next.
    fn first(self) -> u16 {
        match self {
            Self::Istio => 28,
            Self::EnvoyGateway => 6,
        }
    }

    /// Parses the version of a release, such as `1.30` or `1.30.2`.
    ///
    /// # Errors
    /// What would be right.
    pub fn version(self, text: &str) -> Result<MeshVersion, String> {
        let first = self.first();
        let last = first + RELEASES - 1;
        let minor = text.strip_prefix("1.").and_then(|rest| rest.split(['.', '-']).next()?.parse().ok());
        match minor {
            Some(minor) if (first..=last).contains(&minor) => Ok(MeshVersion { mesh: self, minor }),
            _ => Err(format!("expected --target-version 1.{first} to 1.{last} for {self}")),
        }
    }
}

/// Number of supported releases of each mesh.
const RELEASES: u16 = 4;

impl fmt::Display for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Istio => "istio",
            Self::EnvoyGateway => "envoy-gateway",
        })
    }
}

/// A minor version of a mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MeshVersion {
    mesh: Mesh,
    minor: u16,
}

impl MeshVersion {
    /// Returns the version of the Envoy that the release ships.
    pub fn envoy(self) -> EnvoyVersion {
        EnvoyVersion::of_minor(36 + self.minor - self.mesh.first())
    }
}

impl fmt::Display for MeshVersion {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "1.{}", self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_release_ships_an_envoy() {
        let envoy = |mesh: Mesh, text: &str| mesh.version(text).map(|version| version.envoy().to_string());
        assert_eq!(envoy(Mesh::Istio, "1.28"), Ok("1.36".to_owned()));
        assert_eq!(envoy(Mesh::Istio, "1.31.4"), Ok("1.39".to_owned()));
        assert_eq!(envoy(Mesh::EnvoyGateway, "1.6"), Ok("1.36".to_owned()));
        assert_eq!(envoy(Mesh::EnvoyGateway, "1.9.0-rc.1"), Ok("1.39".to_owned()));
        for (mesh, wrong) in [(Mesh::Istio, "1.27"), (Mesh::Istio, "1.32"), (Mesh::Istio, "30"), (Mesh::Istio, "")] {
            assert_eq!(
                envoy(mesh, wrong),
                Err("expected --target-version 1.28 to 1.31 for istio".to_owned()),
                "{wrong}"
            );
        }
        assert!(envoy(Mesh::EnvoyGateway, "1.10").is_err());
    }
}
