//! The keys of questions that were answered lately: who asks one again, byte for byte, need not have it hashed again.
//!
//! Nothing is decided by it. A key is found only by everything that it was made of; the policy, which decides the rest of what
//! goes into a key, owns it, so it ends with the policy. Who asks, for whom, for what and with how long a body is compared in
//! full, so that whatever becomes of the rest, nobody is given what is another's. The body itself, which may be long, is not
//! kept: it is told by SipHash-1-3 of 128 bits under a secret that each worker draws for each policy from the host's random
//! numbers and that leaves it in no form (<https://www.aumasson.jp/siphash/siphash.pdf>; the rounds are those of hash tables,
//! because two bodies of one hash would give whoever sent both an answer of his own). Without the secret nobody can look
//! for two bodies of one hash, and an answer tells nothing of a hash but whether it was known; for whoever tries, each body
//! is one of another's hash with a chance of 2^-128 for each of the few thousand that are remembered.

use super::eligible::Sharing;
use super::key::Key;
use crate::config::DataClass;
use crate::policy::{ModelId, TaskId, TenantId};
use crate::quick_hash::QuickHash;
use crate::secret::Secret;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
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
pub struct Mark(u128);

/// The questions of one worker, and their keys.
#[derive(Default)]
pub struct Known {
    /// What questions are hashed under.
    secret: Secret,
    memo: Mutex<Memo>,
}

#[derive(Default)]
struct Memo {
    /// Nobody can choose marks, so they may be spread by any hash.
    keys: HashMap<u128, Remembered, QuickHash>,
    /// In the order in which they came.
    order: VecDeque<u128>,
    bytes: usize,
}

/// Tenant, task, class of data, model, most output tokens.
type Asked = (TenantId, TaskId, DataClass, ModelId, Option<u64>);

struct Remembered {
    question: Asked,
    scope: Scope,
    who: Box<[u8]>,
    body_len: usize,
    key: Key,
}

#[derive(PartialEq, Eq)]
enum Scope {
    Tenant,
    User,
    NamedUser,
    Permissions,
}

/// Bytes that all of them take at the most, and the words of one.
const MOST_BYTES: usize = 1 << 20;
const MOST_OF_ONE: usize = 1 << 10;
/// What one takes at the most, in both collections, besides its words.
const FRAME: usize = 384;

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

    fn is(&self, known: &Remembered) -> bool {
        let (question, scope, who) = self.parts();
        question == known.question && scope == known.scope && *who == *known.who && self.body.len() == known.body_len
    }
}

impl Known {
    /// The key of the question, if it is known.
    ///
    /// # Errors
    /// The mark to [`Known::remember`] it by, if it can be.
    pub fn key(&self, question: &Question) -> Result<Key, Option<Mark>> {
        if question.parts().2.len() > MOST_OF_ONE {
            return Err(None);
        }
        let mark = self.mark(question);
        let memo = self.memo.try_lock().map_err(|_| None)?;
        let known = memo.keys.get(&mark.0).filter(|known| question.is(known));
        known.map(|known| known.key).ok_or(Some(mark))
    }

    fn mark(&self, question: &Question) -> Mark {
        let (a, b) = self.secret.words();
        let mut hasher = SipHasher13::new_with_keys(a, b);
        question.hash(&mut hasher);
        Mark(hasher.finish128().as_u128())
    }

    /// Remembers the key of a question, and forgets the oldest where there is no room.
    pub fn remember(&self, question: &Question, Mark(hash): Mark, key: Key) {
        let (asked, scope, who) = question.parts();
        let size = |known: &Remembered| known.who.len() + FRAME;
        let mut memo = match self.memo.try_lock() {
            Ok(memo) => memo,
            Err(TryLockError::Poisoned(memo)) => memo.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let known = Remembered { question: asked, scope, who: who.into(), body_len: question.body.len(), key };
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
    use std::collections::HashSet;

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
        let (marks, whole) = (HashSet::from(all.map(|question| known.mark(&question).0)), all.len());
        assert_eq!(marks.len(), whole);
        for (n, question) in all.iter().enumerate() {
            let mark = known.key(question).unwrap_err().unwrap();
            known.remember(question, mark, Key([n as u8; 32]));
        }
        for (n, question) in all.iter().enumerate() {
            assert_eq!(known.key(question), Ok(Key([n as u8; 32])));
        }
    }

    #[test]
    fn one_hash_gives_nobody_what_is_anothers() {
        for other in [
            Question { tenant: TenantId(2), ..QUESTION },
            Question { task: TaskId(2), ..QUESTION },
            Question { model: ModelId(2), ..QUESTION },
            Question { most_output: Some(5), ..QUESTION },
            Question { data: DataClass::Public, ..QUESTION },
            Question { sharing: Sharing::User(b""), ..QUESTION },
            Question { sharing: Sharing::Permissions(b""), ..QUESTION },
            Question { body: b"{} ", ..QUESTION },
        ] {
            let known = Known::default();
            known.remember(&other, known.mark(&QUESTION), Key([1; 32]));
            assert!(known.key(&QUESTION).is_err(), "{other:?}");
        }
    }

    #[test]
    fn no_two_have_the_same_secret() {
        let marks: HashSet<u128> = (0..100).map(|_| Known::default().mark(&QUESTION).0).collect();
        assert_eq!(marks.len(), 100);
    }

    #[test]
    fn it_takes_a_megabyte_at_the_most_and_forgets_the_oldest() {
        let known = Known::default();
        let asks = |n: u32, act: &dyn Fn(&Question)| {
            let (body, user) = (n.to_string(), vec![b'u'; n as usize % 100]);
            act(&Question { body: body.as_bytes(), sharing: Sharing::User(&user), ..QUESTION });
        };
        for n in 0..6000 {
            asks(n, &|question| {
                known.remember(question, known.mark(question), Key([1; 32]));
                known.remember(question, known.mark(question), Key([2; 32]));
            });
            let memo = known.memo.lock().unwrap();
            assert!(memo.bytes <= MOST_BYTES && memo.order.len() == memo.keys.len());
            if n % 100 == 99 {
                let bytes: usize = memo.keys.values().map(|k| k.who.len() + FRAME).sum();
                let held = memo.keys.capacity() * size_of::<(u128, Remembered)>() * 8 / 7 + memo.order.capacity() * 16;
                let words: usize = memo.keys.values().map(|k| k.who.len()).sum();
                assert!(memo.bytes == bytes && (n < 1000 || held + words <= MOST_BYTES), "{held} {words}");
            }
        }
        asks(0, &|question| assert!(known.key(question).is_err()));
        asks(5999, &|question| assert_eq!(known.key(question), Ok(Key([2; 32]))));
        assert!(known.memo.lock().unwrap().keys.len() > 2000);
        let long = vec![b'x'; MOST_OF_ONE + 1];
        assert_eq!(known.key(&Question { sharing: Sharing::User(&long), ..QUESTION }), Err(None));
    }
}
