//! An answer as the cache keeps it, in the dialect of the caller who asked first.

use crate::dialect::answer::NotKept;
use crate::dialect::client::ClientDialect;
use crate::dialect::openai::completion::Completion;
use crate::dialect::openai::replay;
use crate::usage::Usage;
use crate::wire::bytes::{Reader, Writer};

/// A kept answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeptAnswer {
    /// An OpenAI chat completion.
    OpenAi(Completion),
}

impl ClientDialect {
    /// Takes a whole answer apart. `choices`: how many were asked for.
    ///
    /// # Errors
    /// [`NotKept`] for what is not a whole, willing answer.
    pub fn keep(self, body: &[u8], choices: u64) -> Result<KeptAnswer, NotKept> {
        match self {
            Self::OpenAi => {
                let whole = serde_json::from_slice(body).map_err(|_| NotKept("shape"))?;
                Completion::from_whole(whole, choices).map(KeptAnswer::OpenAi)
            }
        }
    }
}

impl KeptAnswer {
    /// Its dialect.
    pub fn dialect(&self) -> ClientDialect {
        match self {
            Self::OpenAi(_) => ClientDialect::OpenAi,
        }
    }

    /// About how many bytes it takes besides `Self`.
    pub fn bytes(&self) -> usize {
        match self {
            Self::OpenAi(completion) => completion.bytes(),
        }
    }

    /// Adds its bytes to `out`.
    pub fn encode(&self, out: &mut Writer) {
        out.u8(self.dialect().id());
        match self {
            Self::OpenAi(completion) => completion.encode(out),
        }
    }

    /// Reads it back; `None` for anything else.
    pub fn decode(reader: &mut Reader) -> Option<Self> {
        let id = reader.u8()?;
        match ClientDialect::ALL.into_iter().find(|dialect| dialect.id() == id)? {
            ClientDialect::OpenAi => Completion::decode(reader).map(Self::OpenAi),
        }
    }

    /// The answer to a caller that wants no stream, under this id.
    pub fn whole(&self, id: &str, now_ms: u64) -> Vec<u8> {
        match self {
            Self::OpenAi(completion) => replay::whole(completion, id, now_ms),
        }
    }

    /// The answer to a caller that wants a stream, to its last event. `counted`: its usage, as it was charged.
    pub fn stream(&self, counted: &Usage, id: &str, now_ms: u64, wants_usage: bool) -> Vec<u8> {
        match self {
            Self::OpenAi(completion) => replay::stream(completion, counted, id, now_ms, wants_usage),
        }
    }
}

#[cfg(test)]
impl KeptAnswer {
    /// One whose message has so many bytes.
    pub fn of_length(len: usize) -> Self {
        let choice = crate::dialect::openai::completion::Choice { message: "x".repeat(len), ..Default::default() };
        Self::OpenAi(Completion { choices: vec![choice], ..Completion::default() })
    }
}
