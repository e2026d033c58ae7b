//! The dialects that callers speak, and a request parsed in one of them.

use crate::dialect::anthropic::request::{Asks, MessagesRequest};
use crate::dialect::openai::request::ChatRequest;
use crate::request::endpoint::Endpoint;
use crate::request::facts::{Facts, InvalidRequest};

/// The dialect of a caller's request and of the answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClientDialect {
    /// OpenAI chat completions. Also used to answer callers whose dialect is unknown.
    #[default]
    OpenAi,
    /// Anthropic Messages.
    Anthropic,
    /// Anthropic's count of the input tokens of a request.
    AnthropicCount,
}

/// A parsed request.
#[derive(Debug)]
pub enum ClientRequest<'a> {
    /// OpenAI chat completions.
    OpenAi(ChatRequest<'a>),
    /// Anthropic Messages.
    Anthropic(MessagesRequest<'a>),
}

impl ClientDialect {
    /// Every dialect.
    pub const ALL: [Self; 3] = [Self::OpenAi, Self::Anthropic, Self::AnthropicCount];

    /// Returns the dialect of an endpoint.
    pub fn of(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Chat => Self::OpenAi,
            Endpoint::Messages => Self::Anthropic,
            Endpoint::CountTokens => Self::AnthropicCount,
            // A header says in which dialect the caller wants these.
            Endpoint::Unknown | Endpoint::Health | Endpoint::Models | Endpoint::Model | Endpoint::Usage => {
                Self::default()
            }
        }
    }

    /// Returns the dialect's byte in keys and records. It must never be reused for another dialect.
    pub fn id(self) -> u8 {
        match self {
            Self::OpenAi => 1,
            Self::Anthropic => 2,
            Self::AnthropicCount => 3,
        }
    }

    /// Parses a request in this dialect.
    ///
    /// # Errors
    /// [`InvalidRequest`], for the first mistake in the order of the text.
    pub fn parse(self, body: &[u8], max_nesting: u32) -> Result<ClientRequest<'_>, InvalidRequest> {
        match self {
            Self::OpenAi => ChatRequest::parse(body, max_nesting).map(ClientRequest::OpenAi),
            Self::Anthropic => MessagesRequest::parse(Asks::Answer, body, max_nesting).map(ClientRequest::Anthropic),
            Self::AnthropicCount => {
                MessagesRequest::parse(Asks::Count, body, max_nesting).map(ClientRequest::Anthropic)
            }
        }
    }

    /// Returns whether the dialect has headers of its own, such as the version of its API and the features in beta that
    /// a body uses. A provider that speaks the dialect gets them.
    pub fn has_headers(self) -> bool {
        match self {
            Self::OpenAi => false,
            Self::Anthropic | Self::AnthropicCount => true,
        }
    }

    /// Returns the headers that a provider needs and that a caller may leave out.
    pub fn default_headers(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::OpenAi => &[],
            Self::Anthropic | Self::AnthropicCount => &[("anthropic-version", "2023-06-01")],
        }
    }

    /// Returns the members that affect only how the answer is delivered, not its content: top-level members, or members
    /// of one.
    pub fn delivery_members(self) -> &'static [(&'static str, Option<&'static str>)] {
        match self {
            Self::OpenAi => &[("stream", None), ("stream_options", Some("include_usage"))],
            Self::Anthropic | Self::AnthropicCount => &[("stream", None)],
        }
    }
}

impl<'a> ClientRequest<'a> {
    /// Returns the facts that decisions are based on.
    pub fn facts(&self) -> &Facts<'a> {
        match self {
            Self::OpenAi(request) => &request.facts,
            Self::Anthropic(request) => &request.facts,
        }
    }

    /// Returns the approximate memory of the parsed request in bytes, without the body.
    pub fn bytes_found(&self) -> usize {
        size_of::<Self>() + self.facts().bytes_found()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::kept::KeptAnswer;
    use crate::wire::bytes::Reader;
    use std::collections::HashSet;

    /// The compiler reports a missing match arm, but not a missing entry in `ALL`.
    #[test]
    fn every_dialect_that_is_spoken_somewhere_is_listed_under_a_byte_of_its_own() {
        for endpoint in Endpoint::ALL {
            assert!(ClientDialect::ALL.contains(&ClientDialect::of(endpoint)), "{endpoint:?}");
        }
        let ids: HashSet<u8> = ClientDialect::ALL.iter().map(|dialect| dialect.id()).collect();
        assert_eq!(ids.len(), ClientDialect::ALL.len());
        assert!(KeptAnswer::decode(&mut Reader::new(&[u8::MAX])).is_none());
    }
}
