//! The keys of questions that were answered lately: who asks one again, byte for byte, need not have it hashed again.
//!
//! Nothing is decided by it. A key is found only by everything that it was made of; the policy, which decides the rest of what
//! goes into a key, owns it, so it ends with the policy. Who asks, for whom, for what and with how long a body is compared in
//! full, so that whatever becomes of the rest, nobody is given what is another's. The body itself, which may be long, is not
//! kept: it is told by SipHash-1-3 of 128 bits under a secret that the workers of one Envoy draw for each policy from the
//! host's random numbers ([`Known::agree`]) and that does not leave the process
//! (<https://www.aumasson.jp/siphash/siphash.pdf>; the rounds are those of hash tables,
//! because two bodies of one hash would give whoever sent both an answer of his own). Without the secret nobody can look
//! for two bodies of one hash, and an answer tells nothing of a hash but whether it was known; for whoever tries, each body
//! is one of another's hash with a chance of 2^-128 for each of the thousands that are remembered.
//!
//! A worker remembers what hit, here; what all workers know is in [`crate::cache::local::key_index`].

use crate::cache::eligibility::Sharing;
use crate::cache::key::{Key, VERSION};
use crate::config::DataClass;
use crate::ids::{ModelId, TaskId, TenantId};
use crate::store::quick_hash::QuickHash;
use crate::store::secret::Secret;
use crate::store::shared_data::SharedData;
use crate::store::try_lock;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::{HashMap, VecDeque};
use std::hash::Hasher as _;
use std::sync::Mutex;

/// What a key is made of, under one policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Of all of it, under the secret.
    pub(super) hash: u128,
    /// All but the body: [`Question::words`].
    pub(super) words: Box<[u8]>,
}

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

struct Remembered {
    words: Box<[u8]>,
    key: Key,
}

/// Bytes that all of them take at the most, and the words of one.
const MOST_BYTES: usize = 1 << 20;
const MOST_OF_ONE: usize = 1 << 10;
/// What one takes at the most, in both collections, besides its words.
const FRAME: usize = 320;

/// The version of [`Question::words`] and of what becomes of them.
const WORDS_VERSION: u8 = 1;
/// The secret that the workers have agreed on, after the revision of its policy and the versions of keys and of words.
const AGREED: &str = "pointsman.known";

impl Question<'_> {
    /// All but the body, whose length is told: no two questions of other words or another body say the same together.
    pub(super) fn words(&self) -> Vec<u8> {
        let Self { tenant, sharing, task, data, model, most_output, body } = *self;
        let (scope, who): (u8, &[u8]) = match sharing {
            Sharing::Tenant => (0, b""),
            Sharing::User(user) => (1, user),
            Sharing::NamedUser(user) => (2, user),
            Sharing::Permissions(permissions) => (3, permissions),
        };
        let mut words = Vec::with_capacity(32 + who.len());
        words.extend_from_slice(&tenant.0.to_le_bytes());
        words.extend_from_slice(&task.0.to_le_bytes());
        words.extend_from_slice(&model.0.to_le_bytes());
        words.extend_from_slice(&[data as u8, scope, u8::from(most_output.is_some())]);
        words.extend_from_slice(&most_output.unwrap_or(0).to_le_bytes());
        words.extend_from_slice(&(body.len() as u64).to_le_bytes());
        words.extend_from_slice(who);
        words
    }
}

impl Known {
    /// Takes the secret that another worker of this Envoy has drawn for the policy of this revision, or offers its own: then
    /// all know a question by the same mark. Another policy's secret gives way, because its marks mean something else.
    pub fn agree(&mut self, data: &mut dyn SharedData, revision: u64) {
        let (record, version) = data.get(AGREED);
        // Shared data outlives the module too.
        let of = [&revision.to_be_bytes()[..], VERSION, &[WORDS_VERSION]].concat();
        let agreed = |record: &[u8]| Some(Secret::from_bytes(record.strip_prefix(&*of)?.try_into().ok()?));
        if let Some(secret) = agreed(&record) {
            self.secret = secret;
            return;
        }
        let own = [&of[..], &self.secret.to_bytes()].concat();
        if !data.set(AGREED, &own, version)
            && let Some(secret) = agreed(&data.get(AGREED).0)
        {
            self.secret = secret;
        }
    }

    /// The key of the question, if it is known.
    ///
    /// # Errors
    /// The mark to [`Known::remember`] it by, if it can be.
    pub fn key(&self, question: &Question) -> Result<Key, Option<Mark>> {
        let words = question.words();
        if words.len() > MOST_OF_ONE {
            return Err(None);
        }
        let hash = self.hash(&words, question.body);
        let memo = try_lock::open(&self.memo).ok_or(None)?;
        let known = memo.keys.get(&hash).filter(|known| *known.words == *words);
        known.map(|known| known.key).ok_or_else(|| Some(Mark { hash, words: words.into() }))
    }

    fn hash(&self, words: &[u8], body: &[u8]) -> u128 {
        let (a, b) = self.secret.words();
        let mut hasher = SipHasher13::new_with_keys(a, b);
        hasher.write(words);
        hasher.write(body);
        hasher.finish128().as_u128()
    }

