//! Reads a stream in OpenAI's format, event by event.

use crate::cache::local::recording::Recording;
use crate::dialect::answer::{Assembled, Chunk, Fault, LongEvent, NotKept, StreamEvent, TOO_LONG, WithoutUsage};
use crate::dialect::chunk_template::ChunkTemplate;
use crate::dialect::openai::completion::Completion;
use crate::dialect::openai::failure::{self, Mark};
use crate::dialect::openai::read::{self, MAX_DEPTH, Part};
use crate::dialect::openai::transcript::Transcript;
use crate::dialect::openai::usage;
use crate::service_tier::ServedTier;
use crate::usage::ReportedUsage;
use crate::wire::json::{InvalidJson, Kind, Scanner, Why, names, unquote};
use crate::wire::sse;

/// Most parts of an event that are recorded: more than any answer needs, so that a strange one costs little.
const MAX_PARTS: usize = 4096;

/// Reads each event once, for usage, text and transcript.
#[derive(Debug, Default)]
pub struct StreamReader {
    template: ChunkTemplate,
    /// The answer so far, if it is to be kept.
    transcript: Option<Box<Transcript>>,
    /// The parts of the current event, if it is recorded.
    parts: Vec<Part>,
    /// Whether a part of the answer has come that the caller reads.
    has_begun: bool,
    /// Whether a chunk had a fingerprint.
    has_fingerprint: bool,
    /// The service tier that an event before the answer named.
    tier_before: Option<ServedTier>,
    /// The number of choices so far, and of those whose end has come.
    choices: u64,
    finished: u64,
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
        if is_end(&data) {
            return StreamEvent::End;
        }
        self.parts.clear();
        let read = match read::chunk(&data, self.transcript.is_some().then_some(&mut self.parts)) {
            Ok(read) if read.is_error => return StreamEvent::Chunk(Err(Fault::Reported)),
            Ok(read) if read.is_ping => return StreamEvent::Silent,
            Ok(read) if !read.has_choices && read.usage.is_none() => {
                // Before the answer it may be anything, such as a list of sources. Later it is in place of the answer.
                return match self.has_begun {
                    true => StreamEvent::Chunk(Err(Fault::Reported)),
                    false => {
                        match &mut self.transcript {
                            Some(transcript) if transcript.is_for_caller() => transcript.event(&data, &self.parts),
                            // A hit would lack it.
                            _ if read.has_extras => self.give_up("shape"),
                            _ => {}
                        }
                        self.tier_before = read.service_tier.or(self.tier_before);
                        StreamEvent::Silent
                    }
                };
            }
            Ok(read) => read,
            Err(_) => return StreamEvent::Chunk(Err(Fault::Malformed)),
        };
        self.has_begun |= read.has_content;
        let has_extras = read.has_extras || read.has_fingerprint && !self.has_fingerprint;
        self.has_fingerprint |= read.has_fingerprint;
        self.choices = self.choices.max(read.choices);
        self.finished += read.finished;
        if self.parts.len() > MAX_PARTS {
            self.give_up(TOO_LONG);
        }
        if let Some(transcript) = &mut self.transcript {
            transcript.event(&data, &self.parts);
        }
        if read.usage.is_none() && read.texts == 1 {
            self.template.learn(event, &read.text, read.filler.as_ref());
        }
        let is_without_choices = read.choices_empty || !read.has_choices;
        StreamEvent::Chunk(Ok(Chunk {
            text: read.generated,
            has_text: read.texts > 0,
            usage: read.usage,
            is_usage_before: false,
            service_tier: read.service_tier.or(self.tier_before.take()),
            without_usage: match read.usage_kind {
                Some(_) if is_without_choices && !has_extras => WithoutUsage::Nothing,
                Some(Kind::Null) | None => WithoutUsage::Whole,
                Some(_) if is_without_choices => WithoutUsage::Extras,
                Some(_) => WithoutUsage::Whole,
            },
        }))
    }

    /// Returns whether a part of the answer has come that the caller reads, other than text that
    /// [`Self::known_text`] returned.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Returns whether every choice has come to its end. Some servers, such as Perplexity's, then send no end marker.
    pub fn is_finished(&self) -> bool {
        self.choices > 0 && self.finished >= self.choices
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

    /// Reads the `tail` of an event that was too long to hold, for the usage that may follow its choices.
    pub fn long_event_usage(tail: &[u8]) -> Option<ReportedUsage> {
        const USAGE: &[u8] = b"\"usage\":";
        let at = memchr::memmem::rfind(tail, USAGE)?;
        usage::read(&mut Scanner::lenient(tail.get(at + USAGE.len()..)?, MAX_DEPTH)).ok()?
    }

    /// Reads the start or the tail of an event that was too long to hold, for the service tier beside its choices.
    pub fn long_event_tier(part: &[u8]) -> Option<ServedTier> {
        const TIER: &[u8] = b"\"service_tier\":";
        let at = memchr::memmem::rfind(part, TIER)?;
        let mut scanner = Scanner::lenient(part.get(at + TIER.len()..)?, MAX_DEPTH);
        let value = scanner.value().ok()?;
        unquote(scanner.bytes(&value.span)).and_then(|tier| ServedTier::named(&tier))
    }

    /// Stops recording: the answer is not kept.
    pub fn give_up(&mut self, why: &'static str) {
        self.parts = Vec::new();
        if let Some(transcript) = &mut self.transcript {
            transcript.give_up(NotKept(why));
        }
    }

    /// Returns the event of a usage chunk without its usage. A chunk without choices is a surprise to a caller that did
    /// not ask for the usage, so it gets a choice that adds nothing.
    pub fn without_usage(event: &[u8]) -> Vec<u8> {
        let data = sse::data(event);
        let mut out = b"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":null}]".to_vec();
        let mut scanner = Scanner::lenient(&data, MAX_DEPTH);
        // It was scanned before, so it cannot fail.
        let _ = scanner.object(|s, key| {
            let value = s.value()?;
            if !matches!(&*names::quoted(s, &key), b"\"choices\"" | b"\"usage\"") {
                out.push(b',');
                out.extend_from_slice(s.bytes(&(key.start..value.span.end)));
            }
            Ok::<_, InvalidJson>(())
        });
        out.extend_from_slice(b"}\n\n");
        out
    }

    /// Returns why the answer for the caller cannot be put together, if so.
    pub fn unfit(&self) -> Option<NotKept> {
        self.transcript.as_ref().filter(|transcript| transcript.is_for_caller())?.unfit()
    }

    /// Returns the answer for the caller, once the stream has ended properly; `None` if it is not put together.
    pub fn take_assembled(&mut self) -> Option<Result<Assembled, NotKept>> {
        let transcript = self.transcript.take_if(|transcript| transcript.is_for_caller())?;
        let is_doubtful = transcript.is_doubtful();
        Some(transcript.text().map(|text| Assembled { body: text.into_bytes(), is_doubtful }))
    }

    /// Returns the answer to keep, once the stream has ended properly; `None` if it was not recorded. `choices`: the
    /// number of choices requested.
    pub fn take_kept(&mut self, choices: u64) -> Option<Result<Completion, NotKept>> {
        let transcript = self.transcript.take()?;
        Some(transcript.finish().and_then(|whole| Completion::from_whole(whole, choices)))
    }
}

/// Returns whether an event is the end marker. The WHATWG HTML standard discards an event without a closing empty line,
/// but the end marker is valid without one.
pub fn is_end_event(event: &[u8]) -> bool {
    is_end(&sse::data(event))
}

/// Judges the `start` of an event, cut off anywhere. A chunk has choices, and no error before them.
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
    let (mut is_chunk, mut is_error) = (false, false);
    // Ends with an error where the text is cut off.
    let _ = Scanner::lenient(&data, MAX_DEPTH).object(|s, key| {
        let name = names::quoted(s, &key);
        is_chunk |= &*name == b"\"choices\"" && s.peek()? == Kind::Array;
        if is_chunk {
            return Err(InvalidJson { at: 0, why: Why::End });
        }
        let value = s.value()?.span;
        is_error |= failure::mark(&name, s.bytes(&value)) == Mark::Error;
        Ok(())
    });
    if is_chunk && !is_error { LongEvent::Chunk } else { LongEvent::Malformed }
}

/// The end marker as an event.
pub const END: &[u8] = b"data: [DONE]\n\n";

/// Returns whether the data of an event is the end marker.
pub fn is_end(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}
