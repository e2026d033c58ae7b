//! Tests that only an identical question is found, that answers expire, and that the memo stays within its memory.

use super::*;
use crate::cache::fixture::{self, QUESTION};
use crate::cache::question::Sharing;
use crate::config::DataClass;
use crate::ids::{ModelId, TaskId, TenantId};
use crate::request::endpoint::Endpoint;
use std::collections::HashSet;

const NOW: u64 = 1_700_000_000_000;

fn entry(key: Key, len: usize) -> Arc<Entry> {
    Arc::new(fixture::entry(key, len, NOW, 1000))
}

fn look(memo: &ResponseMemo, question: &Question, now_ms: u64) -> (Option<Slot>, Option<Found>) {
    memo.lookup(&see(memo, question.body), question, now_ms)
}

fn see(memo: &ResponseMemo, body: &[u8]) -> BodyLookup {
    memo.lookup_body(Endpoint::Chat, body)
}

fn find(memo: &ResponseMemo, question: &Question, now_ms: u64) -> Option<Found> {
    look(memo, question, now_ms).1
}

fn remember(memo: &mut ResponseMemo, question: &Question, key: Key) -> Slot {
    let lookup = memo.lookup_body(question.endpoint, question.body);
    let slot = memo.lookup(&lookup, question, NOW).0.unwrap();
    memo.insert(&lookup, slot, question, key, 64);
    slot
}

fn body(text: &str) -> Vec<u8> {
    format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}]}}"#).into_bytes()
}

#[test]
fn a_question_is_found_by_all_that_it_is_made_of_and_by_nothing_less() {
    let text = "x".repeat(100);
    let [one, two, three, four] =
        [&*text, &format!("{}y", &text[..99]), &text[..99], &format!("y{}", &text[1..])].map(body);
    let question = Question { body: &one, ..QUESTION };
    let all = [
        question,
        Question { tenant: TenantId(2), ..question },
        Question { task: TaskId(2), ..question },
        Question { model: ModelId(2), ..question },
        Question { max_output: Some(0), ..question },
        Question { max_output: Some(5), ..question },
        Question { data: DataClass::Public, ..question },
        Question { sharing: Sharing::User(b"u"), ..question },
        Question { headers: b"anthropic-beta:x\n", ..question },
        Question { sharing: Sharing::User(b""), ..question },
        Question { sharing: Sharing::NamedUser(b"u"), ..question },
        Question { sharing: Sharing::Permissions(b"u"), ..question },
        Question { body: &two, ..QUESTION },
        Question { body: &three, ..QUESTION },
        Question { body: &four, ..QUESTION },
    ];
    let mut memo = ResponseMemo::within(1 << 20);
    let slots: HashSet<u64> = all.iter().map(|question| look(&memo, question, NOW).0.unwrap().0).collect();
    assert_eq!(slots.len(), all.len());
    for (n, question) in all.iter().enumerate() {
        assert!(find(&memo, question, NOW).is_none());
        remember(&mut memo, question, Key([n as u8; 32]));
    }
    for (n, question) in all.iter().enumerate() {
        assert_eq!(find(&memo, question, NOW).unwrap().key, Key([n as u8; 32]));
        let lookup = see(&memo, question.body);
        let request = lookup.request().unwrap();
        assert_eq!((request.facts().body, request.facts().members.len()), (question.body, 1));
    }
    assert_eq!((memo.bodies.len(), memo.questions.len()), (4, all.len()));
}

#[test]
fn one_body_on_two_endpoints_shares_nothing() {
    let mut memo = ResponseMemo::within(1 << 20);
    let body = body("one");
    let chat = Question { body: &body, ..QUESTION };
    let other = Question { endpoint: Endpoint::Models, ..chat };
    let slot = remember(&mut memo, &chat, Key([1; 32]));
    memo.insert_answer(slot, &entry(Key([1; 32]), 1), NOW);
    let lookup = memo.lookup_body(other.endpoint, &body);
    assert!(lookup.request().is_none(), "what the one found in the body is not what the other would");
    assert!(memo.lookup(&lookup, &other, NOW).1.is_none());
    // Nor by the first one's body, if both hashes were equal.
    assert!(memo.lookup(&see(&memo, &body), &other, NOW).1.is_none());
    assert_ne!(remember(&mut memo, &other, Key([2; 32])), slot);
    assert_eq!(find(&memo, &chat, NOW).unwrap().key, Key([1; 32]));
    assert_eq!(memo.bodies.len(), 2);
}

#[test]
fn one_hash_gives_nobody_what_is_anothers() {
    let mut memo = ResponseMemo::within(1 << 20);
    let [one, two] = ["one", "two"].map(body);
    let (question, other) =
        (Question { body: &one, ..QUESTION }, Question { tenant: TenantId(2), body: &one, ..QUESTION });
    let slot = remember(&mut memo, &question, Key([1; 32]));
    memo.insert_answer(slot, &entry(Key([1; 32]), 1), NOW);
    let find_at = |memo: &ResponseMemo, slot: Slot, question: &Question| {
        memo.find(slot, &question.identity_bytes(), see(memo, question.body).body.as_ref()?, NOW)
    };
    assert!(find_at(&memo, slot, &question).is_some_and(|found| found.answer.is_some()));
    assert!(find_at(&memo, slot, &other).is_none());
    // Nor does an answer of the first question go to the one that replaced it.
    memo.insert(&see(&memo, &one), slot, &other, Key([2; 32]), 64);
    memo.insert_answer(slot, &entry(Key([1; 32]), 1), NOW);
    assert!(find_at(&memo, slot, &question).is_none());
    assert!(find_at(&memo, slot, &other).is_some_and(|found| found.key == Key([2; 32]) && found.answer.is_none()));
    // Another body with the same hash: the old body and its questions are no longer found, and the counts stay right.
    let lookup = BodyLookup { slot: see(&memo, &one).slot, body: None };
    let third = Question { body: &two, ..QUESTION };
    memo.insert(&lookup, Slot(7), &third, Key([3; 32]), 64);
    assert!(see(&memo, &one).body.is_none() && see(&memo, &two).body.is_none());
    memo.insert(&see(&memo, &one), slot, &question, Key([4; 32]), 64);
    assert!(find_at(&memo, slot, &question).is_some_and(|found| found.key == Key([4; 32])));
    assert_eq!((memo.bodies.len(), memo.questions.len(), memo.order.len()), (1, 2, 2));
    assert_eq!(memo.bytes, memo.questions.values().map(|known| known.bytes()).sum::<usize>());
}

