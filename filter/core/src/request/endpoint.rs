//! The gateway's endpoints: their paths, methods and names.

/// The endpoint of a request's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Not one of the gateway's paths.
    Unknown,
    /// The gateway's health.
    Health,
    /// The models that the caller may use.
    Models,
    /// The state of the caller's quotas.
    Usage,
    /// OpenAI's "Create chat completion".
    Chat,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Health, Self::Models, Self::Usage, Self::Chat];

    /// Returns the endpoint of a path without query.
    pub fn of_path(path: &[u8]) -> Self {
        match path {
            b"/healthz" => Self::Health,
            b"/v1/models" => Self::Models,
            b"/v1/usage" => Self::Usage,
            b"/v1/chat/completions" => Self::Chat,
            _ => Self::Unknown,
        }
    }

    /// Returns the only allowed method; `None` if there is no such endpoint.
    pub fn method(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Health | Self::Models | Self::Usage => Some("GET"),
            Self::Chat => Some("POST"),
        }
    }

    /// Returns its name in the audit record and in the cache's keys.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Health => "healthz",
            Self::Models => "models",
            Self::Usage => "usage",
            Self::Chat => "chat",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_has_a_path_and_a_word_of_its_own() {
        let words: HashSet<_> = Endpoint::ALL.iter().map(|endpoint| endpoint.word()).collect();
        assert_eq!(words.len(), Endpoint::ALL.len());
        assert_eq!(Endpoint::of_path(b"/v1/chat/completions").method(), Some("POST"));
        assert_eq!(Endpoint::of_path(b"/v1/chat/completions/").method(), None);
        assert_eq!(Endpoint::of_path(b"/healthz"), Endpoint::Health);
    }
}
