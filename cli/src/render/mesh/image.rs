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
        if !is_reference(text) {
            return Err(
                "expected a name such as registry.example.com/team/pointsman:1.0, as container registries have it: \
                        lowercase letters and digits, parts that / separates, and . _ __ or - only inside a part"
                    .to_owned(),
            );
        }
        Ok(Self(text.to_owned()))
    }
}

/// Returns whether a text is a reference with a registry, perhaps with a tag (`pkg/reference` of the OCI distribution).
fn is_reference(text: &str) -> bool {
    let Some((registry, rest)) = text.split_once('/') else { return false };
    let (repository, tag) = match rest.rsplit_once(':') {
        Some((repository, tag)) => (repository, Some(tag)),
        None => (rest, None),
    };
    registry.len() + 1 + repository.len() <= 255
        && is_registry(registry)
        && repository.split('/').all(is_component)
        && tag.is_none_or(is_tag)
}

/// Returns whether a text is a host name, perhaps with a port. Capitals would be right in it, but not everywhere else.
fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(is_inner) && !part.starts_with('-') && !part.ends_with('-');
    host.split('.').all(is_part) && (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit())
}

/// Returns whether a text is a part of a repository's name: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`.
fn is_component(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |run: &str| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-');
    text.starts_with(is_inner) && text.ends_with(is_inner) && text.split(is_inner).all(is_separator)
}

/// Returns whether a text is a tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
fn is_tag(text: &str) -> bool {
    text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
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
    fn a_name_has_the_form_that_registries_take() {
        for right in ["ghcr.io/p/q-r_s__t.u--v", "r.example:5000/p:v1.0_A-b", "localhost/p", "10.0.0.1/p:_x", "r.io/0"]
        {
            assert!(right.parse::<ImageName>().is_ok(), "{right}");
        }
        for wrong in [
            "r.io/",
            "r.io//p",
            "r.io/p/",
            "r.io/-p",
            "r.io/p-",
            "r.io/p..q",
            "r.io/p___q",
            "r.io/p._q",
            "r.io/p:",
            "r.io/p:-x",
            "r.io/p:a/b",
            "r.io/p:a:b",
            "r.io:/p",
            "r.io:x/p",
            "r..io/p",
            "-r.io/p",
            ".r.io/p",
            "r_x.io/p",
            "../p",
            &format!("r.io/{}", "p".repeat(251)),
            &format!("r.io/p:{}", "t".repeat(129)),
        ] {
            assert!(wrong.parse::<ImageName>().is_err(), "{wrong}");
        }
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
