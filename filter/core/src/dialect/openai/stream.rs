//! Reads a stream in OpenAI's format, event by event.

use crate::cache::local::recording::BudgetGuard;
use crate::dialect::answer::{Chunk, Fault, NotKept, StreamEvent};
use crate::dialect::openai::chunk_template::ChunkTemplate;
use crate::dialect::openai::completion::Completion;
use crate::dialect::openai::read::{self, Part};
use crate::dialect::openai::transcript::Transcript;
use crate::wire::sse;

/// Reads each event once, for usage, text and transcript.
#[derive(Debug, Default)]
pub struct StreamReader {
    template: ChunkTemplate,
    /// The answer so far, if it is to be kept.
    transcript: Option<Box<Transcript>>,
    /// The parts of the current event, if it is recorded.
    parts: Vec<Part>,
}

impl StreamReader {
    /// Creates a reader. `recording`: the longest answer that is kept, in bytes, and the stream's share of the
    /// recording budget; `None` if the stream is not recorded.
    pub fn new(recording: Option<(usize, BudgetGuard)>) -> Self {
        let transcript = recording.map(|(max_bytes, budget)| Box::new(Transcript::new(max_bytes, budget)));
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
        let data = sse::data(event);
        if data.is_empty() {
            return StreamEvent::Silent;
        }
        if sse::is_error(event) {
            return StreamEvent::Error;
        }
        if is_end(&data) {
            return StreamEvent::End;
        }
        self.parts.clear();
        let read = match read::chunk(&data, self.transcript.is_some().then_some(&mut self.parts)) {
            Ok(read) if read.is_error || read.has_words => return StreamEvent::Chunk(Err(Fault::Reported)),
            Ok(read) => read,
            Err(_) => return StreamEvent::Chunk(Err(Fault::Malformed)),
        };
        if let Some(transcript) = &mut self.transcript {
            transcript.event(&data, &self.parts);
        }
        if read.usage.is_none() && read.texts == 1 {
            self.template.learn(event, &read.text, read.filler.as_ref());
        }
        StreamEvent::Chunk(Ok(Chunk {
            text: read.generated,
            has_text: read.texts > 0,
            usage: read.usage,
            is_usage_alone: read.usage.is_some() && (read.choices_empty || !read.has_choices),
        }))
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

fn is_end(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}
