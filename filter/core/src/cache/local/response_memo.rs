//! The questions that hit lately on this worker, word for word, and for a moment their answers too: who asks one of
//! them again need have it neither parsed nor hashed by SHA-256 or SipHash, nor its answer read from the store.
//!
//! A body is found by comparing it, and a question by comparing all that its key is made of besides; hashes, which are
//! quick and no secret, only say where to look. So whatever somebody sends, nobody is given what is another's: two of
//! one hash drive each other out, no more. What a body says on one endpoint is the same for everybody, so who asks does
//! not matter there. A policy has a memo of its own, which ends with it, and so with every revision that the policy
//! raises.
//!
//! An answer is good for [`ANSWER_MS`] after it was read from the store of this Envoy. Within that time another worker
//! may have kept a newer one, for a caller who wanted no answer of the cache: who asks here is given the one before.
//! What this worker keeps is asked of the store at once.

use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::question::Question;
use crate::dialect::client::{ClientDialect, ClientRequest};
use crate::request::endpoint::Endpoint;
use crate::request::facts::InvalidRequest;
use crate::store::quick_hash::QuickHash;
use self_cell::self_cell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use wide::u8x16;

/// For how long an answer need not be read again, in milliseconds.
const ANSWER_MS: u64 = 2000;
/// Bytes of the longest body that is remembered, what was found in it included, and of the longest answer.
const MAX_BODY: usize = 16 << 10;
const MAX_ANSWER: usize = 64 << 10;
/// All of them take no more than this, nor than one part in so many of the cache's memory.
const MAX_BYTES: u64 = 8 << 20;
const SHARE: u64 = 8;
/// What a question takes at most besides its bytes and its body's; a body and an answer likewise.
const FRAME: usize = 256;
/// Where there is no room one question in so many takes the place of the oldest: more than there is room for, asked in
/// turn, would drive each other out before any of them comes again.
const TURNS: u32 = 64;

/// The questions of one worker under one policy.
pub struct ResponseMemo {
    max_bytes: usize,
    bodies: HashMap<u64, SharedBody, QuickHash>,
    /// Boxed, because a map keeps the room of all that it ever had.
    questions: HashMap<u64, Box<Remembered>, QuickHash>,
    /// In the order in which they came.
    order: VecDeque<u64>,
    /// A body counts for every question that has it.
    bytes: usize,
    /// Questions that found no room.
    turned_away: u32,
}

self_cell!(
    /// A body, and what was found in it.
    struct Parsed {
        owner: Box<[u8]>,
        #[covariant]
        dependent: ClientRequest,
    }
);

/// A body that is remembered, parsed.
struct Body {
    slot: u64,
    endpoint: Endpoint,
    parsed: Parsed,
}

/// A body, and how many questions have it.
struct SharedBody {
    body: Arc<Body>,
    questions: usize,
}

struct Remembered {
    identity: Box<[u8]>,
    body: Arc<Body>,
    key: Key,
    answer: Option<Answer>,
}

struct Answer {
    entry: Arc<Entry>,
    /// When it was read from the store.
    read_ms: u64,
    bytes: usize,
}

/// Where a body is remembered, or would be.
#[derive(Default)]
pub struct BodyLookup {
    /// Nowhere, if it is too long.
    slot: Option<u64>,
    body: Option<Arc<Body>>,
}

/// Where a question is remembered, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u64);

/// What is remembered of a question.
#[derive(Debug)]
pub struct Found {
    /// Its key.
    pub key: Key,
    /// Its answer, if that is still good.
    pub answer: Option<Arc<Entry>>,
}

impl Body {
    fn new(slot: u64, question: &Question, max_nesting: u32) -> Result<Self, InvalidRequest> {
        let dialect = ClientDialect::of(question.endpoint);
        let parsed = Parsed::try_new(question.body.into(), |body| dialect.parse(body, max_nesting))?;
        Ok(Self { slot, endpoint: question.endpoint, parsed })
    }

    fn bytes(&self) -> usize {
        self.parsed.borrow_owner().len() + self.parsed.borrow_dependent().bytes_found()
    }
}

impl BodyLookup {
    /// The body as it was parsed.
    pub fn request(&self) -> Option<&ClientRequest<'_>> {
        self.body.as_ref().map(|body| body.parsed.borrow_dependent())
    }
}

impl ResponseMemo {
    /// Of a cache that may take so many bytes.
    pub fn within(memory_bytes: u64) -> Self {
        Self {
            max_bytes: (memory_bytes / SHARE).min(MAX_BYTES) as usize,
            bodies: HashMap::default(),
            questions: HashMap::default(),
            order: VecDeque::new(),
            bytes: 0,
            turned_away: 0,
        }
    }

    /// Looks up a body that was sent to this endpoint.
    pub fn lookup_body(&self, endpoint: Endpoint, body: &[u8]) -> BodyLookup {
        if body.len() > MAX_BODY {
            return BodyLookup::default();
        }
        let slot = quick(body) ^ quick(&[endpoint as u8]);
        let known = self.bodies.get(&slot).map(|shared| &shared.body);
        let same = known.filter(|known| known.endpoint == endpoint && is_same(known.parsed.borrow_owner(), body));
        BodyLookup { slot: Some(slot), body: same.map(Arc::clone) }
    }

    /// The slot of the question with this body, unless it is too long; and what is remembered of it.
    pub fn lookup(&self, body: &BodyLookup, question: &Question, now_ms: u64) -> (Option<Slot>, Option<Found>) {
        let Some(slot) = body.slot else { return (None, None) };
        let identity = question.identity_bytes();
        let slot = Slot(quick(&identity) ^ slot);
        (Some(slot), body.body.as_ref().and_then(|body| self.find(slot, &identity, body, now_ms)))
    }

