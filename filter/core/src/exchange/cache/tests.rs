//! Identical concurrent requests, interleaved as workers interleave them.

use crate::cache::local::recording::RecordingBudget;
use crate::exchange::{Exchange, RequestStep, ResponseHead};
use crate::fixture;
use crate::memory::{Context, WorkerMemory};
use crate::policy::Policy;
use crate::policy::parse::from_value;
use crate::quota::rate::{Pace, Rate};
use crate::quota::store::Store;
use crate::quota::users::UserTable;
use crate::request::head::RequestHead;
use crate::routing::plan::Load;
use crate::store::shared_data::{NEW, SharedData};
use crate::tokens::Correction;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;

/// What all workers share, and the time.
#[derive(Default)]
struct World {
    now_ms: u64,
    records: HashMap<String, (Vec<u8>, u32)>,
    /// Whether the table rejects every insert.
    is_full: bool,
    /// This many slots of the table are still read in their empty state.
    late: u32,
}

impl SharedData for World {
    fn get(&mut self, name: &str) -> (Vec<u8>, u32) {
        if name.starts_with("pointsman.cache.") && self.late > 0 {
            self.late -= 1;
            return (Vec::new(), NEW);
        }
        self.records.get(name).cloned().unwrap_or((Vec::new(), NEW))
    }
    fn set(&mut self, name: &str, record: &[u8], version: u32) -> bool {
        let now = self.records.get(name).map_or(NEW, |(_, version)| *version);
        let is_taken = now == version && !(self.is_full && name.starts_with("pointsman.cache."));
        if is_taken {
            self.records.insert(name.to_owned(), (record.to_vec(), now.wrapping_add(2)));
        }
        is_taken
    }
}

impl Load for World {
    fn acquire(
        &mut self,
        _: &str,
        _: crate::routing::in_flight::Places,
    ) -> Result<(), crate::routing::in_flight::Full> {
        Ok(())
    }
    fn check(&mut self, _: &str, _: crate::routing::in_flight::Places) -> Result<(), crate::routing::in_flight::Full> {
        Ok(())
    }
}

impl Store for World {
    fn update(&mut self, _: &str, _: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>) -> bool {
        false
    }
    fn read(&mut self, _: &str) -> Vec<u8> {
        Vec::new()
    }
    fn users(&mut self) -> std::rc::Rc<UserTable> {
        std::rc::Rc::default()
    }
    fn now_ms(&mut self) -> u64 {
        self.now_ms
    }
    fn correction(&mut self, _: &str) -> Correction {
        Correction::default()
    }
    fn learn(&mut self, _: &str, _: u64, _: u64) {}
    fn rate(&mut self, _: &str) -> Rate {
        Rate::default()
    }
    fn learn_rate(&mut self, _: &str, _: &Pace) {}
    fn unique(&mut self) -> u128 {
        1
    }
}

fn world() -> World {
    World { now_ms: 1_700_000_000_000, ..World::default() }
}

/// A policy, and what one worker remembers under it.
struct Serving {
    policy: Policy,
    memory: RefCell<WorkerMemory>,
}

impl Serving {
    fn new(policy: Policy) -> Self {
        Self { memory: RefCell::new(WorkerMemory::new(&policy)), policy }
    }

    fn serve<T>(&self, act: impl FnOnce(&mut Context) -> T) -> T {
        act(&mut self.memory.borrow_mut().under(&self.policy))
    }
}

impl Deref for Serving {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.policy
    }
}

fn policy(cache: Value) -> Serving {
    let mut document = fixture::document();
    document["cache"] = cache;
    document["tasks"]["code"]["cache"] = json!({"ttl": "1h"});
    Serving::new(from_value(&document).unwrap().1)
}

const BODY: &[u8] = br#"{"model":"code","temperature":0,"messages":[{"role":"user","content":"x"}]}"#;
const ANSWER: &[u8] =
    br#"{"choices":[{"index":0,"message":{"role":"assistant","content":"y"},"finish_reason":"stop"}]}"#;

