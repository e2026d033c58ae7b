//! Reads a stream in Anthropic's format, event by event.

use crate::cache::local::recording::Recording;
use crate::dialect::answer::{Chunk, Fault, LongEvent, NotKept, StreamEvent, TOO_LONG, WithoutUsage};
use crate::dialect::anthropic::message::Message;
use crate::dialect::anthropic::read::{self, MAX_DEPTH, Type};
use crate::dialect::anthropic::transcript::Transcript;
use crate::dialect::anthropic::usage::Counts;
use crate::dialect::chunk_template::ChunkTemplate;
use crate::service_tier::ServedTier;
use crate::usage::ReportedUsage;
use crate::wire::json::{Scanner, unquote};
use crate::wire::sse;

/// Reads each event once, for usage, text and transcript.
#[derive(Debug, Default)]
pub struct StreamReader {
    template: ChunkTemplate,
    /// The answer so far, if it is to be kept.
    transcript: Option<Box<Transcript>>,
    counts: Counts,
    /// Whether the start has counted something that has not been told.
    has_untold: bool,
    /// Whether a part of the answer has come that the caller reads.
    has_begun: bool,
}

impl StreamReader {
    /// Creates a reader. `recording`: `None` if the stream is not recorded.
    pub fn new(recording: Option<Recording>) -> Self {
        let transcript = recording.map(|recording| Box::new(Transcript::new(recording)));
        Self { transcript, ..Self::default() }
    }

    /// Returns the text, JSON-escaped, of a chunk that is a single event and differs from the last learned event in its
    /// text only. Returns `None` for any other chunk, and always if the stream is recorded.
    pub fn known_text<'a>(&self, chunk: &'a [u8]) -> Option<&'a [u8]> {
        match self.transcript {
            None => self.template.text(chunk),
            Some(_) => None,
        }
    }

    /// Reads the next event.
    pub fn event(&mut self, event: &[u8]) -> StreamEvent {
        if sse::is_error(event) || sse::has_foreign_line(event) {
            return StreamEvent::Error;
        }
        let data = sse::data(event);
        if data.is_empty() {
            return StreamEvent::Silent;
        }
        let Ok(read) = read::read(&data, &mut self.counts) else {
            return StreamEvent::Chunk(Err(Fault::Malformed));
        };
        match read.kind {
            Type::Error => return StreamEvent::Chunk(Err(Fault::Reported)),
            _ if read.has_error => return StreamEvent::Chunk(Err(Fault::Reported)),
            Type::Missing | Type::Message => return StreamEvent::Chunk(Err(Fault::Malformed)),
            Type::MessageStop => return StreamEvent::End,
            _ => {}
        }
        if let Some(transcript) = &mut self.transcript {
            transcript.event(read.kind, &data);
        }
        self.has_begun |= read.has_content;
        // A start is not yet a part of the answer. What it counts is told with the first part.
        if !read.has_content && read.kind != Type::MessageDelta {
            self.has_untold |= read.has_usage;
            return StreamEvent::Silent;
        }
        let is_usage_before = std::mem::take(&mut self.has_untold) && !read.has_usage;
        if read.texts == 1 && read.kind == Type::Delta {
            self.template.learn(event, &read.text, None);
        }
        StreamEvent::Chunk(Ok(Chunk {
            text: read.generated,
            has_text: read.texts > 0,
            usage: if read.has_usage || is_usage_before { self.counts.reported() } else { None },
            is_usage_before,
            service_tier: self.counts.tier,
            without_usage: WithoutUsage::Whole,
        }))
    }

    /// Returns whether a part of the answer has come that the caller reads, other than text that
    /// [`Self::known_text`] returned.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Reads the start of an event that is too long to hold.
    pub fn long_event(&mut self, start: &[u8]) -> LongEvent {
        let kind = long_event(start);
        if kind != LongEvent::Silent {
            self.give_up(TOO_LONG);
            self.has_begun = true;
        }
        kind
    }

    /// Reads the `tail` of an event that was too long to hold, for the usage that may end it.
    pub fn long_event_usage(tail: &[u8]) -> Option<ReportedUsage> {
        const USAGE: &[u8] = b"\"usage\":";
        let at = memchr::memmem::rfind(tail, USAGE)?;
        let mut counts = Counts::default();
        counts.read(&mut Scanner::lenient(tail.get(at + USAGE.len()..)?, MAX_DEPTH)).ok()?;
        counts.reported()
    }

    /// Reads the start or the tail of an event that was too long to hold, for the service tier in its usage.
    pub fn long_event_tier(part: &[u8]) -> Option<ServedTier> {
        const TIER: &[u8] = b"\"service_tier\":";
        let at = memchr::memmem::rfind(part, TIER)?;
        let mut scanner = Scanner::lenient(part.get(at + TIER.len()..)?, MAX_DEPTH);
        let value = scanner.value().ok()?;
        unquote(scanner.bytes(&value.span)).and_then(|tier| ServedTier::named(&tier))
    }

    /// Stops recording: the answer is not kept.
    pub fn give_up(&mut self, why: &'static str) {
        if let Some(transcript) = &mut self.transcript {
            transcript.give_up(NotKept(why));
        }
    }

    /// Returns the answer to keep, once the stream has ended properly; `None` if it was not recorded.
    pub fn take_kept(&mut self) -> Option<Result<Message, NotKept>> {
        self.transcript.take().map(|transcript| transcript.finish())
    }
}

/// The end marker as an event.
pub const END: &[u8] = b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// Returns whether an event is the end marker, which is valid even without a closing empty line.
pub fn is_end_event(event: &[u8]) -> bool {
    read::read(&sse::data(event), &mut Counts::default()).is_ok_and(|read| read.kind == Type::MessageStop)
}

/// Judges the `start` of an event, cut off anywhere. What is so long is a block, or a part of one.
pub fn long_event(start: &[u8]) -> LongEvent {
    if start.starts_with(b":") && memchr::memchr2(b'\n', b'\r', start).is_none() {
        return LongEvent::Silent;
    }
    // The last line may be cut off in its name.
    let whole_lines = memchr::memrchr2(b'\n', b'\r', start).and_then(|end| start.get(..end)).unwrap_or_default();
    if sse::is_error(whole_lines) || sse::has_foreign_line(whole_lines) {
        return LongEvent::Malformed;
    }
    let data = sse::data(start);
    let mut kind = None;
    // Ends with an error where the text is cut off.
    let _ = Scanner::lenient(&data, MAX_DEPTH).object(|s, key| {
        let is_kind = s.bytes(&key) == b"\"type\"";
        let value = s.value()?;
        if is_kind && kind.is_none() {
            kind = Some(matches!(s.bytes(&value.span), b"\"content_block_start\"" | b"\"content_block_delta\""));
        }
        Ok::<_, crate::wire::json::InvalidJson>(())
    });
    if kind == Some(true) { LongEvent::Chunk } else { LongEvent::Malformed }
}

#[cfg(test)]
mod tests;
