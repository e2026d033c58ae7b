//! A stream that the caller does not see: a whole answer is put together from it.

use crate::cache::local::recording::BudgetGuard;
use crate::dialect::answer::Assembled;
use crate::exchange::answer::Stream;
use crate::outcome::outcome::Outcome;
use crate::wire::sse::Piece;

/// A part of a long event, and its share of the memory for held answers.
#[derive(Debug)]
pub struct Held {
    long_event: Vec<u8>,
    budget: BudgetGuard,
    /// Whether the stream ended without its end marker.
    is_unmarked: bool,
}

impl Held {
    /// Holds nothing yet.
    pub fn new(budget: BudgetGuard) -> Self {
        Self { long_event: Vec::new(), budget, is_unmarked: false }
    }
}

impl Stream {
    /// Whether a whole answer is put together from the stream.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Takes the whole answer, once the stream is done.
    ///
    /// # Errors
    /// The answer that was put together is too long, or the stream failed.
    pub fn take_assembled(&mut self) -> Result<Assembled, Outcome> {
        match (self.error, self.reader.take_assembled()) {
            (Some(error), _) => Err(error),
            (None, Some(Ok(assembled))) => Ok(assembled),
            (None, _) => {
                self.error = Some(Outcome::StreamMalformed);
                Err(Outcome::StreamMalformed)
            }
        }
    }

    /// Whether nothing says that the answer is all of it, other than the end of its choices. The cache does not keep it.
    pub fn is_unmarked(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.is_unmarked)
    }

    /// Whether a long event is incomplete.
    pub(super) fn is_in_event(&self) -> bool {
        self.long_event > 0 || self.held.as_ref().is_some_and(|held| !held.long_event.is_empty())
    }

    /// All choices have ended, and then the stream, without its end marker.
    pub(super) fn note_unmarked(&mut self) {
        match &mut self.held {
            Some(held) => held.is_unmarked = true,
            None => self.reader.give_up("unmarked"),
        }
    }

    /// The caller gets this status in place of the answer.
    pub fn fail(&mut self, status: u16) {
        self.status = status;
    }

    /// Records why the stream broke off, and the status Envoy sent the caller.
    pub(super) fn cut_off(&mut self, why: Outcome, status: u16) {
        // The caller gets Envoy's own reply, which does not know that an answer had begun.
        let is_told = self.is_held() && status > 0;
        self.status = if is_told { status } else { self.status };
        self.error = Some(if is_told && why == Outcome::StreamReset { Outcome::ProviderUnreachable } else { why });
    }

    /// Handles a part of the stream. A long event is read once it is whole.
    pub(super) fn hold(&mut self, piece: Piece, elapsed_ms: &impl Fn() -> u64) {
        let (bytes, is_whole) = match piece {
            Piece::Event(event) => {
                self.read_held(event, elapsed_ms);
                return;
            }
            Piece::Start(bytes) | Piece::Middle(bytes) => (bytes, false),
            Piece::End(bytes) => (bytes, true),
        };
        let Some(held) = &mut self.held else { return };
        let length = held.long_event.len() + bytes.len();
        if length as u64 > self.max_event || !held.budget.set(length) {
            self.error = Some(Outcome::ResponseTooLarge);
            return;
        }
        held.long_event.extend_from_slice(bytes);
        if is_whole {
            let event = std::mem::take(&mut held.long_event);
            held.budget.set(0);
            self.read_held(&event, elapsed_ms);
        }
    }

    fn read_held(&mut self, event: &[u8], elapsed_ms: &impl Fn() -> u64) {
        self.event(event, elapsed_ms);
        if self.error.is_none()
            && let Some(why) = self.reader.unfit()
        {
            self.error = Some(if why.is_size() { Outcome::ResponseTooLarge } else { Outcome::StreamMalformed });
        }
    }
}
