//! The gateway's endpoints: which path is which, by what method it is asked, and its word in the audit record.

/// What a request's path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// None of the gateway's.
    Unknown,
    /// Whether the gateway is up.
    Health,
    /// The models that the caller may use.
    Models,
    /// How the caller's quotas stand.
    Usage,
    /// OpenAI's "Create chat completion".
    Chat,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Health, Self::Models, Self::Usage, Self::Chat];

    /// The endpoint of a path, which has no query.
    pub fn of_path(path: &[u8]) -> Self {
        match path {
            b"/healthz" => Self::Health,
            b"/v1/models" => Self::Models,
            b"/v1/usage" => Self::Usage,
            b"/v1/chat/completions" => Self::Chat,
            _ => Self::Unknown,
        }
    }

    /// The one method that it takes; `None` if there is no such endpoint.
    pub fn method(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Health | Self::Models | Self::Usage => Some("GET"),
            Self::Chat => Some("POST"),
        }
    }

    /// Its word in the audit record and in the cache's keys.
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
