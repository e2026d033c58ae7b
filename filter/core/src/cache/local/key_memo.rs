//! The keys of questions that were answered lately: who asks one again, byte for byte, need not have it hashed again.
//!
//! Nothing is decided by it. A key is found only by everything that it was made of; the policy, which decides the rest
//! of what goes into a key, has a memo of its own, which ends with it. Who asks, for whom, for what and with how long a
//! body is compared in full, so that whatever becomes of the rest, nobody is given what is another's. The body itself,
//! which may be long, is not kept: it is told by SipHash-1-3 of 128 bits under a secret that the workers of one Envoy
//! draw for each policy from the host's random numbers ([`KeyMemo::agree`]) and that does not leave the process
//! (<https://www.aumasson.jp/siphash/siphash.pdf>; the rounds are those of hash tables, because two bodies of one hash
//! would give whoever sent both an answer of his own). Without the secret nobody can look for two bodies of one hash,
//! and an answer tells nothing of a hash but whether it was known; for whoever tries, each body is one of another's
//! hash with a chance of 2^-128 for each of the thousands that are remembered.
//!
//! A worker remembers what hit, here; what all workers know is in [`crate::cache::local::key_index`].

use crate::cache::key::{Key, VERSION};
use crate::cache::question::{IDENTITY_VERSION, Question};
use crate::store::quick_hash::QuickHash;
use crate::store::secret::Secret;
use crate::store::shared_data::SharedData;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::{HashMap, VecDeque};
use std::hash::Hasher as _;

/// What a question is remembered by, in place of its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of all of it, under the secret.
    pub(super) hash: u128,
    /// All but the body: [`Question::identity_bytes`].
    pub(super) identity: Box<[u8]>,
}

/// The questions of one worker, and their keys.
#[derive(Default)]
pub struct KeyMemo {
    /// What questions are hashed under.
    secret: Secret,
    /// Nobody can choose fingerprints, so they may be spread by any hash.
    keys: HashMap<u128, Remembered, QuickHash>,
    /// In the order in which they came.
    order: VecDeque<u128>,
    bytes: usize,
}

struct Remembered {
    identity: Box<[u8]>,
    key: Key,
}

/// Bytes that all of them take at most, and the identity of one.
const MAX_BYTES: usize = 1 << 20;
const MAX_IDENTITY: usize = 1 << 10;
/// What one takes at most, in both collections, besides its identity.
const FRAME: usize = 320;

/// The secret that the workers have agreed on, after the revision of its policy and the versions of keys and of
/// identities.
const AGREED: &str = "pointsman.known";

impl KeyMemo {
    /// Takes the secret that another worker of this Envoy has drawn for the policy of this revision, or offers its own:
    /// then all know a question by the same fingerprint. Another policy's secret gives way, because its fingerprints
    /// mean something else.
    pub fn agree(&mut self, data: &mut dyn SharedData, revision: u64) {
        let (record, version) = data.get(AGREED);
        // Shared data outlives the module too.
        let of = [&revision.to_be_bytes()[..], VERSION, &[IDENTITY_VERSION]].concat();
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
    /// The fingerprint to [`KeyMemo::insert`] it by, if it can be.
    pub fn key(&self, question: &Question) -> Result<Key, Option<Fingerprint>> {
        let identity = question.identity_bytes();
        if identity.len() > MAX_IDENTITY {
            return Err(None);
        }
        let hash = self.hash(&identity, question.body);
        let known = self.keys.get(&hash).filter(|known| *known.identity == *identity);
        known.map(|known| known.key).ok_or_else(|| Some(Fingerprint { hash, identity: identity.into() }))
    }

    fn hash(&self, identity: &[u8], body: &[u8]) -> u128 {
        let (a, b) = self.secret.words();
        let mut hasher = SipHasher13::new_with_keys(a, b);
        hasher.write(identity);
        hasher.write(body);
        hasher.finish128().as_u128()
    }

    /// Remembers the key of a question, and evicts the oldest where there is no room.
    pub fn insert(&mut self, fingerprint: Fingerprint, key: Key) {
        let size = |known: &Remembered| known.identity.len() + FRAME;
        let Fingerprint { hash, identity } = fingerprint;
        let known = Remembered { identity, key };
        self.bytes += size(&known);
        match self.keys.insert(hash, known) {
            Some(before) => self.bytes -= size(&before),
            None => self.order.push_back(hash),
        }
        while self.bytes > MAX_BYTES {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some(gone) = self.keys.remove(&oldest) {
                self.bytes -= size(&gone);
            }
        }
    }
}

impl std::fmt::Debug for KeyMemo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Prompts stand in no log.
        f.write_str("KeyMemo")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fixture::QUESTION;
    use crate::cache::question::Sharing;
    use crate::config::DataClass;
    use crate::ids::{ModelId, TaskId, TenantId};
    use crate::request::endpoint::Endpoint;
    use crate::store::shared_data::NEW;
    use std::collections::HashSet;

