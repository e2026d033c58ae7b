//! The answer as it passes the gateway stage: its kind, its progress and its usage.

use crate::cache::local::recording::Recording;
use crate::dialect::StreamReader;
use crate::dialect::answer::{Fault, LongEvent, NotKept, StreamEvent, WithoutUsage};
use crate::dialect::client::ClientDialect;
use crate::dialect::kept::KeptAnswer;
use crate::exchange::answer::held::Held;
use crate::exchange::answer::passthrough::Passthrough;
use crate::outcome::outcome::Outcome;
use crate::routing::attempt::Failure;
use crate::service_tier::ServedTier;
use crate::tokens::TokenCounter;
use crate::usage::{Estimated, ReportedUsage, Usage};
use crate::wire::sse::{EventCutter, MAX_HELD, Piece};

/// The answer of one exchange.
#[derive(Debug)]
pub enum Answer {
    /// No answer yet.
    Awaited,
    /// A failure, from a provider or from Envoy.
    Failed {
        /// Status the caller gets.
        status: u16,
        /// What failed.
        code: Option<Outcome>,
    },
    /// A whole completion.
    Whole {
        /// HTTP status.
        status: u16,
        /// The reported usage, if any.
        usage: Option<ReportedUsage>,
        /// The service tier that it names.
        service_tier: Option<ServedTier>,
        /// Estimate of the generated text.
        text: TokenCounter,
        /// Whether the whole body arrived and was a completion.
        complete: bool,
        /// Why it broke off after the caller had received part of it.
        error: Option<Outcome>,
    },
    /// A stream.
    Stream(Box<Stream>),
}

/// Bytes kept of the end of a long event, which may have the usage.
const TAIL: usize = 4096;

/// Most bytes that may follow an error: many servers still send their end marker.
const MAX_SURPLUS_OF_ERROR: usize = 1 << 10;

/// Most bytes that may follow the end marker.
const MAX_SURPLUS: usize = 64 << 10;

/// A stream's progress.
#[derive(Debug)]
pub struct Stream {
    status: u16,
    hide_usage: bool,
    cutter: EventCutter,
    reader: StreamReader,
    usage: Option<ReportedUsage>,
    service_tier: Option<ServedTier>,
    text: TokenCounter,
    /// Whether text came after the usage, so the usage does not cover it.
    is_usage_old: bool,
    first_token_ms: Option<u64>,
    done: bool,
    ended: bool,
    /// Whether the caller has been told of the error.
    told: bool,
    error: Option<Outcome>,
    /// Longest event, in bytes.
    max_event: u64,
    /// Bytes of the long event that is passing.
    long_event: u64,
    /// Whether that event is text, not an image.
    is_long_text: bool,
    /// Its last bytes so far.
    tail: Vec<u8>,
    /// Bytes after the end of the stream.
    surplus: usize,
    /// Set if the caller gets nothing before a whole answer has been put together.
    held: Option<Held>,
}

/// How a stream is treated.
#[derive(Debug)]
pub struct StreamRules {
    /// Whether the caller did not ask for the usage chunk.
    pub hide_usage: bool,
    /// How it is recorded; `None` if it is not.
    pub recording: Option<Recording>,
    /// Longest event, in bytes.
    pub max_event: u64,
    /// Set if the caller gets nothing before a whole answer has been put together.
    pub held: Option<Held>,
}

impl Answer {
    /// A failure with this status; `cause` is set where Envoy answered.
    pub fn failed(status: u16, cause: Option<Outcome>) -> Self {
        Self::Failed { status, code: cause }
    }

    /// Whether the answer broke off and only Envoy knows why.
    pub fn is_cut_off(&self) -> bool {
        match self {
            // A failure gets its code once the caller has been told of it.
            Self::Awaited | Self::Failed { code: None, .. } => true,
            Self::Failed { .. } => false,
            Self::Whole { complete, .. } => !complete,
            Self::Stream(stream) => !stream.ended && !stream.done && stream.error.is_none(),
        }
    }

    /// Records why the answer broke off, and the status Envoy sent the caller.
    pub fn cut_off(&mut self, why: Outcome, status: u16) {
        match self {
            Self::Stream(stream) => stream.cut_off(why, status),
            Self::Whole { text, error, .. } if !text.is_empty() => *error = Some(why),
            // The answer was held, so the caller gets Envoy's own reply, which does not know an answer had begun.
            Self::Whole { .. } | Self::Awaited | Self::Failed { code: None, .. } => {
                let why = if why == Outcome::StreamReset && status > 0 { Outcome::ProviderUnreachable } else { why };
                *self = Self::Failed { status, code: Some(why) };
            }
            Self::Failed { .. } => {}
        }
    }

