//! The table of dialects: everything that differs between the wire formats of chat APIs, with one arm per format.
//!
//! Each dialect has one folder, for its client side and its provider side. The deciding modules are independent of
//! dialects: they read the facts of a request ([`crate::request::facts`]). Everything else goes through this table.

pub mod answer;
mod anthropic;
mod chunk_template;
pub mod client;
mod first_event;
pub mod kept;
mod openai;
mod usable;

use crate::cache::local::recording::Recording;
use crate::config::Dialect;
use crate::dialect::answer::{Assembled, LongEvent, NotKept, StreamEvent, WholeAnswer};
use crate::dialect::client::{ClientDialect, ClientRequest};
use crate::dialect::kept::KeptAnswer;
use crate::ids::{ModelId, TaskId, TenantId};
use crate::outcome::error_body::{ErrorBody, ProviderMessage};
use crate::outcome::outcome::Outcome;
use crate::outcome::refusal::Refusal;
use crate::outcome::reply::Reply;
use crate::policy::Policy;
use crate::policy::output_limit::OutputLimit;
use crate::quota::reservation::Scope;
use crate::quota::window::WindowStatus;
use crate::request::splice::Splice;
use crate::routing::attempt::Failure;
use crate::service_tier::ServedTier;
use crate::usage::ReportedUsage;
use crate::wire::header::HeaderLine;

impl ClientRequest<'_> {
    /// Builds the request as it goes upstream to each of the plan's `models`, in their order.
    /// `is_assembled`: as a stream, although the caller wants a whole answer.
    pub fn upstream(
        &self,
        policy: &Policy,
        task: Option<TaskId>,
        models: &[ModelId],
        output: OutputLimit,
        is_assembled: bool,
    ) -> Splice {
        match self {
            Self::OpenAi(request) => openai::upstream::build(policy, request, task, models, output, is_assembled),
            Self::Anthropic(request) => anthropic::upstream::build(policy, request, task, models, output),
        }
    }

    /// Returns whether a stream tells all that the whole answer to this request would.
    pub fn is_streamable(&self) -> bool {
        match self {
            Self::OpenAi(request) => openai::streamable::is_streamable(&request.facts),
            Self::Anthropic(_) => false,
        }
    }
}

/// Answers to the caller.
impl ClientDialect {
    /// Returns an error with the status and the words that the dialect has for it.
    pub fn adapted(self, error: ErrorBody) -> ErrorBody {
        match self {
            Self::OpenAi => error,
            Self::Anthropic | Self::AnthropicCount => anthropic::error::adapted(error),
        }
    }

    /// Returns the body of an error, which [`Self::adapted`] has returned.
    pub fn error_body(self, error: &ErrorBody, request_id: &str) -> Vec<u8> {
        match self {
            Self::OpenAi => openai::error::body(error),
            Self::Anthropic | Self::AnthropicCount => anthropic::error::body(error, request_id),
        }
    }

    /// Returns the answer to a refused request.
    pub fn refusal(self, refusal: &Refusal, request_id: &str) -> Reply {
        let error = self.adapted(refusal.response());
        let body = self.error_body(&error, request_id);
        Reply::refusal(refusal, &error, body)
    }

    /// Returns the header in which the dialect has the id of a request, besides `x-request-id`.
    pub fn id_header(self) -> Option<&'static str> {
        match self {
            Self::OpenAi => None,
            Self::Anthropic | Self::AnthropicCount => Some("request-id"),
        }
    }

    /// Returns the policy's own answer, in place of a model's, because this `window` is used up.
    pub fn template(self, text: &str, stream: bool, window: &str, now_ms: u64) -> Reply {
        match self {
            Self::OpenAi => openai::reply::template(text, stream, window, now_ms),
            // Counting costs nothing, so no window is used up for it.
            Self::Anthropic | Self::AnthropicCount => anthropic::reply::template(text, stream, window),
        }
    }

    /// Returns the list of models and tasks that the tenant may use.
    pub fn models(self, policy: &Policy, tenant: TenantId) -> Reply {
        match self {
            Self::OpenAi => openai::reply::models(policy, tenant),
            Self::Anthropic | Self::AnthropicCount => anthropic::reply::models(policy, tenant),
        }
    }

    /// Returns the description of the model or task with this id, if the tenant may use it.
    pub fn model(self, policy: &Policy, tenant: TenantId, id: &str) -> Option<Reply> {
        match self {
            Self::OpenAi => openai::reply::model(policy, tenant, id),
            Self::Anthropic | Self::AnthropicCount => anthropic::reply::model(policy, tenant, id),
        }
    }

    /// Returns the rate-limit headers for these windows. `now_ms`: milliseconds since the Unix epoch.
    pub fn rate_limits(self, statuses: &[(Scope, WindowStatus)], now_ms: u64) -> Vec<HeaderLine> {
        match self {
            Self::OpenAi => openai::rate_limits::headers(statuses),
            Self::Anthropic | Self::AnthropicCount => anthropic::rate_limits::headers(statuses, now_ms),
        }
    }

    /// Returns the id of a cached answer, derived from the trace id of the request.
    pub fn answer_id(self, trace_id: &str) -> String {
        let prefix = match self {
            Self::OpenAi => "chatcmpl-",
            Self::Anthropic | Self::AnthropicCount => "msg_",
        };
        let mut id = String::with_capacity(prefix.len() + trace_id.len());
        id.push_str(prefix);
        id.extend(trace_id.chars().filter(char::is_ascii_alphanumeric));
        id
    }
}

