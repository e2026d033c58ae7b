//! Request coalescing: while one request asks the model, identical ones wait for its answer.
//!
//! Questions in flight are kept in shared data, in a fixed number of slots. A question may use either of two slots that
//! its key selects. If other questions hold both, the request goes to the model alone, so it never waits for a
//! different question. The slot of a leader that died expires after the maximum wait.

use crate::cache::key::Key;
use crate::store::shared_data::SharedData;
use crate::wire::bytes::{Reader, Writer};

/// How long requests may wait, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coalescer {
    /// Maximum wait, in milliseconds.
    pub wait_ms: u64,
    /// Maximum number of requests that wait for one answer.
    pub max_waiting: u32,
}

/// The role of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Asks the model. Others may wait for its answer, and it must call [`finish`].
    Leader {
        /// The ticket for [`finish`].
        ticket: Ticket,
        /// Whether the slot last held the same question. Its answer may have arrived since this request looked.
        again: bool,
    },
    /// Waits. If it stops waiting before the question is over, it must call [`withdraw`].
    Follower(Ticket),
    /// Asks the model without leading or following others.
    Alone,
}

/// One flight of a question. A late [`finish`] with it cannot end a later flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    slot: u32,
    number: u32,
}

/// How a leader's question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With a stored answer, or with a failure. Waiting requests find the answer, or one of them asks again.
    Over,
    /// With an answer that cannot be stored, or with a failure that every such request would get. Waiting requests ask
    /// the model at the same time, not one after another.
    NotKept,
}

const SLOTS: u32 = 4096;
/// How long an answer that could not be stored is remembered, in milliseconds.
const NOT_KEPT_MS: u64 = 2000;
/// How much earlier than the leader a joining request may have read the clock, in milliseconds.
const READ_EARLIER_MS: u64 = 1000;
const TRIES: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flight {
    key: Key,
    /// When it expires, on the clock of `now_ms`.
    until_ms: u64,
    ticket: u32,
    waiting: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    UnderWay,
    NotKept,
}

/// Returns the two slots that the question may use.
fn slots_of(key: &Key) -> [u32; 2] {
    let [.., a, b, c, d, e, f, g, h] = key.0;
    let [one, other] = [[e, f, g, h], [a, b, c, d]].map(|bytes| u32::from_le_bytes(bytes) % SLOTS);
    [one, if other == one { (one + 1) % SLOTS } else { other }]
}

fn name(slot: u32) -> String {
    format!("pointsman.flight.{slot}")
}

impl Coalescer {
    /// Joins the requests that ask the same question, or leads them.
    pub fn join(self, data: &mut dyn SharedData, key: &Key, now_ms: u64) -> Join {
        for _ in 0..TRIES {
            let all = slots_of(key).map(|slot| {
                let (record, version) = data.get(&name(slot));
                (slot, Flight::decode(&record), version)
            });
            let same = all.iter().find(|(_, flight, _)| flight.key == *key && self.counts(flight, now_ms));
            let (slot, version, next, join) = match same {
                Some((_, flight, _)) if flight.state == State::NotKept || flight.waiting >= self.max_waiting => {
                    return Join::Alone;
                }
                Some((slot, flight, version)) => {
                    let ticket = Ticket { slot: *slot, number: flight.ticket };
                    (*slot, *version, Flight { waiting: flight.waiting + 1, ..*flight }, Join::Follower(ticket))
                }
                None => {
                    let mut free = all.iter().filter(|(_, flight, _)| !self.counts(flight, now_ms));
                    let Some((slot, flight, version)) = free.clone().find(|(_, f, _)| f.key == *key).or(free.next())
                    else {
                        return Join::Alone;
                    };
                    let number = flight.ticket.wrapping_add(1);
                    let until_ms = now_ms.saturating_add(self.wait_ms);
                    let lead = Flight { key: *key, until_ms, ticket: number, waiting: 0, state: State::UnderWay };
                    let (ticket, again) = (Ticket { slot: *slot, number }, flight.key == *key);
                    (*slot, *version, lead, Join::Leader { ticket, again })
                }
            };
            if data.set(&name(slot), &next.encode(), version) {
                return join;
            }
        }
        Join::Alone
    }

    /// Returns whether what a slot holds is still valid.
    fn counts(self, flight: &Flight, now_ms: u64) -> bool {
        let max_ms = match flight.state {
            State::Free => return false,
            State::UnderWay => self.wait_ms,
            State::NotKept => NOT_KEPT_MS,
        };
        // After the clock jumps back, a request must still not wait longer than the maximum.
        now_ms < flight.until_ms && flight.until_ms <= now_ms.saturating_add(max_ms + READ_EARLIER_MS)
    }
}