    /// A completion whose body is still to come.
    pub fn buffered(status: u16) -> Self {
        let text = TokenCounter::default();
        Self::Whole { status, usage: None, service_tier: None, text, complete: false, error: None }
    }

    /// A stream that is still to come.
    pub fn stream(dialect: ClientDialect, status: u16, rules: StreamRules) -> Self {
        let StreamRules { hide_usage, recording, max_event, held } = rules;
        Self::Stream(Box::new(Stream {
            status,
            hide_usage,
            cutter: EventCutter::default(),
            reader: dialect.stream_reader(recording),
            usage: None,
            service_tier: None,
            text: TokenCounter::default(),
            is_usage_old: false,
            first_token_ms: None,
            done: false,
            ended: false,
            told: false,
            error: None,
            max_event,
            long_event: 0,
            is_long_text: false,
            tail: Vec::new(),
            surplus: 0,
            held,
        }))
    }

    /// Status the caller gets.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Awaited => None,
            Self::Failed { status, .. } | Self::Whole { status, .. } => Some(*status),
            Self::Stream(stream) => Some(stream.status),
        }
    }

    /// What went wrong, if anything did.
    pub fn error_code(&self) -> Option<Outcome> {
        match self {
            Self::Awaited => Some(Outcome::NoResponse),
            Self::Failed { code, .. } => code.or(Some(Outcome::ProviderError)),
            Self::Whole { complete, error, .. } => error.or((!complete).then_some(Outcome::InvalidResponse)),
            Self::Stream(stream) => match stream.error {
                Some(error) => Some(error),
                // After the end marker, the connection's fate does not matter.
                None if stream.done => None,
                None if !stream.ended => Some(Outcome::StreamAborted),
                None => Some(Outcome::StreamTruncated),
            },
        }
    }

    /// Whether the stream has reached its end marker.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.done && stream.error.is_none())
    }

    /// Whether the stream has reached its end marker or an error.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Stream(stream) if stream.done || stream.error.is_some())
    }

    /// Whether the provider goes on for too long after the end of the stream. The error event ends the stream for the
    /// caller. After the end marker it may still read to the end of the body.
    pub fn goes_on_too_long(&self) -> bool {
        match self {
            Self::Stream(stream) if stream.told => stream.surplus > MAX_SURPLUS_OF_ERROR,
            Self::Stream(stream) => stream.surplus > MAX_SURPLUS,
            _ => false,
        }
    }

    /// Milliseconds from the start of the exchange to the first event of the stream.
    pub fn time_to_first_token_ms(&self) -> Option<u64> {
        match self {
            Self::Stream(stream) => stream.first_token_ms,
            _ => None,
        }
    }

    /// The answer's usage, and which of it is estimated. `input_bytes`: size of the prompt.
    pub fn usage(&self, input_bytes: usize) -> Option<(Usage, Estimated)> {
        let (usage, text, any) = match self {
            Self::Awaited | Self::Failed { .. } => return None,
            Self::Whole { usage, text, complete, .. } => (usage, *text, *complete || !text.is_empty()),
            Self::Stream(stream) => (&stream.usage, stream.text, stream.first_token_ms.is_some()),
        };
        let is_old = matches!(self, Self::Stream(stream) if stream.is_usage_old);
        match usage {
            // Visible text cannot have used zero tokens.
            Some(usage) if is_old || usage.output == 0 => Some(Usage::complete(*usage, input_bytes, text)),
            Some(usage) => Some(Usage::complete(*usage, input_bytes, TokenCounter::default())),
            None => any.then(|| (Usage::estimate(input_bytes, text), Estimated { input: true, output: true })),
        }
    }

    /// The service tier that the answer names.
    pub fn service_tier(&self) -> Option<ServedTier> {
        match self {
            Self::Awaited | Self::Failed { .. } => None,
            Self::Whole { service_tier, .. } => *service_tier,
            Self::Stream(stream) => stream.service_tier,
        }
    }

    /// The whole body of a completion has arrived.
    ///
    /// # Errors
    /// Why the body is not a completion.
    pub fn on_full_body(&mut self, dialect: ClientDialect, body: &[u8]) -> Result<(), Failure> {
        if let Self::Whole { usage, service_tier, text, complete, .. } = self {
            let answer = dialect.read_whole(body)?;
            *usage = answer.usage;
            *service_tier = answer.service_tier;
            *text = answer.text;
            *complete = true;
        }
        Ok(())
    }

    /// A completion broke off after this part of its body, when the caller had already received some.
    pub fn on_truncated(&mut self, body: &[u8]) {
        if let Self::Whole { text, complete: false, .. } = self {
            *text = TokenCounter::default();
            text.push(body);
        }
    }

    /// This many bytes of a completion's body have passed unread; `is_whole`: that was all of it.
    pub fn on_uninspected(&mut self, bytes: usize, is_whole: bool) {
        if let Self::Whole { text, complete, .. } = self {
            *text = TokenCounter::default();
            text.push_unseen(bytes);
            *complete |= is_whole;
        }
    }

    /// The end of the stream did not reach the caller.
    pub fn truncated(&mut self) {
        if let Self::Stream(stream) = self {
            stream.error.get_or_insert(Outcome::StreamTruncated);
        }
    }

    /// A chunk of the stream has arrived; `Some` replaces it. `elapsed_ms`: milliseconds since the exchange began,
    /// called only when needed.
    pub fn stream_chunk(&mut self, chunk: &[u8], end_of_stream: bool, elapsed_ms: impl Fn() -> u64) -> Option<Vec<u8>> {
        let Self::Stream(stream) = self else { return None };
        stream.ended |= end_of_stream;
        stream.push(chunk, end_of_stream, elapsed_ms)
    }
}

