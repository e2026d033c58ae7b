//! Signs reasoning as a provider does: whoever sends it back must send it unchanged, and to the same provider.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Returns the signature of a reasoning text by the provider at listener `place`.
pub fn seal(place: usize, text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (place, text).hash(&mut hasher);
    STANDARD.encode(format!("pointsman-simulator/{place}/{:016x}", hasher.finish()))
}

/// Returns whether this provider made the signature, and for this text.
pub fn opens(place: usize, text: &str, signature: &str) -> bool {
    seal(place, text) == signature
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_text_and_its_provider_only() {
        let signature = seal(0, "hm");
        assert!(opens(0, "hm", &signature));
        assert!(!opens(0, "hm!", &signature));
        assert!(!opens(1, "hm", &signature));
    }
}
