//! Judges the start of a stream: the first event with something for the caller decides whether it is an answer.

use crate::dialect::answer::LongEvent;
use crate::outcome::outcome::Outcome;
use crate::routing::attempt::{Failure, HOLD_LIMIT};
use crate::wire::sse::{EventCutter, Piece};

/// How a dialect judges parts of a stream.
pub struct Rules {
    /// Judges one event. Returns `None` if a later one decides.
    pub event: fn(&[u8]) -> Option<Result<(), Failure>>,
    /// Judges the start of an event that is too long to hold.
    pub long: fn(&[u8]) -> LongEvent,
    /// Judges what remains of a stream that ends without an empty line: it may be JSON in place of a stream.
    pub rest: fn(&[u8]) -> Option<Result<(), Failure>>,
}

impl Rules {
    /// Checks the start of a stream. `so_far`: everything that has arrived. Returns `None` while no event decides,
    /// unless the stream has ended or exceeds [`HOLD_LIMIT`]: then it fails. `judged`: how many bytes of it an earlier
    /// call has already found to have nothing for the caller; updated.
    pub fn judge(&self, so_far: &[u8], judged: &mut usize, end_of_stream: bool) -> Option<Result<(), Failure>> {
        let mut verdict = None;
        let mut cutter = EventCutter::default();
        cutter.push(so_far.get(*judged..).unwrap_or_default(), |piece| {
            if verdict.is_none() {
                verdict = match piece {
                    Piece::Event(event) => {
                        let verdict = (self.event)(event);
                        if verdict.is_none() {
                            *judged += event.len();
                        }
                        verdict
                    }
                    Piece::Start(start) => match (self.long)(start) {
                        LongEvent::Silent => None,
                        LongEvent::Chunk => Some(Ok(())),
                        LongEvent::Malformed => Some(Err(Failure::bad_gateway(Outcome::MalformedEvent))),
                    },
                    Piece::Middle(_) | Piece::End(_) => None,
                };
            }
        });
        if verdict.is_none() && end_of_stream {
            verdict = (self.rest)(&cutter.take_rest());
        }
        match verdict {
            None if end_of_stream || so_far.len() > HOLD_LIMIT => {
                Some(Err(Failure::bad_gateway(Outcome::NoFirstEvent)))
            }
            verdict => verdict,
        }
    }
}