impl Stream {
    /// Takes the recorded answer in its stored form. `choices`: how many were requested.
    pub fn take_kept(&mut self, choices: u64) -> Option<Result<KeptAnswer, NotKept>> {
        self.reader.take_kept(choices)
    }

    fn push(&mut self, chunk: &[u8], end_of_stream: bool, elapsed_ms: impl Fn() -> u64) -> Option<Vec<u8>> {
        if self.has_nothing_to_do(end_of_stream)
            && chunk.len() <= MAX_HELD
            && let Some(text) = self.reader.known_text(chunk)
        {
            self.is_usage_old = self.usage.is_some();
            self.text.push(text);
            return None;
        }
        if self.done || self.told {
            self.surplus += chunk.len();
        }
        let mut cutter = std::mem::take(&mut self.cutter);
        let mut pass = Passthrough::new(chunk, cutter.holds());
        cutter.push(chunk, |piece| match self.piece(piece, &elapsed_ms) {
            Forward::Yes(bytes) => pass.keep(bytes),
            Forward::No => {
                pass.leave_out();
            }
            Forward::Instead(bytes) => pass.leave_out().extend_from_slice(&bytes),
        });
        if end_of_stream || self.error.is_some() {
            // An event without a closing empty line was cut off, unless it is the end marker.
            let rest = cutter.take_rest();
            if self.reader.is_end(&rest) && matches!(self.event(&rest, &elapsed_ms), Forward::Yes(_)) {
                pass.keep(&rest);
            } else if !rest.is_empty() {
                pass.leave_out();
            } else if !self.done && self.error.is_none() && !self.is_in_event() && self.reader.is_finished() {
                self.done = true;
                self.note_unmarked();
                pass.leave_out().extend_from_slice(self.reader.end_event());
            }
        }
        if self.done {
            // Ignore everything after the end marker.
            drop(cutter.take_rest());
        }
        if end_of_stream && !self.done {
            self.error.get_or_insert(Outcome::StreamTruncated);
        }
        if let (Some(code), false) = (self.error, self.told) {
            self.told = true;
            let out = pass.leave_out();
            if self.long_event > 0 {
                // Close the event of which a part has been forwarded.
                out.extend_from_slice(b"\n\n");
            }
            out.extend_from_slice(&self.reader.error_event(code));
        }
        self.cutter = cutter;
        pass.finish()
    }

    /// Whether a chunk holding one more text event changes only the amount of text.
    fn has_nothing_to_do(&self, end_of_stream: bool) -> bool {
        !end_of_stream && self.cutter.is_between_events() && self.error.is_none() && !self.done
    }

