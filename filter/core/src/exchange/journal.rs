//! What the exchange asks of Redis, and what it was told.

use crate::exchange::Denied;
use crate::quota::redis::script::{self, Run};
use crate::quota::reservation::Held;
use crate::quota::reservation::View;
use crate::quota::store::Store;
use crate::quota::window::Moment;
use crate::wire::http_call::Answered;
use crate::wire::redis::Bridge;

/// What was asked of Redis. Questions are asked one by one, and with each answer the request is worked out anew from its
/// start: the same questions come in the same order.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// The reservation's id, the moment of the first question, and what may be reserved.
    pub(super) began: Option<(String, Moment)>,
    pub(super) held: Option<Held>,
    /// The answers so far, and how many of them have been used this time.
    answers: Vec<(u16, Vec<u8>)>,
    used: usize,
    /// Whether a question has not been answered yet.
    is_waiting: bool,
    /// Whether the last question had the whole script.
    had_script: bool,
    /// Whether Redis did not answer a question, so that nobody knows what it did.
    pub(super) is_away: bool,
    /// How the windows of a request that was refused stand.
    pub(super) view: View,
}

impl Asked {
    /// Takes the answer to the question that waits for one; `false` if none does.
    pub(super) fn take_answer(&mut self, answered: &Answered) -> bool {
        let waited = std::mem::take(&mut self.is_waiting);
        if waited {
            self.answers.push((answered.status, answered.body.to_vec()));
            (self.used, self.is_away) = (0, false);
            self.view = View::default();
        }
        waited
    }

    /// Whether Redis may hold something that nobody here has taken over: a question was not answered, or its answer came
    /// when the request was not to go on any more.
    pub(super) fn is_uncertain(&self) -> bool {
        self.is_waiting || self.is_away || self.used < self.answers.len()
    }

    /// What the questions of this request are told by.
    pub(super) fn id(&mut self, moment: &Moment, store: &mut dyn Store) -> String {
        self.began.get_or_insert_with(|| (format!("{:032x}", store.unique()), *moment)).0.clone()
    }

    /// The next answer, or the call that asks for it.
    pub(super) fn answer(&mut self, bridge: &Bridge, run: &Run) -> Result<(u16, Vec<u8>), Denied> {
        match self.answers.get(self.used) {
            Some((status, body)) if script::is_unknown(&Answered { status: *status, body }) && !self.had_script => {
                self.answers.truncate(self.used);
                self.had_script = true;
                self.is_waiting = true;
                Err(Denied::Call(run.call(bridge, false)))
            }
            Some(answer) => {
                self.used += 1;
                Ok(answer.clone())
            }
            None => {
                (self.is_waiting, self.had_script) = (true, false);
                Err(Denied::Call(run.call(bridge, true)))
            }
        }
    }
}
