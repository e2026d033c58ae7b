//! Which attempts of a request have begun, and which of them ended without an answer: the model stage's record for the
//! gateway stage, in Envoy's filter state.

use crate::wire::bytes::{Reader, Writer};

/// Filter state with the attempts that have begun; the last one is the current one.
pub const STATE_SERVED: &str = "pointsman_served";
/// Filter state with the attempts that have ended without an answer.
pub const STATE_ENDED: &str = "pointsman_ended";

/// One attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Its place in the plan, from 0.
    pub index: usize,
    /// Its number, from 1, as Envoy counts.
    pub number: u32,
    /// When it began, in milliseconds since the Unix epoch. 0 for the first one: when the request was sent.
    pub began_ms: u64,
    /// How it ended; `None` if it is running, or answered.
    pub end: Option<End>,
}

/// How an attempt ended that did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It failed, or its request never reached the provider.
    Failed,
    /// It had the request, and had not answered by this time, in milliseconds since the Unix epoch.
    Unanswered(u64),
}

/// Adds an attempt that begins.
pub fn push_begun(record: &mut Vec<u8>, index: usize, number: usize, began_ms: u64) {
    let mut out = Writer::to(record);
    out.u8(u8::try_from(index).unwrap_or(u8::MAX));
    out.count(number);
    out.u64(began_ms);
}

/// Adds an attempt that has ended.
pub fn push_ended(record: &mut Vec<u8>, number: usize, end: End) {
    let mut out = Writer::to(record);
    out.count(number);
    out.u64(match end {
        End::Failed => 0,
        End::Unanswered(at_ms) => at_ms.max(1),
    });
}

/// Returns the attempt that began last: its place in the plan, and its number.
pub fn last_begun(begun: &[u8]) -> Option<(usize, u32)> {
    read(begun, &[]).last().map(|attempt| (attempt.index, attempt.number))
}

/// Returns all attempts that have begun.
pub fn read(begun: &[u8], ended: &[u8]) -> Vec<Begun> {
    let (mut all, mut reader) = (Vec::new(), Reader::new(begun));
    while let (Some(index), Some(number), Some(began_ms)) = (reader.u8(), reader.u32(), reader.u64()) {
        all.push(Begun { index: usize::from(index), number, began_ms, end: None });
    }
    let mut reader = Reader::new(ended);
    while let (Some(number), Some(at_ms)) = (reader.u32(), reader.u64()) {
        if let Some(attempt) = all.iter_mut().find(|attempt| attempt.number == number) {
            attempt.end = Some(if at_ms == 0 { End::Failed } else { End::Unanswered(at_ms) });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_keeps_its_place_its_time_and_its_end() {
        let (mut begun, mut ended) = (Vec::new(), Vec::new());
        assert_eq!(last_begun(&begun), None);
        push_begun(&mut begun, 0, 1, 0);
        assert_eq!(last_begun(&begun), Some((0, 1)));
        push_ended(&mut ended, 1, End::Unanswered(700));
        push_begun(&mut begun, 2, 2, 725);
        push_ended(&mut ended, 2, End::Failed);
        push_begun(&mut begun, 1, 3, 800);
        assert_eq!(last_begun(&begun), Some((1, 3)));
        let attempt = |index, number, began_ms, end| Begun { index, number, began_ms, end };
        let all = [
            attempt(0, 1, 0, Some(End::Unanswered(700))),
            attempt(2, 2, 725, Some(End::Failed)),
            attempt(1, 3, 800, None),
        ];
        assert_eq!(read(&begun, &ended), all);
        begun.pop();
        assert_eq!(
            read(&begun, &ended[..13]),
            all.map(|one| Begun { end: one.end.filter(|_| one.number < 2), ..one })[..2]
        );
    }
}