    /// Handles a part of the stream and says what to forward. Nothing is forwarded after an error or the end marker.
    fn piece<'a>(&mut self, piece: Piece<'a>, elapsed_ms: &impl Fn() -> u64) -> Forward<'a> {
        if self.error.is_some() || self.done {
            return Forward::No;
        }
        if self.held.is_some() {
            self.hold(piece, elapsed_ms);
            return Forward::No;
        }
        match piece {
            Piece::Event(event) => self.event(event, elapsed_ms),
            Piece::Start(start) => {
                self.service_tier = self.reader.long_event_tier(start).or(self.service_tier);
                match self.reader.long_event(start) {
                    LongEvent::Silent => self.is_long_text = false,
                    LongEvent::Chunk => {
                        self.first_token_ms.get_or_insert_with(elapsed_ms);
                        self.is_usage_old = self.usage.is_some();
                        self.is_long_text = memchr::memmem::find(start, b";base64,").is_none();
                    }
                    LongEvent::Malformed => {
                        self.error = Some(Outcome::StreamMalformed);
                        return Forward::No;
                    }
                }
                self.pass_long(start)
            }
            Piece::Middle(bytes) => self.pass_long(bytes),
            Piece::End(bytes) => {
                let forward = self.pass_long(bytes);
                let tail = std::mem::take(&mut self.tail);
                if self.error.is_none() {
                    self.long_event = 0;
                    self.service_tier = self.reader.long_event_tier(&tail).or(self.service_tier);
                    if let Some(usage) = self.reader.long_event_usage(&tail) {
                        self.count(usage);
                    }
                }
                forward
            }
        }
    }

    /// Whether nothing of an answer has come, nor a count of it.
    fn is_empty(&self) -> bool {
        let has_output = self.usage.is_some_and(|usage| usage.output > 0);
        !self.reader.has_begun() && self.text.is_empty() && !has_output
    }

    fn count(&mut self, usage: ReportedUsage) {
        self.usage = Some(self.usage.map_or(usage, |before| before.then(usage)));
        self.is_usage_old = false;
    }

    /// Forwards a part of a long event, up to the longest one that may be.
    fn pass_long<'a>(&mut self, bytes: &'a [u8]) -> Forward<'a> {
        let left = usize::try_from(self.max_event - self.long_event).unwrap_or(usize::MAX);
        let part = bytes.get(..left).unwrap_or(bytes);
        self.long_event += part.len() as u64;
        if self.is_long_text {
            self.text.push_unseen(part.len());
        }
        self.tail.extend_from_slice(part.get(part.len().saturating_sub(TAIL)..).unwrap_or_default());
        self.tail.drain(..self.tail.len().saturating_sub(TAIL));
        if part.len() < bytes.len() {
            self.error = Some(Outcome::StreamMalformed);
        }
        Forward::Yes(part)
    }

    /// Handles one event and says what to forward.
    fn event<'a>(&mut self, event: &'a [u8], elapsed_ms: &impl Fn() -> u64) -> Forward<'a> {
        if self.error.is_some() || self.done {
            return Forward::No;
        }
        let chunk = match self.reader.event(event) {
            StreamEvent::Silent => return Forward::Yes(event),
            StreamEvent::Error => {
                self.error = Some(Outcome::StreamError);
                return Forward::No;
            }
            // The model stage lets this pass only where the policy wants the headers early.
            StreamEvent::End if self.is_empty() => {
                self.error = Some(Outcome::StreamTruncated);
                return Forward::No;
            }
            StreamEvent::End => {
                self.done = true;
                return Forward::Yes(event);
            }
            StreamEvent::Chunk(chunk) => chunk,
        };
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(fault) => {
                self.error = Some(match fault {
                    Fault::Reported => Outcome::StreamError,
                    Fault::Malformed => Outcome::StreamMalformed,
                });
                return Forward::No;
            }
        };
        self.first_token_ms.get_or_insert_with(elapsed_ms);
        self.text.add(chunk.text);
        self.is_usage_old |= chunk.has_text;
        if let Some(usage) = chunk.usage {
            self.count(usage);
            self.is_usage_old = chunk.has_text && chunk.is_usage_before;
        }
        self.service_tier = chunk.service_tier.or(self.service_tier);
        match chunk.without_usage {
            WithoutUsage::Extras if self.hide_usage => Forward::Instead(self.reader.without_usage(event)),
            WithoutUsage::Nothing if self.hide_usage => Forward::No,
            _ => Forward::Yes(event),
        }
    }
}

/// What to forward of a part of the stream.
enum Forward<'a> {
    /// These bytes of it, from its start.
    Yes(&'a [u8]),
    /// Nothing.
    No,
    /// These bytes instead.
    Instead(Vec<u8>),
}

mod assembly;
pub mod held;
mod passthrough;
#[cfg(test)]
mod tests;
