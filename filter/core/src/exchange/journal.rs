//! The calls that a held request makes, and their results, in the order in which the request asked.
//!
//! [`super`] explains why each result starts a new pass. The journal makes every pass decide the same: it replays the
//! answers to earlier questions, and turns the first unanswered question into a call.

use crate::wire::http_call::{HttpCall, HttpCallResult};

/// The purpose of a call. Every pass asks the questions of one purpose in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A cache entry.
    CacheEntry,
    /// A quota step: a reservation or a read.
    Quota,
}

/// The calls of one request.
#[derive(Debug, Default)]
pub(super) struct Journal {
    entries: Vec<Entry>,
    /// The call that has no answer yet.
    pending: Option<(Purpose, Form)>,
}

#[derive(Debug)]
struct Entry {
    purpose: Purpose,
    form: Form,
    status: u16,
    body: Vec<u8>,
    /// Whether the current pass has used it.
    is_replayed: bool,
}

/// How a question is phrased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Short,
    /// Again in full, because the other side did not understand the short form.
    Full,
}

/// A question without an answer: make this call first.
#[derive(Debug)]
pub(super) struct Pending(pub(super) HttpCall);

impl Journal {
    /// The next answer for `purpose`, or the call that asks for it.
    ///
    /// `call` builds the call. If an answer `is_not_understood`, the journal asks again with the full form.
    ///
    /// # Errors
    /// [`Pending`]: hold the request, make the call, and pass its result to [`Journal::record`].
    pub(super) fn ask(
        &mut self,
        purpose: Purpose,
        call: impl Fn(bool) -> HttpCall,
        is_not_understood: impl Fn(&HttpCallResult) -> bool,
    ) -> Result<HttpCallResult<'_>, Pending> {
        let next = self.entries.iter().position(|entry| entry.purpose == purpose && !entry.is_replayed);
        let repeat = next.and_then(|at| self.entries.get(at)).is_some_and(|entry| {
            entry.form == Form::Short && is_not_understood(&HttpCallResult { status: entry.status, body: &entry.body })
        });
        match next {
            Some(at) if repeat => {
                self.entries.remove(at);
                self.pending = Some((purpose, Form::Full));
                Err(Pending(call(true)))
            }
            Some(at) => match self.entries.get_mut(at) {
                Some(entry) => {
                    entry.is_replayed = true;
                    Ok(HttpCallResult { status: entry.status, body: &entry.body })
                }
                None => Ok(HttpCallResult::NOT_SENT),
            },
            None => {
                self.pending = Some((purpose, Form::Short));
                Err(Pending(call(false)))
            }
        }
    }

    /// Records the pending call's result; evaluate the request again. Returns `false` if no call is pending.
    pub(super) fn record(&mut self, result: &HttpCallResult) -> bool {
        let Some((purpose, form)) = self.pending.take() else { return false };
        self.entries.iter_mut().for_each(|entry| entry.is_replayed = false);
        let (status, body) = (result.status, result.body.to_vec());
        self.entries.push(Entry { purpose, form, status, body, is_replayed: false });
        true
    }

    /// Whether the other side may have acted without our knowledge: a question of this purpose has no answer, or its
    /// answer came too late to be read.
    pub(super) fn is_uncertain(&self, purpose: Purpose) -> bool {
        self.pending.is_some_and(|(pending, _)| pending == purpose)
            || self.entries.iter().any(|entry| entry.purpose == purpose && !entry.is_replayed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(body: &str) -> HttpCall {
        HttpCall { cluster: String::new(), headers: Vec::new(), body: body.into(), timeout_ms: 1 }
    }

    fn ask(journal: &mut Journal, purpose: Purpose, question: &str) -> Result<String, String> {
        let form = |full| call(&format!("{question}{}", if full { " in full" } else { "" }));
        match journal.ask(purpose, form, |result| result.body == b"what?") {
            Ok(result) => Ok(String::from_utf8(result.body.to_vec()).unwrap()),
            Err(Pending(call)) => Err(String::from_utf8(call.body).unwrap()),
        }
    }

    fn record(journal: &mut Journal, body: &str) -> bool {
        journal.record(&HttpCallResult { status: 200, body: body.as_bytes() })
    }

    #[test]
    fn answers_come_again_in_their_order_and_each_purpose_has_its_own() {
        let mut journal = Journal::default();
        assert_eq!(ask(&mut journal, Purpose::CacheEntry, "entry"), Err("entry".into()));
        assert!(record(&mut journal, "none"));
        assert_eq!(ask(&mut journal, Purpose::CacheEntry, "entry"), Ok("none".into()));
        assert_eq!(ask(&mut journal, Purpose::Quota, "one"), Err("one".into()));
        assert!(record(&mut journal, "1"));
        // The cache step already has its entry and does not ask again.
        assert_eq!(ask(&mut journal, Purpose::Quota, "one"), Ok("1".into()));
        assert_eq!(ask(&mut journal, Purpose::Quota, "two"), Err("two".into()));
        assert!(record(&mut journal, "2"));
        assert_eq!(ask(&mut journal, Purpose::Quota, "one"), Ok("1".into()));
        assert_eq!(ask(&mut journal, Purpose::Quota, "two"), Ok("2".into()));
        assert!(!journal.is_uncertain(Purpose::Quota));
    }

    #[test]
    fn what_is_not_understood_is_asked_once_more_and_no_oftener() {
        let mut journal = Journal::default();
        assert_eq!(ask(&mut journal, Purpose::Quota, "one"), Err("one".into()));
        record(&mut journal, "what?");
        assert_eq!(ask(&mut journal, Purpose::Quota, "one"), Err("one in full".into()));
        record(&mut journal, "what?");
        assert_eq!(ask(&mut journal, Purpose::Quota, "one"), Ok("what?".into()));
    }

    #[test]
    fn a_result_that_nobody_waits_for_is_refused_and_one_that_nobody_saw_is_uncertain() {
        let mut journal = Journal::default();
        assert!(!record(&mut journal, "late"));
        assert_eq!(ask(&mut journal, Purpose::Quota, "one"), Err("one".into()));
        assert!(journal.is_uncertain(Purpose::Quota) && !journal.is_uncertain(Purpose::CacheEntry));
        record(&mut journal, "1");
        assert!(journal.is_uncertain(Purpose::Quota));
        assert_eq!(ask(&mut journal, Purpose::Quota, "one"), Ok("1".into()));
        assert!(!journal.is_uncertain(Purpose::Quota));
    }
}