/// One more caller, and what its request led to.
fn ask(policy: &Serving, world: &mut World, control: &str) -> (Exchange, &'static str) {
    ask_with(policy, world, ("cache-control", control), 0)
}

/// The same with another header, and a body that took this many milliseconds to arrive.
fn ask_with(policy: &Serving, world: &mut World, header: (&str, &str), took_ms: u64) -> (Exchange, &'static str) {
    let mut exchange = Exchange::new(world.now_ms);
    world.now_ms += took_ms;
    let headers = [(":method", "POST"), (":path", "/v1/chat/completions"), ("authorization", "Bearer sk-acme"), header];
    let head = RequestHead::read(policy, headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    assert!(matches!(
        policy.serve(|context| exchange.on_request_headers(context, &head, world)),
        RequestStep::AwaitBody
    ));
    let led_to = go_on(policy, world, &mut exchange);
    (exchange, led_to)
}

/// What the request leads to now.
fn go_on(policy: &Serving, world: &mut World, exchange: &mut Exchange) -> &'static str {
    match policy.serve(|context| exchange.on_request(context, BODY, world)) {
        RequestStep::Send(_) => "asks",
        RequestStep::Park => "waits",
        RequestStep::Reply(reply) if reply.headers.contains(&("x-pointsman-cache", "hit".into())) => "hit",
        other => panic!("{other:?}"),
    }
}

/// The model, or its stand-in, answers.
fn answered(policy: &Serving, world: &mut World, exchange: &mut Exchange, status: u16, body: &[u8]) {
    world.now_ms += 5;
    let head = ResponseHead {
        status,
        content_type: b"application/json",
        model: b"big",
        attempts: b"1",
        content_length: Some(body.len() as u64),
        ..ResponseHead::default()
    };
    policy.serve(|context| exchange.response_head(context, &head));
    exchange.on_full_body(policy, body);
    let now_ms = world.now_ms;
    policy.serve(|context| exchange.keep(context, world, now_ms));
}

fn reason(policy: &Serving, exchange: &Exchange) -> Value {
    let record: Value = serde_json::from_slice(&exchange.audit(policy, &[], 0)).unwrap();
    record["cache_reason"].clone()
}

/// What the waiting requests do after their leader ended like this.
fn after(status: u16, body: &[u8], world: &mut World) -> [&'static str; 3] {
    let policy = policy(json!({}));
    let (mut leader, led) = ask(&policy, world, "");
    assert_eq!(led, "asks");
    let mut waiting: Vec<Exchange> = (0..3)
        .map(|_| {
            let (exchange, led_to) = ask(&policy, world, "");
            assert_eq!(led_to, "waits");
            exchange
        })
        .collect();
    answered(&policy, world, &mut leader, status, body);
    let now_ms = world.now_ms;
    assert!(waiting.iter().all(|exchange| exchange.is_awake(&policy, world, now_ms)));
    std::array::from_fn(|i| go_on(&policy, world, &mut waiting[i]))
}

#[test]
fn those_who_wait_share_an_answer_ask_one_after_the_other_or_all_at_once() {
    assert_eq!(after(200, ANSWER, &mut world()), ["hit"; 3]);
    // Another attempt may help.
    for status in [500, 503, 429] {
        assert_eq!(after(status, b"{}", &mut world()), ["asks", "waits", "waits"], "{status}");
    }
    // No attempt helps: all waiting requests ask the provider at once, not one after the other. The same goes for an
    // answer that is not stored.
    for status in [400, 404, 422, 401] {
        assert_eq!(after(status, b"{}", &mut world()), ["asks"; 3], "{status}");
    }
    assert_eq!(after(200, &ANSWER.to_ascii_uppercase(), &mut world()), ["asks", "waits", "waits"], "no completion");
    let filtered = String::from_utf8_lossy(ANSWER).replace("stop", "content_filter");
    assert_eq!(after(200, filtered.as_bytes(), &mut world()), ["asks"; 3]);
    assert_eq!(after(200, ANSWER, &mut World { is_full: true, ..world() }), ["asks"; 3], "there is no room");
    // An entry stores no status.
    assert_eq!(after(203, ANSWER, &mut world()), ["asks"; 3]);
}

