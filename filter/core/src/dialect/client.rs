//! The dialects that callers speak, and a request as it was read in one of them.

use crate::dialect::openai::request::ChatRequest;
use crate::request::endpoint::Endpoint;
use crate::request::facts::{Facts, InvalidRequest};

/// The dialect of a caller: it asks in it, and is answered in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ClientDialect {
    /// OpenAI chat completions. Callers whose dialect is not known are answered in it.
    #[default]
    OpenAi,
}

/// A request as it was read.
#[derive(Debug)]
pub enum ClientRequest<'a> {
    /// OpenAI chat completions.
    OpenAi(ChatRequest<'a>),
}

impl ClientDialect {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::OpenAi];

    /// What is spoken at an endpoint.
    pub fn of(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Chat => Self::OpenAi,
            // All callers ask the same there, and are answered in the same way.
            Endpoint::Unknown | Endpoint::Health | Endpoint::Models | Endpoint::Usage => Self::default(),
        }
    }

    /// A byte for keys and records, never to be given to another one.
    pub fn id(self) -> u8 {
        match self {
            Self::OpenAi => 1,
        }
    }

    /// Reads a request of this dialect.
    ///
    /// # Errors
    /// [`InvalidRequest`], for the first mistake in the order of the text.
    pub fn parse(self, body: &[u8], max_nesting: u32) -> Result<ClientRequest<'_>, InvalidRequest> {
        match self {
            Self::OpenAi => ChatRequest::parse(body, max_nesting).map(ClientRequest::OpenAi),
        }
    }

    /// What a request says of how its answer is to be sent, and not of what it is to be: members, and members of
    /// members.
    pub fn delivery_members(self) -> &'static [(&'static str, Option<&'static str>)] {
        match self {
            Self::OpenAi => &[("stream", None), ("stream_options", Some("include_usage"))],
        }
    }
}

impl<'a> ClientRequest<'a> {
    /// What decisions need to know of it.
    pub fn facts(&self) -> &Facts<'a> {
        match self {
            Self::OpenAi(request) => &request.facts,
        }
    }

    /// About how many bytes what was found takes, besides the body.
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

    /// The compiler names a missing arm, but not what is missing in a list.
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
