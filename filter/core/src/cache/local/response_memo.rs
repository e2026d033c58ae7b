//! The questions that recently hit on this worker, with their bodies and, for a moment, their answers.
//!
//! A remembered question is neither parsed nor hashed with SHA-256 or SipHash again, and a remembered answer is not
//! read from the store. Bodies are compared byte by byte, and so is every other input of the key. The hashes are fast
//! and not secret, and only say where to look. So no request can get the answer of another one: two questions with the
//! same hash only evict each other. All callers share a parsed body, because parsing depends only on the endpoint. Each
//! policy has its own memo, so a new policy, and any revision that it raises, starts with an empty one.
//!
//! An answer is used for [`ANSWER_MS`] after it was read from the store of this Envoy. Within that time another worker
//! may store a newer one, for a caller that wanted no cached answer. This worker then returns the older answer. When
//! this worker stores an answer itself, it evicts the remembered one, so the next request reads the store.

use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::question::Question;
use crate::dialect::client::{ClientDialect, ClientRequest};
use crate::request::endpoint::Endpoint;
use crate::request::facts::{COMMON_MEMBERS, InvalidRequest, Member};
use crate::store::quick_hash::QuickHash;
use self_cell::self_cell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use wide::u8x16;

/// How long an answer is used without another read, in milliseconds.
const ANSWER_MS: u64 = 2000;
/// Maximum bytes of a remembered body, including its parse result, and of a remembered answer.
const MAX_BODY: usize = 16 << 10;
const MAX_ANSWER: usize = 64 << 10;
/// Maximum bytes of the memo. It also gets no more than one part in `SHARE` of the cache's memory.
const MAX_BYTES: u64 = 8 << 20;
const SHARE: u64 = 8;
/// Maximum overhead of a question in bytes, besides its identity and its body. A body and an answer have the same.
const FRAME: usize = 256;
/// What the parse result of a common request takes besides, in bytes.
const PARSED: usize = size_of::<ClientRequest<'_>>() + COMMON_MEMBERS * size_of::<Member<'_>>();
/// A full memo accepts one new question in `TURNS`, in place of the oldest. If it accepted all, a repeating sequence of
/// more questions than fit would evict each one before it came again.
const TURNS: u32 = 64;

/// The memo of one worker under one policy.
pub struct ResponseMemo {
    max_bytes: usize,
    bodies: HashMap<u64, SharedBody, QuickHash>,
    /// Boxed, because a map keeps its capacity after entries are removed.
    questions: HashMap<u64, Box<Remembered>, QuickHash>,
    /// Slots in order of insertion.
    order: VecDeque<u64>,
    /// Bytes of all questions. A shared body counts once for each question that has it.
    bytes: usize,
    /// How many new questions found the memo full.
    turned_away: u32,
}

self_cell!(
    /// A body and its parse result.
    struct Parsed {
        owner: Box<[u8]>,
        #[covariant]
        dependent: ClientRequest,
    }
);

/// A remembered body, parsed.
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

/// The result of looking up a body.
#[derive(Default)]
pub struct BodyLookup {
    /// The body's slot; `None` if the body is too long.
    slot: Option<u64>,
    body: Option<Arc<Body>>,
}

/// The slot where a question is remembered, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u64);

/// What is remembered of a question.
#[derive(Debug)]
pub struct Found {
    /// Its key.
    pub key: Key,
    /// Its answer, if that is still fresh.
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
    /// Returns the parsed body, if it is remembered.
    pub fn request(&self) -> Option<&ClientRequest<'_>> {
        self.body.as_ref().map(|body| body.parsed.borrow_dependent())
    }
}

impl ResponseMemo {
    /// Creates a memo for a cache that is limited to `memory_bytes`.
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

    /// Returns the slot of the question with this body, unless the body is too long, and what is remembered of the
    /// question.
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

    /// Remembers a question that hit, and evicts the oldest ones if there is no room. A full memo accepts one question
    /// in `TURNS`. `max_nesting` is the limit that the body was parsed with.
    pub fn insert(&mut self, lookup: &BodyLookup, slot: Slot, question: &Question, key: Key, max_nesting: u32) {
        let BodyLookup { slot: Some(body_slot), body } = lookup else { return };
        if self.bytes + question.body.len() + PARSED + 3 * FRAME > self.max_bytes {
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

    /// Remembers the answer of a question, which was read from the store at `now_ms`.
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

    /// Evicts the answer of a question, because the store has a newer one.
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

    /// Counts one more question with this body. Replaces another body of the same hash, whose questions no longer
    /// match.
    fn share(&mut self, body: &Arc<Body>) {
        let new = || SharedBody { body: Arc::clone(body), questions: 0 };
        let shared = self.bodies.entry(body.slot).or_insert_with(new);
        if !Arc::ptr_eq(&shared.body, body) {
            *shared = new();
        }
        shared.questions += 1;
    }

    /// Subtracts a removed question, and removes its body if no other question has it.
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
        // Prompts must not appear in logs.
        f.write_str("ResponseMemo")
    }
}

/// Hashes all bytes as words of eight bytes on four lanes.
fn quick(bytes: &[u8]) -> u64 {
    // Numbers without a pattern: digits of pi. The factor is odd.
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

/// Compares two texts sixteen bytes at a time. Wasm's own comparison takes one byte at a time.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let ((one, rest), (other, other_rest)) = (one.as_chunks::<16>(), other.as_chunks::<16>());
    let differ = |all: u8x16, (a, b): (&[u8; 16], &[u8; 16])| all | (u8x16::new(*a) ^ u8x16::new(*b));
    one.len() == other.len() && rest == other_rest && one.iter().zip(other).fold(u8x16::ZERO, differ) == u8x16::ZERO
}

#[cfg(test)]
mod tests;
