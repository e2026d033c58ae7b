//! The OCI image of the module: its name in a registry, pinned by the digest of its manifest.

use std::str::FromStr;

/// An image, pinned by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    name: ImageName,
    digest: ImageDigest,
}

impl Image {
    /// Pins an image.
    pub fn new(name: ImageName, digest: ImageDigest) -> Self {
        Self { name, digest }
    }

    /// Returns the reference that a container runtime pulls: `NAME@sha256:…`.
    pub fn reference(&self) -> String {
        format!("{}@sha256:{}", self.name.0, self.digest.0)
    }

    /// Returns the address that Istio's agent fetches.
    pub fn uri(&self) -> String {
        format!("oci://{}", self.reference())
    }

    /// Returns the digest as 64 hexadecimal digits. Istio's agent compares it with that of the manifest.
    pub fn digest(&self) -> &str {
        &self.digest.0
    }
}

/// The name of an image: registry, repository and possibly a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName(String);

impl FromStr for ImageName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains("://") {
            return Err("expected a name without a scheme, such as registry.example.com/pointsman".to_owned());
        }
        if text.contains('@') {
            return Err("give the digest with --image-digest".to_owned());
        }
        // The same name would mean another registry to each program that completes it.
        let registry = text.split_once('/').map(|(registry, _)| registry);
        if !registry.is_some_and(|registry| registry.contains(['.', ':']) || registry == "localhost") {
            return Err("expected a name with its registry, such as registry.example.com/pointsman".to_owned());
        }
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"./:-_".contains(&b);
        let (name, tag) = match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (text, ""),
        };
        if !name.bytes().all(allowed) || !tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return Err("expected a name of lowercase letters, digits and . / : - _".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// The SHA-256 digest of an image's manifest, as 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDigest(String);

impl FromStr for ImageDigest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix("sha256:").unwrap_or_default();
        let is_hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if digits.len() != 64 || !is_hex {
            return Err("expected sha256: and 64 hexadecimal digits, as `docker push` prints them".to_owned());
        }
        Ok(Self(digits.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_pinned_by_its_digest() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let pinned = |name: &str| Image::new(name.parse().unwrap(), digest.parse().unwrap());
        assert_eq!(pinned("localhost:5000/p/q").uri(), format!("oci://localhost:5000/p/q@{digest}"));
        assert_eq!(pinned("ghcr.io/p/q:V1").reference(), format!("ghcr.io/p/q:V1@{digest}"));
        assert_eq!(pinned("ghcr.io/p").digest(), "0a".repeat(32));
    }

    #[test]
    fn a_name_without_registry_or_with_a_digest_is_refused() {
        for wrong in ["pointsman", "p/q", "oci://ghcr.io/p", "ghcr.io/p@sha256:0a", "ghcr.io/P", "ghcr.io/p q", ""] {
            assert!(wrong.parse::<ImageName>().is_err(), "{wrong}");
        }
        for wrong in ["", "sha256:", "latest", &"0".repeat(64), &format!("sha256:{}", "0A".repeat(32))] {
            assert!(wrong.parse::<ImageDigest>().is_err(), "{wrong}");
        }
    }
}
