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
    /// One of them.
    Model,
    /// The state of the caller's quotas.
    Usage,
    /// OpenAI's "Create chat completion".
    Chat,
    /// Anthropic's "Create a Message".
    Messages,
    /// Anthropic's "Count tokens in a Message".
    CountTokens,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Health,
        Self::Models,
        Self::Model,
        Self::Usage,
        Self::Chat,
        Self::Messages,
        Self::CountTokens,
    ];

    /// Returns the endpoint of a path without query.
    pub fn of_path(path: &[u8]) -> Self {
        match path {
            b"/healthz" => Self::Health,
            b"/v1/models" => Self::Models,
            b"/v1/usage" => Self::Usage,
            b"/v1/chat/completions" => Self::Chat,
            b"/v1/messages" => Self::Messages,
            b"/v1/messages/count_tokens" => Self::CountTokens,
            path if model_id(path).is_some() => Self::Model,
            _ => Self::Unknown,
        }
    }

    /// Returns the only allowed method; `None` if there is no such endpoint.
    pub fn method(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Health | Self::Models | Self::Model | Self::Usage => Some("GET"),
            Self::Chat | Self::Messages | Self::CountTokens => Some("POST"),
        }
    }

    /// Returns its name in the audit record and in the cache's keys.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Health => "healthz",
            Self::Models => "models",
            Self::Model => "model",
            Self::Usage => "usage",
            Self::Chat => "chat",
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
        }
    }
}

/// Returns the id in the path of one model, which may have slashes: clients send them as they are or percent-encoded.
/// Returns `None` if the path is not that of a model.
pub fn model_id(path: &[u8]) -> Option<String> {
    let id = path.strip_prefix(b"/v1/models/").filter(|id| !id.is_empty())?;
    let mut decoded = Vec::with_capacity(id.len());
    let mut rest = id;
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', rest.get(1..).unwrap_or_default()),
            },
            _ => (*first, after),
        };
        decoded.push(byte);
        rest = after;
    }
    // No model has such a name, so it is not found.
    Some(String::from_utf8_lossy(&decoded).into_owned())
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
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
        assert_eq!(Endpoint::of_path(b"/v1/models/small"), Endpoint::Model);
        for path in ["/v1/models/", "/v1/models%2fsmall", "/v1/model/small", "/v1/modelsx/small"] {
            assert_eq!(Endpoint::of_path(path.as_bytes()), Endpoint::Unknown, "{path}");
        }
    }

    #[test]
    fn a_models_id_is_decoded_once() {
        let id = |path: &str| model_id(format!("/v1/models/{path}").as_bytes()).unwrap();
        for (path, decoded) in [
            ("Qwen/Qwen2.5:7b", "Qwen/Qwen2.5:7b"),
            ("Qwen%2FQwen2.5%3a7b", "Qwen/Qwen2.5:7b"),
            ("%c3%A4", "\u{e4}"),
            ("%2541", "%41"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%ff", "\u{fffd}"),
            ("a+b", "a+b"),
        ] {
            assert_eq!(id(path), decoded, "{path}");
        }
    }
}
