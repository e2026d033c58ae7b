//! The features of the Envoy version to render for.

use std::fmt;
use std::str::FromStr;

/// A minor version of Envoy that Pointsman can render for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnvoyVersion(u16);

impl EnvoyVersion {
    /// The newest version tested. Later versions are rendered as this one.
    pub const NEWEST: Self = Self(40);
    const OLDEST: Self = Self(36);

    /// Returns version 1.`minor`, which this program must know.
    pub(super) const fn of_minor(minor: u16) -> Self {
        Self(minor)
    }

    /// Whether `envoy.clusters.composite` (attempt N goes to member N) skips members without a healthy host. From 1.37
    /// to 1.39, such a request got 503 and no further attempt. Before 1.40, `aggregate` stands in.
    pub fn has_composite_cluster(self) -> bool {
        self >= Self(40)
    }

    /// Whether a credential can have a prefix (`header_value_prefix`).
    pub fn has_credential_prefix(self) -> bool {
        self >= Self(37)
    }

    /// Whether the module's metrics are at the root. Before, they are below the cluster whose filter first loaded the
    /// module, whichever that was.
    pub fn has_metrics_at_root(self) -> bool {
        self >= Self(39)
    }

    /// Whether the admin interface can be limited to some paths (`allow_paths`).
    pub fn has_admin_paths(self) -> bool {
        self >= Self(37)
    }

    /// Whether a connection can be closed whose other side does not read
    /// (`per_connection_buffer_high_watermark_timeout`).
    pub fn has_watermark_timeout(self) -> bool {
        self >= Self(38)
    }

    /// Whether a route can have its own `request_body_buffer_limit`.
    pub fn has_route_buffer_limit(self) -> bool {
        self >= Self(37)
    }

    /// Whether white space around a key is removed before it is sent. Before, a line break makes the header invalid.
    pub fn trims_keys(self) -> bool {
        self >= Self(40)
    }

    /// Whether an attempt may be failed at the very end of its response. Envoy 1.36 crashes if a retry follows; 1.38
    /// and later were tested to work.
    pub fn survives_failure_at_end(self) -> bool {
        self >= Self(38)
    }
}

/// A text that is not a version to render for.
#[derive(Debug, PartialEq, Eq)]
pub struct InvalidVersion;

impl fmt::Display for InvalidVersion {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("expected Envoy version 1.36 or later, such as 1.40")
    }
}

impl std::error::Error for InvalidVersion {}

/// Parses `1.40`, optionally with a patch version and a distributor's suffix: `1.40.0`, `1.40.0-dev`.
impl FromStr for EnvoyVersion {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let minor = text.strip_prefix("1.").and_then(|rest| rest.split('.').next()).ok_or(InvalidVersion)?;
        let version = Self(minor.parse().map_err(|_| InvalidVersion)?);
        if version < Self::OLDEST { Err(InvalidVersion) } else { Ok(version.min(Self::NEWEST)) }
    }
}

impl fmt::Display for EnvoyVersion {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let read = |text: &str| text.parse::<EnvoyVersion>().map(|v| v.to_string());
        assert_eq!(read("1.36"), Ok("1.36".to_owned()));
        assert_eq!(read("1.38.2"), Ok("1.38".to_owned()));
        assert_eq!(read("1.41.0-dev"), Ok("1.40".to_owned()));
        for wrong in ["1.35", "2.0", "1", "", "1.x", "1.36-rc"] {
            assert_eq!(read(wrong), Err(InvalidVersion), "{wrong}");
        }
    }
}
