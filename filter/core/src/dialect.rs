//! The table of dialects: what differs from one wire format of chat APIs to another, one arm for each of them.
//!
//! Each dialect is a folder, both as a caller's and as a provider's. The rooms of decisions know none of them: they
//! read the facts of a request ([`crate::request::facts`]), and all else goes through this table.

pub mod answer;
pub mod client;
pub mod kept;
mod openai;

use crate::cache::local::recording::BudgetGuard;
use crate::config::Dialect;
use crate::dialect::answer::{NotKept, StreamEvent, WholeAnswer};
use crate::dialect::client::{ClientDialect, ClientRequest};
use crate::dialect::kept::KeptAnswer;
use crate::ids::{ModelId, TaskId, TenantId};
use crate::outcome::error_body::{ErrorBody, ProviderMessage};
use crate::outcome::outcome::Outcome;
use crate::outcome::refusal::Refusal;
use crate::outcome::reply::Reply;
use crate::policy::output_limit::OutputLimit;
use crate::policy::{Policy, Provider};
use crate::quota::reservation::Scope;
use crate::quota::window::WindowStatus;
use crate::request::splice::Splice;
use crate::routing::attempt::Failure;
use crate::wire::header::HeaderLine;

impl ClientRequest<'_> {
    /// The request as it goes upstream to each of the plan's `models`, in their order.
    pub fn upstream(&self, policy: &Policy, task: Option<TaskId>, models: &[ModelId], output: OutputLimit) -> Splice {
        match self {
            Self::OpenAi(request) => openai::upstream::build(policy, request, task, models, output),
        }
    }
}

/// What a caller is answered.
impl ClientDialect {
    /// The body of an error.
    pub fn error_body(self, error: &ErrorBody) -> Vec<u8> {
        match self {
            Self::OpenAi => openai::error::body(error),
        }
    }

    /// The answer to a request that is refused.
    pub fn refusal(self, refusal: &Refusal) -> Reply {
        Reply::refusal(refusal, |error| self.error_body(error))
    }

    /// The policy's own answer in place of a model's, because this `window` is used up.
    pub fn template(self, text: &str, stream: bool, window: &str, now_ms: u64) -> Reply {
        match self {
            Self::OpenAi => openai::reply::template(text, stream, window, now_ms),
        }
    }

    /// The models and tasks that the tenant may use.
    pub fn models(self, policy: &Policy, tenant: TenantId) -> Reply {
        match self {
            Self::OpenAi => openai::reply::models(policy, tenant),
        }
    }

    /// The headers that say how windows stand.
    pub fn rate_limits(self, statuses: &[(Scope, WindowStatus)]) -> Vec<HeaderLine> {
        match self {
            Self::OpenAi => openai::rate_limits::headers(statuses),
        }
    }

    /// The id of an answer of the cache, to the request of this trace.
    pub fn answer_id(self, trace_id: &str) -> String {
        let prefix = match self {
            Self::OpenAi => "chatcmpl-",
        };
        let mut id = String::with_capacity(prefix.len() + trace_id.len());
        id.push_str(prefix);
        id.extend(trace_id.chars().filter(char::is_ascii_alphanumeric));
        id
    }
}

/// How an answer in a caller's dialect is read.
impl ClientDialect {
    /// Reads a stream. `recording`: the longest answer that is kept, in bytes, and what the stream takes of all that
    /// are recorded; `None` where this one is not.
    pub fn stream_reader(self, recording: Option<(usize, BudgetGuard)>) -> StreamReader {
        match self {
            Self::OpenAi => StreamReader::OpenAi(openai::stream::StreamReader::new(recording)),
        }
    }

    /// Reads a whole answer.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read_whole(self, body: &[u8]) -> Result<WholeAnswer, Failure> {
        match self {
            Self::OpenAi => {
                openai::proof::completion(body).map(|read| WholeAnswer { usage: read.usage, text: read.generated })
            }
        }
    }

    /// Judges the beginning of an answer that is too long to hold.
    ///
    /// # Errors
    /// If the first that it says is an error.
    pub fn beginning(self, body: &[u8]) -> Result<(), Failure> {
        match self {
            Self::OpenAi => openai::proof::beginning(body),
        }
    }

    /// Reads what is said of a failure.
    pub fn read_error(self, body: &[u8]) -> ProviderMessage {
        match self {
            Self::OpenAi => openai::error::read(body),
        }
    }
}

/// Reads a stream, each event once.
#[derive(Debug)]
pub enum StreamReader {
    /// OpenAI chat completions.
    OpenAi(openai::stream::StreamReader),
}

impl StreamReader {
    /// The text, as JSON has it, of a chunk that is one event and differs from one before in its text only.
    pub fn known_text<'a>(&self, chunk: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::OpenAi(reader) => reader.known_text(chunk),
        }
    }

    /// One event has come.
    pub fn event(&mut self, event: &[u8]) -> StreamEvent {
        match self {
            Self::OpenAi(reader) => reader.event(event),
        }
    }

    /// Whether an event is the end marker, and good as that though no empty line follows.
    pub fn is_end(&self, event: &[u8]) -> bool {
        match self {
            Self::OpenAi(_) => openai::stream::is_end_event(event),
        }
    }

    /// The event that tells the caller that the stream broke.
    pub fn error_event(&self, code: Outcome) -> Vec<u8> {
        match self {
            Self::OpenAi(_) => openai::error::event(code),
        }
    }

    /// The answer as it is kept, once the stream has ended as it should; `None` if it was not recorded. `choices`: how
    /// many were asked for.
    pub fn take_kept(&mut self, choices: u64) -> Option<Result<KeptAnswer, NotKept>> {
        match self {
            Self::OpenAi(reader) => reader.take_kept(choices).map(|kept| kept.map(KeptAnswer::OpenAi)),
        }
    }
}

/// What a provider speaks.
impl Dialect {
    /// A byte for records, never to be given to another one.
    pub fn id(self) -> u8 {
        match self {
            Self::Openai => 1,
        }
    }

    /// The dialect of a byte.
    pub fn of_id(id: u8) -> Option<Self> {
        [Self::Openai].into_iter().find(|dialect| dialect.id() == id)
    }

    /// `:path` of a request to `provider`.
    pub fn path(self, provider: &Provider) -> String {
        match self {
            Self::Openai => [&*provider.base_path, "/chat/completions"].concat(),
        }
    }

    /// Judges the start of a stream, all of it that has come. `None`: the first event is not complete.
    pub fn first_event(self, so_far: &[u8], end_of_stream: bool) -> Option<Result<(), Failure>> {
        match self {
            Self::Openai => openai::proof::first_event(so_far, end_of_stream),
        }
    }

    /// Judges a whole body.
    ///
    /// # Errors
    /// Why it is no answer.
    pub fn whole(self, body: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Openai => openai::proof::completion(body).map(drop),
        }
    }

    /// Judges the beginning of a body that is too long to hold: an error is one, however long.
    ///
    /// # Errors
    /// If the first that it says is an error.
    pub fn beginning(self, body: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Openai => openai::proof::beginning(body),
        }
    }
}
