//! The keys of recently answered questions: a question that comes again, byte for byte, need not be hashed with SHA-256
//! again.
//!
//! No decision depends on the memo. A key is found only by all of its inputs. Each policy has its own memo, because
//! the policy decides the rest of what goes into a key. The identity of a question, which includes its tenant,
//! sharing, task and body length, is compared in full. So not even a hash collision can give one caller the answer of
//! another.
//!
//! The body, which may be long, is not stored. It is identified by a 128-bit SipHash-1-3 under a secret that the
//! workers of one Envoy draw for each policy from the host's random numbers ([`KeyMemo::agree`]) and that does not
//! leave the process (<https://www.aumasson.jp/siphash/siphash.pdf>). The number of rounds is that of hash tables,
//! because two colliding bodies would only give their sender one of the sender's own answers. Without the secret no
//! caller can search for collisions, and a response reveals only whether a hash was known. A guessed body collides
//! with a given remembered one with probability 2^-128, and thousands are remembered.
//!
//! A worker remembers its own hits here. What all workers know is in [`crate::cache::local::key_index`].

use crate::cache::key::{Key, VERSION};
use crate::cache::question::{IDENTITY_VERSION, Question};
use crate::store::quick_hash::QuickHash;
use crate::store::secret::Secret;
use crate::store::shared_data::SharedData;
use siphasher::sip128::{Hasher128, SipHasher13};
use std::collections::{HashMap, VecDeque};
use std::hash::Hasher as _;

/// Identifies a question without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// Hash of the identity and the body, under the secret.
    pub(super) hash: u128,
    /// Everything but the body: [`Question::identity_bytes`].
    pub(super) identity: Box<[u8]>,
}

/// The questions of one worker, with their keys.
#[derive(Default)]
pub struct KeyMemo {
    /// The secret that questions are hashed under.
    secret: Secret,
    /// Callers cannot choose fingerprints, so any hash spreads them safely.
    keys: HashMap<u128, Remembered, QuickHash>,
    /// Hashes in order of insertion.
    order: VecDeque<u128>,
    bytes: usize,
}

struct Remembered {
    identity: Box<[u8]>,
    key: Key,
}

/// Maximum bytes of all questions, and of the identity of one.
const MAX_BYTES: usize = 1 << 20;
const MAX_IDENTITY: usize = 1 << 10;
/// Maximum overhead of a question in both collections, in bytes, besides its identity.
const FRAME: usize = 320;

/// Record of the secret that the workers agreed on. The policy's revision and the versions of keys and identities
/// precede it.
const AGREED: &str = "pointsman.known";

impl KeyMemo {
    /// Adopts the secret that another worker of this Envoy has drawn for the policy of this revision, or offers its
    /// own. All workers then compute the same fingerprint for a question. Replaces the secret of another policy,
    /// because its fingerprints mean something else.
    pub fn agree(&mut self, data: &mut dyn SharedData, revision: u64) {
        let (record, version) = data.get(AGREED);
        // Shared data outlives the module, so the versions of the encodings are part of the record.
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

    /// Returns the key of the question, if it is known.
    ///
    /// # Errors
    /// The fingerprint for [`KeyMemo::insert`], or `None` if the identity is too long to be remembered.
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

    /// Remembers the key of a question, and evicts the oldest ones if there is no room.
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
        // Prompts must not appear in logs.
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
            // The same bytes, split differently between user and body.
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

    /// One record. The last field is what another worker writes first, so that the next write fails.
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
        // A policy that comes back finds its secret replaced, and draws a new one.
        let (c, d, e, f) = (agree(2), agree(2), agree(1), agree(1));
        assert!(c == d && e == f && HashSet::from([a.hash, c.hash, e.hash]).len() == 3);
        let record = shared.0.clone();
        // A worker that loses the race adopts the winning secret, unless the record is another policy's or unreadable.
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
