//! A stream that the caller does not see, and the whole answer that is put together from it.

use crate::dialect::answer::Assembled;
use crate::exchange::answer::Stream;
use crate::exchange::answer::held::Held;
use crate::outcome::outcome::Outcome;
use crate::wire::sse::Piece;

impl Stream {
    /// Whether a whole answer is put together from the stream.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// Takes the whole answer, once the stream has ended.
    ///
    /// # Errors
    /// Why the answer could not be put together.
    pub fn take_assembled(&mut self) -> Result<Assembled, Outcome> {
        match (self.error, self.reader.take_assembled()) {
            (Some(error), _) => Err(error),
            (None, Some(Ok(assembled))) => Ok(assembled),
            (None, _) => {
                self.note_unfit();
                self.error = Some(Outcome::StreamMalformed);
                Err(Outcome::StreamMalformed)
            }
        }
    }

    /// Gives back what was held. Nothing more is put together.
    pub fn release(&mut self) {
        if let Some(held) = &mut self.held {
            held.release();
        }
    }

    /// Whether the stream, although it is one, does not say what the whole answer is.
    pub fn is_unfit(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.is_unfit)
    }

    /// Whether the stream ended without its end marker. The cache does not keep such an answer.
    pub fn is_unmarked(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.is_unmarked)
    }

    /// All choices have ended, and then the stream, without its end marker.
    pub(super) fn note_unmarked(&mut self) {
        match &mut self.held {
            Some(held) => held.is_unmarked = true,
            None => self.reader.give_up("unmarked"),
        }
    }

    /// Whether a long event is incomplete.
    pub(super) fn is_in_event(&self) -> bool {
        self.long_event > 0 || self.held.as_ref().is_some_and(Held::is_in_event)
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
            Piece::Event(event) => return self.read_held(event, elapsed_ms),
            Piece::Start(bytes) | Piece::Middle(bytes) => (bytes, false),
            Piece::End(bytes) => (bytes, true),
        };
        let Some(held) = &mut self.held else { return };
        if !held.push(bytes, self.max_event) {
            self.error = Some(Outcome::ResponseTooLarge);
        } else if is_whole {
            let event = held.take();
            self.read_held(&event, elapsed_ms);
        }
    }

    fn read_held(&mut self, event: &[u8], elapsed_ms: &impl Fn() -> u64) {
        self.event(event, elapsed_ms);
        if self.error.is_none()
            && let Some(why) = self.reader.unfit()
        {
            self.error = Some(if why.is_size() { Outcome::ResponseTooLarge } else { Outcome::StreamMalformed });
            if !why.is_size() {
                self.note_unfit();
            }
        }
    }

    fn note_unfit(&mut self) {
        if let Some(held) = &mut self.held {
            held.is_unfit = true;
        }
    }
}