/// Returns whether the question has no leader any more, so that waiting requests must look again.
pub fn is_over(data: &mut dyn SharedData, key: &Key, now_ms: u64) -> bool {
    slots_of(key).iter().all(|slot| {
        let flight = Flight::decode(&data.get(&name(*slot)).0);
        flight.state != State::UnderWay || flight.key != *key || now_ms >= flight.until_ms
    })
}

/// Ends the leader's question with `outcome`.
pub fn finish(data: &mut dyn SharedData, key: &Key, ticket: Ticket, outcome: Outcome, now_ms: u64) {
    change(data, key, ticket, |flight| match outcome {
        Outcome::Over => Flight { state: State::Free, ..flight },
        Outcome::NotKept => Flight { state: State::NotKept, until_ms: now_ms.saturating_add(NOT_KEPT_MS), ..flight },
    });
}

/// Removes a waiting request from a question in flight, so that another one may wait in its place.
pub fn withdraw(data: &mut dyn SharedData, key: &Key, ticket: Ticket) {
    change(data, key, ticket, |flight| Flight { waiting: flight.waiting.saturating_sub(1), ..flight });
}

/// Changes the flight of `ticket` in one atomic step, if it is still under way. It may have expired, and another
/// request may lead by now.
fn change(data: &mut dyn SharedData, key: &Key, ticket: Ticket, next: impl Fn(Flight) -> Flight) {
    let name = name(ticket.slot);
    for _ in 0..TRIES {
        let (record, version) = data.get(&name);
        let flight = Flight::decode(&record);
        if flight.state != State::UnderWay || flight.key != *key || flight.ticket != ticket.number {
            return;
        }
        if data.set(&name, &next(flight).encode(), version) {
            return;
        }
    }
}

impl Flight {
    const FREE: Self = Self { key: Key([0; 32]), until_ms: 0, ticket: 0, waiting: 0, state: State::Free };

    fn decode(record: &[u8]) -> Self {
        Self::read(Reader::new(record)).unwrap_or(Self::FREE)
    }

    fn read(mut reader: Reader) -> Option<Self> {
        let flight = Self {
            key: Key(*reader.array()?),
            until_ms: reader.u64()?,
            ticket: reader.u32()?,
            waiting: reader.u32()?,
            state: match reader.u8()? {
                0 => State::Free,
                1 => State::UnderWay,
                2 => State::NotKept,
                _ => return None,
            },
        };
        reader.end().map(|()| flight)
    }

