//! The dialects that callers speak, and a request parsed in one of them.

use crate::dialect::openai::request::ChatRequest;
use crate::request::endpoint::Endpoint;
use crate::request::facts::{Facts, InvalidRequest};

/// The dialect of a caller's request and of the answer to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClientDialect {
    /// OpenAI chat completions. Also used to answer callers whose dialect is unknown.
    #[default]
    OpenAi,
}

/// A parsed request.
#[derive(Debug)]
pub enum ClientRequest<'a> {
    /// OpenAI chat completions.
    OpenAi(ChatRequest<'a>),
}

impl ClientDialect {
    /// Every dialect.
    pub const ALL: [Self; 1] = [Self::OpenAi];

    /// Returns the dialect of an endpoint.
    pub fn of(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Chat => Self::OpenAi,
            // These endpoints have the same requests and answers in every dialect.
            Endpoint::Unknown | Endpoint::Health | Endpoint::Models | Endpoint::Model | Endpoint::Usage => {
                Self::default()
            }
        }
    }

    /// Returns the dialect's byte in keys and records. It must never be reused for another dialect.
    pub fn id(self) -> u8 {
        match self {
            Self::OpenAi => 1,
        }
    }

    /// Parses a request in this dialect.
    ///
    /// # Errors
    /// [`InvalidRequest`], for the first mistake in the order of the text.
    pub fn parse(self, body: &[u8], max_nesting: u32) -> Result<ClientRequest<'_>, InvalidRequest> {
        match self {
            Self::OpenAi => ChatRequest::parse(body, max_nesting).map(ClientRequest::OpenAi),
        }
    }

    /// Returns the members that affect only how the answer is delivered, not its content: top-level members, or members
    /// of one.
    pub fn delivery_members(self) -> &'static [(&'static str, Option<&'static str>)] {
        match self {
            Self::OpenAi => &[("stream", None), ("stream_options", Some("include_usage"))],
        }
    }
}

impl<'a> ClientRequest<'a> {
    /// Returns the facts that decisions are based on.
    pub fn facts(&self) -> &Facts<'a> {
        match self {
            Self::OpenAi(request) => &request.facts,
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