/// Readers of answers in the caller's dialect.
impl ClientDialect {
    /// Returns a reader for a stream. `recording`: `None` if the stream is not recorded.
    pub fn stream_reader(self, recording: Option<Recording>) -> StreamReader {
        match self {
            Self::OpenAi => StreamReader::OpenAi(openai::stream::StreamReader::new(recording)),
            Self::Anthropic | Self::AnthropicCount => {
                StreamReader::Anthropic(anthropic::stream::StreamReader::new(recording))
            }
        }
    }

    /// Reads a whole answer.
    ///
    /// # Errors
    /// Why the body is not an answer.
    pub fn read_whole(self, body: &[u8]) -> Result<WholeAnswer, Failure> {
        match self {
            Self::OpenAi => {
                let answer = |read: openai::read::ReadAnswer| WholeAnswer {
                    usage: read.usage,
                    service_tier: read.service_tier,
                    text: read.generated,
                };
                openai::proof::completion(body).map(answer)
            }
            Self::Anthropic => anthropic::proof::answer(body),
            Self::AnthropicCount => anthropic::count::answer(body),
        }
    }

    /// Checks the beginning of an answer that is too long to hold.
    ///
    /// # Errors
    /// If its first member is an error.
    pub fn beginning(self, body: &[u8]) -> Result<(), Failure> {
        match self {
            Self::OpenAi => openai::proof::beginning(body),
            Self::Anthropic | Self::AnthropicCount => anthropic::proof::beginning(body),
        }
    }

    /// Reads the provider's message from the body of a failure.
    pub fn read_error(self, body: &[u8]) -> ProviderMessage {
        match self {
            // Its reader knows Anthropic's errors, too: many servers mix the two.
            Self::OpenAi | Self::Anthropic | Self::AnthropicCount => openai::provider_error::read(body),
        }
    }
}

/// Reads a stream, each event once.
#[derive(Debug)]
pub enum StreamReader {
    /// OpenAI chat completions.
    OpenAi(openai::stream::StreamReader),
    /// Anthropic Messages.
    Anthropic(anthropic::stream::StreamReader),
}