#[test]
fn an_answer_is_good_for_a_moment_and_until_a_newer_one_is_kept() {
    let mut memo = ResponseMemo::within(1 << 20);
    let body = body("");
    let question = Question { body: &body, ..QUESTION };
    let slot = remember(&mut memo, &question, Key([1; 32]));
    let has_answer = |memo: &ResponseMemo, now_ms: u64| find(memo, &question, now_ms).unwrap().answer.is_some();
    assert!(!has_answer(&memo, NOW));
    memo.insert_answer(slot, &entry(Key([1; 32]), 1), NOW);
    assert!(has_answer(&memo, NOW) && has_answer(&memo, NOW + ANSWER_MS - 1));
    assert!(!has_answer(&memo, NOW + ANSWER_MS) && !has_answer(&memo, NOW - 1), "a clock may be set back");
    memo.evict_answer(slot);
    assert!(!has_answer(&memo, NOW));
}

#[test]
fn more_than_there_is_room_for_do_not_drive_each_other_out() {
    let mut memo = ResponseMemo::within(1 << 20);
    let bodies: Vec<_> = (0..500).map(|n| body(&format!("{n:1000}"))).collect();
    let mut found = 0;
    for turn in 0..20 {
        for body in &bodies {
            let question = Question { body, ..QUESTION };
            match find(&memo, &question, NOW) {
                Some(_) => found += usize::from(turn > 10),
                None => drop(remember(&mut memo, &question, Key([1; 32]))),
            }
        }
    }
    let room = memo.questions.len();
    assert!(room < 100 && found > 9 * room / 3, "{found} in nine turns of {room}");
}

#[test]
fn it_takes_its_share_of_the_memory_at_most_and_evicts_the_oldest() {
    for memory in [1 << 20, 16 << 20, 1 << 34] {
        let mut memo = ResponseMemo::within(memory);
        assert!(memo.max_bytes as u64 <= MAX_BYTES.min(memory / SHARE));
        let body = |n: usize| body(&format!("{n}{}", "x".repeat(n * 7 % 3000)));
        for n in 0..3000 {
            // Several tenants send the same body.
            let (body, key) = (body(n / 3 * 3), Key([n as u8; 32]));
            let question = Question { tenant: TenantId(n as u32 % 5), body: &body, ..QUESTION };
            // The next insert replaces the oldest question.
            memo.turned_away = TURNS - 1;
            let slot = remember(&mut memo, &question, key);
            memo.turned_away = TURNS - 1;
            remember(&mut memo, &question, key);
            memo.insert_answer(slot, &entry(key, n * 11 % 5000), NOW);
            memo.insert_answer(slot, &entry(key, n * 13 % 5000), NOW);
            assert!(memo.bytes <= memo.max_bytes && memo.order.len() == memo.questions.len());
            if n % 500 == 499 {
                assert_eq!(memo.bytes, memo.questions.values().map(|known| known.bytes()).sum::<usize>());
                let questions: usize = memo.bodies.values().map(|shared| shared.questions).sum();
                assert_eq!(questions, memo.questions.len());
                let frames = (memo.questions.capacity() * size_of::<(u64, Box<Remembered>)>()
                    + memo.bodies.capacity() * size_of::<(u64, SharedBody)>())
                    * 8
                    / 7
                    + memo.order.capacity() * size_of::<u64>();
                assert!(frames <= memo.max_bytes / 8, "{frames}");
            }
        }
        let find = |n: usize| {
            find(&memo, &Question { tenant: TenantId(n as u32 % 5), body: &body(n / 3 * 3), ..QUESTION }, NOW)
        };
        assert!(find(2999).is_some() && find(0).is_none());
    }
    let mut memo = ResponseMemo::within(1 << 30);
    let longest = body(&"x".repeat(MAX_BODY));
    let (long, short) = (Question { body: &longest, ..QUESTION }, Question { body: &body(""), ..QUESTION });
    assert!(look(&memo, &long, NOW).0.is_none());
    // Few bytes, but a large parse result.
    let many = format!(
        "{{\"messages\":[{{\"role\":\"user\"}}]{}}}",
        (0..600).map(|n| format!(",\"m{n}\":0")).collect::<String>()
    );
    remember(&mut memo, &Question { body: many.as_bytes(), ..QUESTION }, Key([1; 32]));
    assert!(many.len() < MAX_BODY && see(&memo, many.as_bytes()).body.is_none());
    let slot = remember(&mut memo, &short, Key([1; 32]));
    memo.insert_answer(slot, &entry(Key([1; 32]), MAX_ANSWER), NOW);
    assert!(find(&memo, &short, NOW).unwrap().answer.is_none());
}