#[test]
fn an_answer_that_came_between_the_look_and_the_lead_is_taken() {
    let (policy, mut world) = (policy(json!({})), world());
    let (mut leader, _) = ask(&policy, &mut world, "");
    answered(&policy, &mut world, &mut leader, 200, ANSWER);
    // This one looks before the insert, and would take the lead after it.
    world.late = 4;
    let (exchange, led_to) = ask(&policy, &mut world, "");
    assert_eq!((led_to, world.late), ("hit", 0));
    assert!(!exchange.is_in_flight());
    // No request waits for one that no longer leads.
    world.late = 4;
    assert_eq!(ask(&policy, &mut world, "").1, "hit");
}

#[test]
fn a_worker_takes_the_key_that_another_one_has_made() {
    let mut world = world();
    let worker = |world: &mut World| {
        let policy = policy(json!({}));
        policy.serve(|context| context.memory.cache.keys.agree(world, policy.revision));
        policy
    };
    let [one, two, three, four] = std::array::from_fn(|_| worker(&mut world));
    let (mut leader, _) = ask(&one, &mut world, "");
    let marks = |world: &World| world.records.keys().filter(|name| name.starts_with("pointsman.known.")).count();
    assert_eq!(marks(&world), 0, "there is no answer yet");
    answered(&one, &mut world, &mut leader, 200, ANSWER);
    assert_eq!(marks(&world), 1);
    assert_eq!(ask(&two, &mut world, "").1, "hit");
    // A worker that does not know the secret still finds the answer, by computing the key itself.
    assert_eq!(ask(&policy(json!({})), &mut world, "").1, "hit");
    // Corrupting the bucket shows that the others compute no key: it leads to no answer, and not to another question's.
    for (name, (bucket, _)) in &mut world.records {
        if name.starts_with("pointsman.known.") {
            bucket[17..49].fill(0);
        }
    }
    let (mut wrong, led_to) = ask(&three, &mut world, "");
    assert_eq!(led_to, "asks");
    wrong.leave(&mut world, 0);
    assert_eq!(ask(&two, &mut world, "").1, "hit", "this worker remembers");
    world.records.retain(|name, _| !name.starts_with("pointsman.known."));
    assert_eq!(ask(&four, &mut world, "").1, "hit");
    assert_eq!(marks(&world), 1, "the one that made the key of an answer leaves it to the others");
}