    fn find(&self, slot: Slot, identity: &[u8], body: &Arc<Body>, now_ms: u64) -> Option<Found> {
        let known = self.questions.get(&slot.0)?;
        if !is_same(&known.identity, identity) || !Arc::ptr_eq(&known.body, body) {
            return None;
        }
        let is_good = |answer: &&Answer| now_ms.checked_sub(answer.read_ms).is_some_and(|age| age < ANSWER_MS);
        let answer = known.answer.as_ref().filter(is_good).map(|answer| Arc::clone(&answer.entry));
        Some(Found { key: known.key, answer })
    }

    /// Remembers a question that hit, and evicts the oldest where there is no room. `max_nesting`: as it was parsed.
    pub fn insert(&mut self, lookup: &BodyLookup, slot: Slot, question: &Question, key: Key, max_nesting: u32) {
        let BodyLookup { slot: Some(body_slot), body } = lookup else { return };
        if self.bytes + question.body.len() + 3 * FRAME > self.max_bytes {
            self.turned_away = self.turned_away.wrapping_add(1);
            if !self.turned_away.is_multiple_of(TURNS) {
                return;
            }
        }
        let made = || Body::new(*body_slot, question, max_nesting).ok().map(Arc::new);
        let Some(body) = body.clone().or_else(made).filter(|body| body.bytes() <= MAX_BODY) else { return };
        self.share(&body);
        let known = Box::new(Remembered { identity: question.identity_bytes().into(), body, key, answer: None });
        self.bytes += known.bytes();
        match self.questions.insert(slot.0, known) {
            Some(before) => self.forget(&before),
            None => self.order.push_back(slot.0),
        }
        self.make_room();
    }

    /// Remembers the answer of a question, as it was read from the store now.
    pub fn insert_answer(&mut self, slot: Slot, entry: &Arc<Entry>, now_ms: u64) {
        let bytes = entry.bytes() + FRAME;
        if bytes > MAX_ANSWER {
            return;
        }
        let Some(known) = self.questions.get_mut(&slot.0).filter(|known| known.key == entry.key) else { return };
        let answer = Answer { entry: Arc::clone(entry), read_ms: now_ms, bytes };
        let before = known.answer.replace(answer).map_or(0, |answer| answer.bytes);
        self.bytes = self.bytes + bytes - before;
        self.make_room();
    }

    /// Evicts the answer of a question: the store has a newer one.
    pub fn evict_answer(&mut self, slot: Slot) {
        let before = self.questions.get_mut(&slot.0).and_then(|known| known.answer.take());
        self.bytes -= before.map_or(0, |answer| answer.bytes);
    }

    fn make_room(&mut self) {
        while self.bytes > self.max_bytes {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some(gone) = self.questions.remove(&oldest) {
                self.forget(&gone);
            }
        }
    }

    /// One more question has this body. Another body of the same hash gives way, and is gone with its questions.
    fn share(&mut self, body: &Arc<Body>) {
        let new = || SharedBody { body: Arc::clone(body), questions: 0 };
        let shared = self.bodies.entry(body.slot).or_insert_with(new);
        if !Arc::ptr_eq(&shared.body, body) {
            *shared = new();
        }
        shared.questions += 1;
    }

    /// A question is gone, and its body with it, if it was the last one to have it.
    fn forget(&mut self, gone: &Remembered) {
        self.bytes -= gone.bytes();
        let Some(shared) = self.bodies.get_mut(&gone.body.slot) else { return };
        if Arc::ptr_eq(&shared.body, &gone.body) {
            shared.questions -= 1;
            if shared.questions == 0 {
                self.bodies.remove(&gone.body.slot);
            }
        }
    }
}

impl Remembered {
    fn bytes(&self) -> usize {
        let answer = self.answer.as_ref().map_or(0, |answer| answer.bytes);
        self.identity.len() + FRAME + self.body.bytes() + FRAME + answer
    }
}

impl std::fmt::Debug for ResponseMemo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Prompts stand in no log.
        f.write_str("ResponseMemo")
    }
}

/// A hash of all bytes, by words of eight bytes on four lanes.
fn quick(bytes: &[u8]) -> u64 {
    // Odd numbers without a pattern: digits of pi.
    const TIMES: u64 = 0x243f_6a88_85a3_08d3;
    const START: [u64; 4] =
        [0x1319_8a2e_0370_7344, 0xa409_3822_299f_31d0, 0x082e_fa98_ec4e_6c89, 0x4528_21e6_38d0_1377];
    let mix = |lane: u64, word: u64| (lane ^ word).wrapping_mul(TIMES).rotate_left(29);
    let mut lanes = START;
    let mut block = |block: &[u8; 32]| {
        let (block, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(block) {
            *lane = mix(*lane, u64::from_le_bytes(*word));
        }
    };
    let (blocks, rest) = bytes.as_chunks::<32>();
    blocks.iter().for_each(&mut block);
    let mut last = [0; 32];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    block(&last);
    lanes.into_iter().fold(bytes.len() as u64, mix)
}

/// Whether two texts are the same, sixteen bytes at a time: Wasm's own comparison takes one.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let ((one, rest), (other, other_rest)) = (one.as_chunks::<16>(), other.as_chunks::<16>());
    let differ = |all: u8x16, (a, b): (&[u8; 16], &[u8; 16])| all | (u8x16::new(*a) ^ u8x16::new(*b));
    one.len() == other.len() && rest == other_rest && one.iter().zip(other).fold(u8x16::ZERO, differ) == u8x16::ZERO
}

#[cfg(test)]
mod tests;