    impl KeyMemo {
        fn fingerprint(&self, question: &Question) -> Fingerprint {
            let identity = question.identity_bytes();
            Fingerprint { hash: self.hash(&identity, question.body), identity: identity.into() }
        }
    }

    #[test]
    fn a_key_is_found_by_all_that_it_is_made_of_and_by_nothing_less() {
        let mut memo = KeyMemo::default();
        let all = [
            QUESTION,
            Question { endpoint: Endpoint::Models, ..QUESTION },
            Question { tenant: TenantId(2), ..QUESTION },
            Question { task: TaskId(2), ..QUESTION },
            Question { model: ModelId(2), ..QUESTION },
            Question { max_output: Some(0), ..QUESTION },
            Question { max_output: Some(5), ..QUESTION },
            Question { max_output: Some(6), ..QUESTION },
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
        let prints = all.map(|question| memo.fingerprint(&question));
        let hashes: HashSet<u128> = prints.iter().map(|print| print.hash).collect();
        let identities: HashSet<&[u8]> = prints.iter().map(|print| &*print.identity).collect();
        assert_eq!((hashes.len(), identities.len()), (all.len(), all.len()));
        for (n, question) in all.iter().enumerate() {
            let fingerprint = memo.key(question).unwrap_err().unwrap();
            memo.insert(fingerprint, Key([n as u8; 32]));
        }
        for (n, question) in all.iter().enumerate() {
            assert_eq!(memo.key(question), Ok(Key([n as u8; 32])));
        }
    }

    #[test]
    fn one_hash_gives_nobody_what_is_anothers() {
        for other in [
            Question { endpoint: Endpoint::Models, ..QUESTION },
            Question { tenant: TenantId(2), ..QUESTION },
            Question { task: TaskId(2), ..QUESTION },
            Question { model: ModelId(2), ..QUESTION },
            Question { max_output: Some(5), ..QUESTION },
            Question { data: DataClass::Public, ..QUESTION },
            Question { sharing: Sharing::User(b""), ..QUESTION },
            Question { sharing: Sharing::Permissions(b""), ..QUESTION },
            Question { body: b"{} ", ..QUESTION },
        ] {
            let mut memo = KeyMemo::default();
            let Fingerprint { hash, .. } = memo.fingerprint(&QUESTION);
            memo.insert(Fingerprint { hash, ..memo.fingerprint(&other) }, Key([1; 32]));
            assert!(memo.key(&QUESTION).is_err(), "{other:?}");
        }
    }

    #[test]
    fn no_two_have_the_same_secret() {
        let hashes: HashSet<u128> = (0..100).map(|_| KeyMemo::default().fingerprint(&QUESTION).hash).collect();
        assert_eq!(hashes.len(), 100);
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
            let mut memo = KeyMemo::default();
            memo.agree(&mut shared, revision);
            memo.fingerprint(&QUESTION)
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
            ([&record[..25], b"2", &record[26..]].concat(), false),
            ([&record[..26], &[IDENTITY_VERSION + 1], &record[27..]].concat(), false),
            (vec![1], false),
        ] {
            let mut shared = Record(vec![0; 7], 5, Some(won));
            let mut memo = KeyMemo::default();
            memo.agree(&mut shared, 1);
            assert_eq!(memo.fingerprint(&QUESTION) == f, agrees);
        }
    }

    #[test]
    fn it_takes_a_megabyte_at_most_and_evicts_the_oldest() {
        let mut memo = KeyMemo::default();
        let asks = |n: u32, act: &mut dyn FnMut(&Question)| {
            let (body, user) = (n.to_string(), vec![b'u'; n as usize % 100]);
            act(&Question { body: body.as_bytes(), sharing: Sharing::User(&user), ..QUESTION });
        };
        for n in 0..6000 {
            asks(n, &mut |question| {
                memo.insert(memo.fingerprint(question), Key([1; 32]));
                memo.insert(memo.fingerprint(question), Key([2; 32]));
            });
            assert!(memo.bytes <= MAX_BYTES && memo.order.len() == memo.keys.len());
            if n % 100 == 99 {
                let bytes: usize = memo.keys.values().map(|k| k.identity.len() + FRAME).sum();
                let held = memo.keys.capacity() * size_of::<(u128, Remembered)>() * 8 / 7 + memo.order.capacity() * 16;
                let identities: usize = memo.keys.values().map(|k| k.identity.len()).sum();
                assert!(memo.bytes == bytes && (n < 1000 || held + identities <= MAX_BYTES), "{held} {identities}");
            }
        }
        asks(0, &mut |question| assert!(memo.key(question).is_err()));
        asks(5999, &mut |question| assert_eq!(memo.key(question), Ok(Key([2; 32]))));
        assert!(memo.keys.len() > 2000);
        let long = vec![b'x'; MAX_IDENTITY + 1];
        assert_eq!(memo.key(&Question { sharing: Sharing::User(&long), ..QUESTION }), Err(None));
    }
}