impl StreamReader {
    /// Returns the text, JSON-escaped, of a chunk that is a single event and differs from the last learned event in its
    /// text only. Returns `None` for any other chunk.
    pub fn known_text<'a>(&self, chunk: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::OpenAi(reader) => reader.known_text(chunk),
            Self::Anthropic(reader) => reader.known_text(chunk),
        }
    }

    /// Reads the next event.
    pub fn event(&mut self, event: &[u8]) -> StreamEvent {
        match self {
            Self::OpenAi(reader) => reader.event(event),
            Self::Anthropic(reader) => reader.event(event),
        }
    }

    /// Returns whether a part of the answer has come that the caller reads, other than text that
    /// [`Self::known_text`] returned.
    pub fn has_begun(&self) -> bool {
        match self {
            Self::OpenAi(reader) => reader.has_begun(),
            Self::Anthropic(reader) => reader.has_begun(),
        }
    }

    /// Returns whether every part of the answer has come, even without an end marker.
    pub fn is_finished(&self) -> bool {
        match self {
            Self::OpenAi(reader) => reader.is_finished(),
            // Only the end marker says so.
            Self::Anthropic(_) => false,
        }
    }

    /// Stops recording: the answer is not kept, for this reason.
    pub fn give_up(&mut self, why: &'static str) {
        match self {
            Self::OpenAi(reader) => reader.give_up(why),
            Self::Anthropic(reader) => reader.give_up(why),
        }
    }

    /// Reads the start of an event that is too long to hold.
    pub fn long_event(&mut self, start: &[u8]) -> LongEvent {
        match self {
            Self::OpenAi(reader) => reader.long_event(start),
            Self::Anthropic(reader) => reader.long_event(start),
        }
    }

    /// Reads the start or the tail of an event that was too long to hold, for the service tier that served.
    pub fn long_event_tier(&self, part: &[u8]) -> Option<ServedTier> {
        match self {
            Self::OpenAi(_) => openai::stream::StreamReader::long_event_tier(part),
            Self::Anthropic(_) => anthropic::stream::StreamReader::long_event_tier(part),
        }
    }

    /// Reads the `tail` of an event that was too long to hold, for its usage.
    pub fn long_event_usage(&self, tail: &[u8]) -> Option<ReportedUsage> {
        match self {
            Self::OpenAi(_) => openai::stream::StreamReader::long_event_usage(tail),
            Self::Anthropic(_) => anthropic::stream::StreamReader::long_event_usage(tail),
        }
    }

    /// Returns the event of a usage chunk without its usage.
    pub fn without_usage(&self, event: &[u8]) -> Vec<u8> {
        match self {
            Self::OpenAi(_) => openai::stream::StreamReader::without_usage(event),
            // It is never left out.
            Self::Anthropic(_) => event.to_vec(),
        }
    }

    /// Returns whether an event is the end marker, which is valid even without a closing empty line.
    pub fn is_end(&self, event: &[u8]) -> bool {
        match self {
            Self::OpenAi(_) => openai::stream::is_end_event(event),
            Self::Anthropic(_) => anthropic::stream::is_end_event(event),
        }
    }

    /// Returns the end marker as an event.
    pub fn end_event(&self) -> &'static [u8] {
        match self {
            Self::OpenAi(_) => openai::stream::END,
            Self::Anthropic(_) => anthropic::stream::END,
        }
    }

    /// Returns the event that reports a broken stream to the caller.
    pub fn error_event(&self, code: Outcome) -> Vec<u8> {
        match self {
            Self::OpenAi(_) => openai::error::event(code),
            Self::Anthropic(_) => anthropic::error::event(code),
        }
    }

    /// Returns why the answer for the caller cannot be put together, if so.
    pub fn unfit(&self) -> Option<NotKept> {
        match self {
            Self::OpenAi(reader) => reader.unfit(),
            Self::Anthropic(_) => None,
        }
    }

    /// Returns the answer for the caller, once the stream has ended properly; `None` if it is not put together.
    pub fn take_assembled(&mut self) -> Option<Result<Assembled, NotKept>> {
        match self {
            Self::OpenAi(reader) => reader.take_assembled(),
            Self::Anthropic(_) => None,
        }
    }

    /// Returns the answer to keep, once the stream has ended properly; `None` if it was not recorded. `choices`: the
    /// number of choices requested.
    pub fn take_kept(&mut self, choices: u64) -> Option<Result<KeptAnswer, NotKept>> {
        match self {
            Self::OpenAi(reader) => reader.take_kept(choices).map(|kept| kept.map(KeptAnswer::OpenAi)),
            Self::Anthropic(reader) => reader.take_kept().map(|kept| kept.map(KeptAnswer::Anthropic)),
        }
    }
}

/// The provider's side of a dialect.
impl Dialect {
    /// Returns the dialect's byte in records. It must never be reused for another dialect.
    pub fn id(self) -> u8 {
        match self {
            Self::Openai => 1,
            Self::Anthropic => 2,
        }
    }

    /// Returns the dialect with this byte.
    pub fn of_id(id: u8) -> Option<Self> {
        [Self::Openai, Self::Anthropic].into_iter().find(|dialect| dialect.id() == id)
    }

    /// Reads the provider's message from the body of a failure, or from a stream that begins with an error event.
    pub fn read_error(self, body: &[u8]) -> ProviderMessage {
        match self {
            Self::Openai | Self::Anthropic => openai::provider_error::read(body),
        }
    }

    /// Checks the start of a stream. `so_far`: everything that has arrived. Returns `None` while no event with data is
    /// complete and more may come.
    pub fn first_event(self, so_far: &[u8], judged: &mut usize, end_of_stream: bool) -> Option<Result<(), Failure>> {
        match self {
            Self::Openai => openai::proof::FIRST_EVENT.judge(so_far, judged, end_of_stream),
            Self::Anthropic => anthropic::proof::FIRST_EVENT.judge(so_far, judged, end_of_stream),
        }
    }

    /// Checks a whole body.
    ///
    /// # Errors
    /// Why the body is not an answer.
    pub fn whole(self, body: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Openai => openai::proof::completion(body).map(drop),
            Self::Anthropic if anthropic::count::is_count(body) => Ok(()),
            Self::Anthropic => anthropic::proof::answer(body).map(drop),
        }
    }

    /// Checks the beginning of a body that is too long to hold: it may be a long error.
    ///
    /// # Errors
    /// If its first member is an error.
    pub fn beginning(self, body: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Openai => openai::proof::beginning(body),
            Self::Anthropic => anthropic::proof::beginning(body),
        }
    }
}