    fn encode(&self) -> Vec<u8> {
        let Self { key, until_ms, ticket, waiting, state } = self;
        let mut out = Writer::with_capacity(32 + 8 + 4 + 4 + 1);
        out.raw(&key.0);
        out.u64(*until_ms);
        out.u32(*ticket);
        out.u32(*waiting);
        out.u8(match state {
            State::Free => 0,
            State::UnderWay => 1,
            State::NotKept => 2,
        });
        out.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fixture::Memory;

    const COALESCER: Coalescer = Coalescer { wait_ms: 1000, max_waiting: 3 };
    const KEY: Key = Key([1; 32]);
    const NOW: u64 = 1_700_000_000_000;

    fn lead(data: &mut Memory, now: u64) -> Ticket {
        match COALESCER.join(data, &KEY, now) {
            Join::Leader { ticket, .. } => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_leads_some_wait_and_the_rest_go_alone() {
        let mut data = Memory::default();
        let ticket = lead(&mut data, NOW);
        let wait = Join::Follower(ticket);
        for expected in [wait, wait, wait, Join::Alone] {
            assert_eq!(COALESCER.join(&mut data, &KEY, NOW + 1), expected);
        }
        // One request stops waiting, so one more may wait.
        withdraw(&mut data, &KEY, ticket);
        for expected in [wait, Join::Alone] {
            assert_eq!(COALESCER.join(&mut data, &KEY, NOW + 1), expected);
        }
        assert!(!is_over(&mut data, &KEY, NOW + 1));
        finish(&mut data, &KEY, ticket, Outcome::Over, NOW + 2);
        assert!(is_over(&mut data, &KEY, NOW + 2));
        // Suppose it failed: one waiting request leads next, and the others wait for it.
        let next = lead(&mut data, NOW + 3);
        assert_eq!(COALESCER.join(&mut data, &KEY, NOW + 3), Join::Follower(next));
        // A request that waited for the first flight does not count in the second.
        withdraw(&mut data, &KEY, ticket);
        for expected in [Join::Follower(next), Join::Follower(next), Join::Alone] {
            assert_eq!(COALESCER.join(&mut data, &KEY, NOW + 4), expected);
        }
    }

    #[test]
    fn who_has_read_the_clock_a_moment_before_the_leader_joins_it() {
        let mut data = Memory::default();
        let ticket = lead(&mut data, NOW);
        assert_eq!(COALESCER.join(&mut data, &KEY, NOW - 3), Join::Follower(ticket));
        finish(&mut data, &KEY, ticket, Outcome::NotKept, NOW);
        assert_eq!(COALESCER.join(&mut data, &KEY, NOW - 3), Join::Alone);
    }

    #[test]
    fn who_leads_after_another_one_knows_it() {
        let mut data = Memory::default();
        let Join::Leader { ticket, again: false } = COALESCER.join(&mut data, &KEY, NOW) else { panic!() };
        finish(&mut data, &KEY, ticket, Outcome::Over, NOW + 1);
        assert!(matches!(COALESCER.join(&mut data, &KEY, NOW + 1), Join::Leader { again: true, .. }));
    }

    #[test]
    fn of_two_slots_each_question_takes_one_and_waits_for_none_but_itself() {
        let other = |n: u8| {
            let mut key = [n; 32];
            key[24..].copy_from_slice(&KEY.0[24..]);
            Key(key)
        };
        let (second, third) = (other(2), other(3));
        assert!(slots_of(&second) == slots_of(&KEY) && slots_of(&third) == slots_of(&KEY));
        let mut data = Memory::default();
        let first = lead(&mut data, NOW);
        assert!(matches!(COALESCER.join(&mut data, &second, NOW), Join::Leader { again: false, .. }));
        assert_eq!(COALESCER.join(&mut data, &third, NOW), Join::Alone);
        assert!(is_over(&mut data, &third, NOW) && !is_over(&mut data, &second, NOW));
        assert_eq!(COALESCER.join(&mut data, &KEY, NOW), Join::Follower(first));
        assert!(matches!(COALESCER.join(&mut data, &second, NOW), Join::Follower(_)));
        // The first question's slot is free again, and the second question is still in flight.
        finish(&mut data, &KEY, first, Outcome::Over, NOW);
        assert!(is_over(&mut data, &KEY, NOW));
        assert!(matches!(COALESCER.join(&mut data, &second, NOW), Join::Follower(_)));
        assert!(matches!(COALESCER.join(&mut data, &third, NOW), Join::Leader { again: false, .. }));
    }

    #[test]
    fn a_leader_that_died_is_forgotten_and_a_late_one_ends_nobody_elses() {
        let mut data = Memory::default();
        let late = lead(&mut data, NOW);
        assert!(is_over(&mut data, &KEY, NOW + 1000));
        lead(&mut data, NOW + 1000);
        finish(&mut data, &KEY, late, Outcome::Over, NOW + 1001);
        assert!(!is_over(&mut data, &KEY, NOW + 1001));
        // The clock jumps back by a day.
        assert!(matches!(COALESCER.join(&mut data, &KEY, NOW - 86_400_000), Join::Leader { .. }));
    }

    #[test]
    fn an_answer_that_cannot_be_kept_is_not_waited_for_again() {
        // This does not depend on the maximum wait.
        for wait_ms in [60_000, 100] {
            let coalescer = Coalescer { wait_ms, max_waiting: 3 };
            let mut data = Memory::default();
            let Join::Leader { ticket, .. } = coalescer.join(&mut data, &KEY, NOW) else { panic!() };
            finish(&mut data, &KEY, ticket, Outcome::NotKept, NOW + 5);
            assert!(is_over(&mut data, &KEY, NOW + 5));
            assert_eq!(coalescer.join(&mut data, &KEY, NOW + 6), Join::Alone);
            assert_eq!(coalescer.join(&mut data, &KEY, NOW + 4 + NOT_KEPT_MS), Join::Alone);
            assert!(matches!(coalescer.join(&mut data, &KEY, NOW + 5 + NOT_KEPT_MS), Join::Leader { .. }));
            // The clock jumps back.
            let mut data = Memory::default();
            let ticket = lead(&mut data, NOW);
            finish(&mut data, &KEY, ticket, Outcome::NotKept, NOW);
            assert!(matches!(coalescer.join(&mut data, &KEY, NOW - 86_400_000), Join::Leader { .. }));
        }
    }

    #[test]
    fn damaged_records_mean_nothing() {
        for record in [&b""[..], &[255; 49], &[1; 48], &[7; 500]] {
            let mut data = Memory::default();
            data.0.insert(name(slots_of(&KEY)[0]), (record.to_vec(), 3));
            assert!(matches!(COALESCER.join(&mut data, &KEY, NOW), Join::Leader { .. }));
        }
    }
}