    /// Remembers the key of a question, and forgets the oldest where there is no room.
    pub fn remember(&self, mark: Mark, key: Key) {
        let size = |known: &Remembered| known.words.len() + FRAME;
        let Some(mut memo) = try_lock::open(&self.memo) else { return };
        let known = Remembered { words: mark.words, key };
        memo.bytes += size(&known);
        match memo.keys.insert(mark.hash, known) {
            Some(before) => memo.bytes -= size(&before),
            None => memo.order.push_back(mark.hash),
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
    use crate::cache::fixture::QUESTION;
    use crate::store::shared_data::NEW;
    use std::collections::HashSet;

    impl Known {
        fn mark(&self, question: &Question) -> Mark {
            let words = question.words();
            Mark { hash: self.hash(&words, question.body), words: words.into() }
        }
    }

    #[test]
    fn a_key_is_found_by_all_that_it_is_made_of_and_by_nothing_less() {
        let known = Known::default();
        let all = [
            QUESTION,
            Question { tenant: TenantId(2), ..QUESTION },
            Question { task: TaskId(2), ..QUESTION },
            Question { model: ModelId(2), ..QUESTION },
            Question { most_output: Some(0), ..QUESTION },
            Question { most_output: Some(5), ..QUESTION },
            Question { most_output: Some(6), ..QUESTION },
            Question { data: DataClass::Public, ..QUESTION },
            Question { sharing: Sharing::User(b"u"), ..QUESTION },
            Question { sharing: Sharing::User(b"v"), ..QUESTION },
            Question { sharing: Sharing::User(b""), ..QUESTION },
            Question { sharing: Sharing::NamedUser(b"u"), ..QUESTION },
            Question { sharing: Sharing::Permissions(b"u"), ..QUESTION },
            Question { body: b"{} ", ..QUESTION },
            Question { body: b"", ..QUESTION },
            // What one part loses, the next one has.
            Question { sharing: Sharing::User(b"u{"), body: b"}", ..QUESTION },
            Question { sharing: Sharing::User(b"u{}"), body: b"", ..QUESTION },
        ];
        let marks = all.map(|question| known.mark(&question));
        let hashes: HashSet<u128> = marks.iter().map(|mark| mark.hash).collect();
        let words: HashSet<&[u8]> = marks.iter().map(|mark| &*mark.words).collect();
        assert_eq!((hashes.len(), words.len()), (all.len(), all.len()));
        for (n, question) in all.iter().enumerate() {
            let mark = known.key(question).unwrap_err().unwrap();
            known.remember(mark, Key([n as u8; 32]));
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
            let Mark { hash, .. } = known.mark(&QUESTION);
            known.remember(Mark { hash, ..known.mark(&other) }, Key([1; 32]));
            assert!(known.key(&QUESTION).is_err(), "{other:?}");
        }
    }

    #[test]
    fn no_two_have_the_same_secret() {
        let marks: HashSet<u128> = (0..100).map(|_| Known::default().mark(&QUESTION).hash).collect();
        assert_eq!(marks.len(), 100);
    }

    /// One record, and how often a write of it is lost to another worker, which writes this.
    struct Record(Vec<u8>, u32, Option<Vec<u8>>);

    impl SharedData for Record {
        fn get(&mut self, name: &str) -> (Vec<u8>, u32) {
            assert_eq!(name, AGREED);
            (self.0.clone(), self.1)
        }
        fn set(&mut self, _: &str, record: &[u8], version: u32) -> bool {
            let others = self.2.take();
            let is_first = others.is_none() && version == self.1;
            self.0 = others.unwrap_or_else(|| if is_first { record.to_vec() } else { self.0.clone() });
            self.1 = self.1.wrapping_add(2);
            is_first
        }
    }

    #[test]
    fn workers_of_one_policy_agree_on_a_secret_and_those_of_another_do_not() {
        let mut shared = Record(Vec::new(), NEW, None);
        let mut agree = |revision: u64| {
            let mut known = Known::default();
            known.agree(&mut shared, revision);
            known.mark(&QUESTION)
        };
        let (a, b) = (agree(1), agree(1));
        assert_eq!(a, b);
        // A policy that comes back finds that its secret is gone, and draws another one.
        let (c, d, e, f) = (agree(2), agree(2), agree(1), agree(1));
        assert!(c == d && e == f && HashSet::from([a.hash, c.hash, e.hash]).len() == 3);
        let record = shared.0.clone();
        // Who loses takes what won, unless that is another policy's, or nothing.
        for (won, agrees) in [
            (record.clone(), true),
            ([&[9; 8], &record[8..]].concat(), false),
            ([&record[..25], b"3", &record[26..]].concat(), false),
            ([&record[..26], &[WORDS_VERSION + 1], &record[27..]].concat(), false),
            (vec![1], false),
        ] {
            let mut shared = Record(vec![0; 7], 5, Some(won));
            let mut known = Known::default();
            known.agree(&mut shared, 1);
            assert_eq!(known.mark(&QUESTION) == f, agrees);
        }
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
                known.remember(known.mark(question), Key([1; 32]));
                known.remember(known.mark(question), Key([2; 32]));
            });
            let memo = known.memo.lock().unwrap();
            assert!(memo.bytes <= MOST_BYTES && memo.order.len() == memo.keys.len());
            if n % 100 == 99 {
                let bytes: usize = memo.keys.values().map(|k| k.words.len() + FRAME).sum();
                let held = memo.keys.capacity() * size_of::<(u128, Remembered)>() * 8 / 7 + memo.order.capacity() * 16;
                let words: usize = memo.keys.values().map(|k| k.words.len()).sum();
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
