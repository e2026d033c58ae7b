//! An answer as the cache stores it, in the dialect of the caller that first asked for it.

use crate::dialect::answer::NotKept;
use crate::dialect::anthropic;
use crate::dialect::anthropic::message::Message;
use crate::dialect::client::ClientDialect;
use crate::dialect::openai::completion::Completion;
use crate::dialect::openai::read::MAX_DEPTH;
use crate::dialect::openai::replay;
use crate::usage::Usage;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::json;

/// A stored answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptAnswer {
    /// An OpenAI chat completion.
    OpenAi(Completion),
    /// A message of Anthropic's.
    Anthropic(Message),
}

impl ClientDialect {
    /// Parses a whole answer for storage. `choices`: the number of choices requested.
    ///
    /// # Errors
    /// [`NotKept`] if the answer is incomplete, filtered, refused or of an unknown shape.
    pub fn keep(self, body: &[u8], choices: u64) -> Result<KeptAnswer, NotKept> {
        match self {
            Self::OpenAi => {
                let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
                if json::has_doubtful_names(body, MAX_DEPTH) {
                    return Err(NotKept("shape"));
                }
                let whole = serde_json::from_slice(body).map_err(|_| NotKept("shape"))?;
                Completion::from_whole(whole, choices).map(KeptAnswer::OpenAi)
            }
            Self::Anthropic => Message::from_whole(body).map(KeptAnswer::Anthropic),
            Self::AnthropicCount => Err(NotKept("shape")),
        }
    }
}

impl KeptAnswer {
    /// Returns its dialect.
    pub fn dialect(&self) -> ClientDialect {
        match self {
            Self::OpenAi(_) => ClientDialect::OpenAi,
            Self::Anthropic(_) => ClientDialect::Anthropic,
        }
    }

    /// Returns its approximate memory in bytes, besides `Self`.
    pub fn bytes(&self) -> usize {
        match self {
            Self::OpenAi(completion) => completion.bytes(),
            Self::Anthropic(message) => message.bytes(),
        }
    }

    /// Appends its encoding to `out`.
    pub fn encode(&self, out: &mut Writer) {
        out.u8(self.dialect().id());
        match self {
            Self::OpenAi(completion) => completion.encode(out),
            Self::Anthropic(message) => message.encode(out),
        }
    }

    /// Decodes it; `None` if the bytes are not a stored answer.
    pub fn decode(reader: &mut Reader) -> Option<Self> {
        let id = reader.u8()?;
        match ClientDialect::ALL.into_iter().find(|dialect| dialect.id() == id)? {
            ClientDialect::OpenAi => Completion::decode(reader).map(Self::OpenAi),
            ClientDialect::Anthropic => Message::decode(reader).map(Self::Anthropic),
            ClientDialect::AnthropicCount => None,
        }
    }

    /// Returns the answer under this id, for a caller that does not stream.
    pub fn whole(&self, id: &str, now_ms: u64) -> Vec<u8> {
        match self {
            Self::OpenAi(completion) => replay::whole(completion, id, now_ms),
            Self::Anthropic(message) => anthropic::replay::whole(message, id),
        }
    }

    /// Returns the answer as a complete stream. `counted`: its usage as it was charged.
    pub fn stream(&self, counted: &Usage, id: &str, now_ms: u64, wants_usage: bool) -> Vec<u8> {
        match self {
            Self::OpenAi(completion) => replay::stream(completion, counted, id, now_ms, wants_usage),
            Self::Anthropic(message) => anthropic::replay::stream(message, id),
        }
    }
}

#[cfg(test)]
impl KeptAnswer {
    /// Returns an answer whose message has `len` bytes.
    pub fn of_length(len: usize) -> Self {
        let choice = crate::dialect::openai::completion::Choice { message: "x".repeat(len), ..Default::default() };
        Self::OpenAi(Completion { choices: vec![choice], ..Completion::default() })
    }
}
