//! The keys of questions that were answered lately: who asks one again, byte for byte, need not have it hashed again.
//!
//! Nothing is decided by it. A key is found only by everything that it was made of, compared in full; the policy, which
//! decides the rest of what goes into a key, owns it, so it ends with the policy.

use super::eligible::Sharing;
use super::key::Key;
use crate::config::DataClass;
use crate::policy::{ModelId, TaskId, TenantId};
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, TryLockError};

/// What a key is made of, under one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Question<'a> {
    /// Who asks.
    pub tenant: TenantId,
    /// Who shares the answer.
    pub sharing: Sharing<'a>,
    /// The task.
    pub task: TaskId,
    /// The class of the request's data.
    pub data: DataClass,
    /// The plan's first model.
    pub model: ModelId,
    /// Most output tokens, by the quota of the tenant and of whoever its user is: the request is changed by it.
    pub most_output: Option<u64>,
    /// The request as it came.
    pub body: &'a [u8],
}

/// What a question is remembered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

/// The questions of one worker, and their keys.
#[derive(Default)]
pub struct Known(Mutex<Memo>);

#[derive(Default)]
struct Memo {
    keys: HashMap<u64, Remembered>,
    /// In the order in which they came.
    order: VecDeque<u64>,
    bytes: usize,
}

/// Tenant, task, class of data, model, most output tokens.
type Asked = (TenantId, TaskId, DataClass, ModelId, Option<u64>);

struct Remembered {
    question: Asked,
    scope: Scope,
    who: Box<[u8]>,
    body: Box<[u8]>,
    key: Key,
}

#[derive(PartialEq, Eq)]
enum Scope {
    Tenant,
    User,
    NamedUser,
    Permissions,
}

/// Bytes that all of them take at the most, and one.
const MOST_BYTES: usize = 1 << 20;
const MOST_OF_ONE: usize = 32 << 10;
/// Around the bytes of one.
const FRAME: usize = 160;

impl Question<'_> {
    fn parts(&self) -> (Asked, Scope, &[u8]) {
        let Self { tenant, sharing, task, data, model, most_output, body: _ } = *self;
        let (scope, who): (_, &[u8]) = match sharing {
            Sharing::Tenant => (Scope::Tenant, b""),
            Sharing::User(user) => (Scope::User, user),
            Sharing::NamedUser(user) => (Scope::NamedUser, user),
            Sharing::Permissions(permissions) => (Scope::Permissions, permissions),
        };
        ((tenant, task, data, model, most_output), scope, who)
    }

    fn mark(&self) -> Mark {
        // Whoever finds two of one hash makes himself one of them hashed each time.
        let mut hasher = DefaultHasher::new();
        Hash::hash(self, &mut hasher);
        Mark(hasher.finish())
    }

    fn is(&self, known: &Remembered) -> bool {
        let (question, scope, who) = self.parts();
        question == known.question && scope == known.scope && *who == *known.who && *self.body == *known.body
    }
}

impl Known {
    /// The key of the question, if it is known.
    ///
    /// # Errors
    /// The mark to [`Known::remember`] it by, if it can be.
    pub fn key(&self, question: &Question) -> Result<Key, Option<Mark>> {
        if question.body.len() > MOST_OF_ONE || question.parts().2.len() > MOST_OF_ONE {
            return Err(None);
        }
        let mark = question.mark();
        let memo = self.0.try_lock().map_err(|_| None)?;
        let known = memo.keys.get(&mark.0).filter(|known| question.is(known));
        known.map(|known| known.key).ok_or(Some(mark))
    }

    /// Remembers the key of a question, and forgets the oldest where there is no room.
    pub fn remember(&self, question: &Question, Mark(hash): Mark, key: Key) {
        let (asked, scope, who) = question.parts();
        let size = |known: &Remembered| known.who.len() + known.body.len() + FRAME;
        let mut memo = match self.0.try_lock() {
            Ok(memo) => memo,
            Err(TryLockError::Poisoned(memo)) => memo.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let known = Remembered { question: asked, scope, who: who.into(), body: question.body.into(), key };
        memo.bytes += size(&known);
        match memo.keys.insert(hash, known) {
            Some(before) => memo.bytes -= size(&before),
            None => memo.order.push_back(hash),
        }
        while memo.bytes > MOST_BYTES {
            let Some(oldest) = memo.order.pop_front() else { return };
            if let Some(gone) = memo.keys.remove(&oldest) {
                memo.bytes -= size(&gone);
            }
        }
    }
}

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Prompts stand in no log.
        f.write_str("Known")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Question = Question {
        tenant: TenantId(1),
        sharing: Sharing::Tenant,
        task: TaskId(1),
        data: DataClass::Internal,
        model: ModelId(1),
        most_output: None,
        body: b"{}",
    };

    #[test]
    fn a_key_is_found_by_all_that_it_is_made_of_and_by_nothing_less() {
        let known = Known::default();
        let all = [
            QUESTION,
            Question { tenant: TenantId(2), ..QUESTION },
            Question { task: TaskId(2), ..QUESTION },
            Question { model: ModelId(2), ..QUESTION },
            Question { most_output: Some(5), ..QUESTION },
            Question { most_output: Some(6), ..QUESTION },
            Question { data: DataClass::Public, ..QUESTION },
            Question { sharing: Sharing::User(b"u"), ..QUESTION },
            Question { sharing: Sharing::User(b"v"), ..QUESTION },
            Question { sharing: Sharing::NamedUser(b"u"), ..QUESTION },
            Question { sharing: Sharing::Permissions(b"u"), ..QUESTION },
            Question { body: b"{} ", ..QUESTION },
        ];
        for (n, question) in all.iter().enumerate() {
            let mark = known.key(question).unwrap_err().unwrap();
            known.remember(question, mark, Key([n as u8; 32]));
            // Also where two had the same hash.
            for other in &all[n + 1..] {
                let memo = known.0.lock().unwrap();
                assert!(memo.keys.values().all(|known| !other.is(known)), "{other:?}");
            }
        }
        for (n, question) in all.iter().enumerate() {
            assert_eq!(known.key(question), Ok(Key([n as u8; 32])));
        }
    }

    #[test]
    fn it_takes_a_megabyte_at_the_most_and_forgets_the_oldest() {
        let known = Known::default();
        let body = |n: u32| format!("{n:08}").repeat(500).into_bytes();
        for n in 0..1000 {
            let body = body(n);
            let question = Question { body: &body, ..QUESTION };
            known.remember(&question, question.mark(), Key([1; 32]));
            known.remember(&question, question.mark(), Key([2; 32]));
            let memo = known.0.lock().unwrap();
            let bytes: usize = memo.keys.values().map(|k| k.body.len() + k.who.len() + FRAME).sum();
            assert!(memo.bytes == bytes && bytes <= MOST_BYTES && memo.order.len() == memo.keys.len());
        }
        assert!(known.key(&Question { body: &body(0), ..QUESTION }).is_err());
        assert_eq!(known.key(&Question { body: &body(999), ..QUESTION }), Ok(Key([2; 32])));
        let long = vec![b'x'; MOST_OF_ONE + 1];
        assert_eq!(known.key(&Question { body: &long, ..QUESTION }), Err(None));
        assert_eq!(known.key(&Question { sharing: Sharing::User(&long), ..QUESTION }), Err(None));
    }
}