#[test]
fn who_asks_again_is_answered_without_the_store_for_a_moment() {
    let (policy, mut world) = (policy(json!({})), world());
    let other_worker = self::policy(json!({}));
    let says = |policy: &Serving, world: &mut World| {
        let mut exchange = Exchange::new(world.now_ms);
        let headers = [(":method", "POST"), (":path", "/v1/chat/completions"), ("authorization", "Bearer sk-acme")];
        let head = RequestHead::read(policy, headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        policy.serve(|context| exchange.on_request_headers(context, &head, world));
        match policy.serve(|context| exchange.on_request(context, BODY, world)) {
            RequestStep::Reply(reply) => String::from_utf8(reply.body).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let (mut first, _) = ask(&policy, &mut world, "");
    answered(&policy, &mut world, &mut first, 200, ANSWER);
    // The first hit makes it known; the second remembers it with its answer.
    for _ in 0..2 {
        assert_eq!(ask(&policy, &mut world, "").1, "hit");
    }
    let records = std::mem::take(&mut world.records);
    world.now_ms += 1900;
    assert_eq!(ask(&policy, &mut world, "").1, "hit");
    assert_eq!(ask(&policy, &mut world, "no-cache").1, "asks");
    assert_eq!(ask(&policy, &mut world, "no-store").1, "asks");
    assert_eq!(ask(&policy, &mut world, "max-age=0").1, "asks", "the store has no newer one");
    world.records.clear();
    world.now_ms += 100;
    assert_eq!(ask(&policy, &mut world, "").1, "asks", "it is no longer good");
    world.records = records;
    assert_eq!(ask(&policy, &mut world, "").1, "hit");

    // This worker serves a newer entry at once, since it stored it; other workers do so within that moment.
    ask(&other_worker, &mut world, "");
    ask(&other_worker, &mut world, "");
    let (mut newer, _) = ask(&policy, &mut world, "no-cache");
    let answer = String::from_utf8_lossy(ANSWER).replace("\"y\"", "\"newer\"");
    answered(&policy, &mut world, &mut newer, 200, answer.as_bytes());
    assert!(says(&policy, &mut world).contains("newer"));
    assert!(!says(&other_worker, &mut world).contains("newer"));
    world.now_ms += 2000;
    assert!(says(&other_worker, &mut world).contains("newer"));

    // Another policy does not see what this one remembers.
    let mut document = fixture::document();
    document["tasks"]["code"]["cache"] = json!({"ttl": "1h"});
    document["cache"] = json!({"revision": 7});
    let purged = Serving::new(from_value(&document).unwrap().1);
    assert_eq!(ask(&purged, &mut world, "").1, "asks");
}

#[test]
fn callers_who_want_nothing_old_share_what_was_made_since_they_asked() {
    let (policy, mut world) = (policy(json!({})), world());
    let (mut first, _) = ask(&policy, &mut world, "");
    answered(&policy, &mut world, &mut first, 200, ANSWER);
    world.now_ms += 1000;
    let (mut leader, led_to) = ask(&policy, &mut world, "max-age=0");
    assert_eq!(led_to, "asks");
    assert_eq!(reason(&policy, &leader), "too_old");
    let mut waiting: Vec<Exchange> = (0..5).map(|_| ask(&policy, &mut world, "max-age=0").0).collect();
    assert_eq!(ask(&policy, &mut world, "").1, "hit", "who takes the old one need not wait");
    answered(&policy, &mut world, &mut leader, 200, ANSWER);
    world.now_ms += 700;
    for exchange in &mut waiting {
        assert_eq!(go_on(&policy, &mut world, exchange), "hit");
    }
    assert_eq!(ask(&policy, &mut world, "max-age=0").1, "asks", "for this one it is old");
}

#[test]
fn without_a_wait_every_miss_is_a_plain_one() {
    let (policy, mut world) = (policy(json!({"wait": "0s"})), world());
    for _ in 0..2 {
        let (exchange, led_to) = ask(&policy, &mut world, "");
        assert_eq!((led_to, reason(&policy, &exchange)), ("asks", json!("absent")));
        assert!(!exchange.is_in_flight());
    }
    assert!(world.records.is_empty(), "no flight is written down: {:?}", world.records.keys());
}

#[test]
fn who_waits_no_longer_leaves_its_place_to_another() {
    let (policy, mut world) = (policy(json!({"wait": "1s", "max_waiting": 1})), world());
    let (mut leader, _) = ask(&policy, &mut world, "");
    let (mut leaves, led_to) = ask(&policy, &mut world, "");
    assert_eq!((led_to, ask(&policy, &mut world, "").1), ("waits", "asks"));
    assert!(leaves.is_in_flight());
    let now_ms = world.now_ms;
    leaves.leave(&mut world, now_ms);
    let (mut impatient, led_to) = ask(&policy, &mut world, "");
    assert_eq!((led_to, ask(&policy, &mut world, "").1), ("waits", "asks"));
    world.now_ms += 1000;
    assert_eq!(go_on(&policy, &mut world, &mut impatient), "asks");
    assert_eq!(reason(&policy, &impatient), "waited_in_vain");
    // Nothing waits for its answer any more, but it is still stored.
    answered(&policy, &mut world, &mut leader, 200, ANSWER);
    assert_eq!(ask(&policy, &mut world, "").1, "hit");
}

#[test]
fn a_wait_is_part_of_the_time_that_a_request_has() {
    let mut document = fixture::document();
    document["tasks"]["code"]["cache"] = json!({"ttl": "1h"});
    let patient = Serving::new(from_value(&document).unwrap().1);
    document["tasks"]["code"]["resilience"] = json!({"request_timeout": "8s"});
    let hasty = Serving::new(from_value(&document).unwrap().1);
    let deadline = ("x-pointsman-deadline-ms", "10000");
    // Of the deadline, nine seconds passed before the wait began; of the task's timeout, only the wait counts.
    for (policy, header, took_ms, waits_ms) in
        [(&patient, deadline, 9000, 1000), (&hasty, ("accept", "*/*"), 0, 8000), (&hasty, deadline, 5000, 3000)]
    {
        let mut world = world();
        assert_eq!(ask(policy, &mut world, "").1, "asks");
        let (mut waiting, led_to) = ask_with(policy, &mut world, header, took_ms);
        assert_eq!(led_to, "waits");
        let began_ms = world.now_ms;
        assert!(!waiting.is_awake(policy, &mut world, began_ms + waits_ms - 1), "{waits_ms}");
        assert!(waiting.is_awake(policy, &mut world, began_ms + waits_ms), "{waits_ms}");
        world.now_ms = began_ms + waits_ms;
        let next = policy.serve(|context| waiting.on_request(context, BODY, &mut world));
        assert!(matches!(&next, RequestStep::Reply(reply) if reply.status == 504), "{next:?}");
        let now_ms = world.now_ms;
        waiting.leave(&mut world, now_ms);
    }
    // The model gets the time that is left.
    let mut world = world();
    let (mut leader, _) = ask(&hasty, &mut world, "");
    let (mut waiting, _) = ask(&hasty, &mut world, "");
    world.now_ms += 2995;
    answered(&hasty, &mut world, &mut leader, 500, b"no");
    match hasty.serve(|context| waiting.on_request(context, BODY, &mut world)) {
        RequestStep::Send(outgoing) => {
            // Counted from the start of the exchange, of which the wait is a part.
            let deadline = outgoing.headers.iter().find(|(name, _)| *name == "grpc-timeout");
            assert_eq!(deadline.map(|(_, ms)| &**ms), Some("8000m"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_for_whose_record_there_is_no_room_passes_and_is_not_kept() {
    const STREAM: &[u8] =
        br#"{"model":"code","temperature":0,"stream":true,"messages":[{"role":"user","content":"x"}]}"#;
    let event =
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":"yyyyyyyyyy"},"finish_reason":"stop"}]}"#;
    for (most, was, next) in [(1000, "absent", "hit"), (20, "recordings_full", "asks")] {
        let (policy, mut world) = (policy(json!({})), world());
        policy.memory.borrow_mut().cache.recordings = RecordingBudget::new(most);
        let mut exchange = Exchange::new(world.now_ms);
        let headers = [(":method", "POST"), (":path", "/v1/chat/completions"), ("authorization", "Bearer sk-acme")];
        let head = RequestHead::read(&policy, headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        policy.serve(|context| exchange.on_request_headers(context, &head, &mut world));
        assert!(matches!(
            policy.serve(|context| exchange.on_request(context, STREAM, &mut world)),
            RequestStep::Send(_)
        ));
        let head = ResponseHead {
            status: 200,
            content_type: b"text/event-stream",
            model: b"big",
            attempts: b"1",
            ..ResponseHead::default()
        };
        policy.serve(|context| exchange.response_head(context, &head));
        let passed = exchange.stream_chunk(format!("data: {event}\n\ndata: [DONE]\n\n").as_bytes(), true, || 0);
        assert!(passed.is_none_or(|passed| String::from_utf8(passed).unwrap().contains("yyyyyyyyyy")));
        policy.serve(|context| exchange.keep(context, &mut world, 1_700_000_000_000));
        assert_eq!(reason(&policy, &exchange), was);
        assert_eq!(ask(&policy, &mut world, "").1, next);
        // The memory it used is free again.
        assert!(policy.memory.borrow().cache.recordings.guard().set(most));
    }
}
