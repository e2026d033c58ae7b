//! A question is found by all of it and nothing less, an answer for a moment, and all within the memory.

use super::*;
use crate::cache::eligibility::Sharing;
use crate::cache::fixture::{self, QUESTION};
use crate::config::DataClass;
use crate::ids::{ModelId, TaskId, TenantId};
use std::collections::HashSet;

const NOW: u64 = 1_700_000_000_000;

fn entry(key: Key, len: usize) -> Arc<Entry> {
    Arc::new(fixture::entry(key, len, NOW, 1000))
}

fn look(hot: &Hot, question: &Question, now_ms: u64) -> (Option<Place>, Option<Found>) {
    hot.look(&hot.see(question.body), question, now_ms)
}

fn find(hot: &Hot, question: &Question, now_ms: u64) -> Option<Found> {
    look(hot, question, now_ms).1
}

fn remember(hot: &Hot, question: &Question, key: Key) -> Place {
    let place = look(hot, question, NOW).0.unwrap();
    hot.remember(&hot.see(question.body), place, question, key, 64);
    place
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
        Question { most_output: Some(0), ..question },
        Question { most_output: Some(5), ..question },
        Question { data: DataClass::Public, ..question },
        Question { sharing: Sharing::User(b"u"), ..question },
        Question { sharing: Sharing::User(b""), ..question },
        Question { sharing: Sharing::NamedUser(b"u"), ..question },
        Question { sharing: Sharing::Permissions(b"u"), ..question },
        Question { body: &two, ..QUESTION },
        Question { body: &three, ..QUESTION },
        Question { body: &four, ..QUESTION },
    ];
    let hot = Hot::within(1 << 20);
    let places: HashSet<u64> = all.iter().map(|question| look(&hot, question, NOW).0.unwrap().0).collect();
    assert_eq!(places.len(), all.len());
    for (n, question) in all.iter().enumerate() {
        assert!(find(&hot, question, NOW).is_none());
        remember(&hot, question, Key([n as u8; 32]));
    }
    for (n, question) in all.iter().enumerate() {
        assert_eq!(find(&hot, question, NOW).unwrap().key, Key([n as u8; 32]));
        let seen = hot.see(question.body);
        let request = seen.request().unwrap();
        assert_eq!((request.body, request.members.len()), (question.body, 1));
    }
    let memo = hot.memo.lock().unwrap();
    assert_eq!((memo.bodies.len(), memo.questions.len()), (4, all.len()));
}

#[test]
fn one_hash_gives_nobody_what_is_anothers() {
    let hot = Hot::within(1 << 20);
    let [one, two] = ["one", "two"].map(body);
    let (question, other) =
        (Question { body: &one, ..QUESTION }, Question { tenant: TenantId(2), body: &one, ..QUESTION });
    let place = remember(&hot, &question, Key([1; 32]));
    hot.answer(place, &entry(Key([1; 32]), 1), NOW);
    let find_at = |place: Place, question: &Question| {
        hot.find(place, &question.words(), hot.see(question.body).body.as_ref()?, NOW)
    };
    assert!(find_at(place, &question).is_some_and(|found| found.answer.is_some()));
    assert!(find_at(place, &other).is_none());
    // Nor does the answer of the one become that of the other which has taken its place.
    hot.remember(&hot.see(&one), place, &other, Key([2; 32]), 64);
    hot.answer(place, &entry(Key([1; 32]), 1), NOW);
    assert!(find_at(place, &question).is_none());
    assert!(find_at(place, &other).is_some_and(|found| found.key == Key([2; 32]) && found.answer.is_none()));
    // A body of the same hash: the one before is seen no more, nor what was asked with it, and the count stays right.
    let seen = Seen { place: hot.see(&one).place, body: None };
    let third = Question { body: &two, ..QUESTION };
    hot.remember(&seen, Place(7), &third, Key([3; 32]), 64);
    assert!(hot.see(&one).body.is_none() && hot.see(&two).body.is_none());
    hot.remember(&hot.see(&one), place, &question, Key([4; 32]), 64);
    assert!(find_at(place, &question).is_some_and(|found| found.key == Key([4; 32])));
    let memo = hot.memo.lock().unwrap();
    assert_eq!((memo.bodies.len(), memo.questions.len(), memo.order.len()), (1, 2, 2));
    assert_eq!(memo.bytes, memo.questions.values().map(|known| known.bytes()).sum::<usize>());
}

#[test]
fn an_answer_is_good_for_a_moment_and_until_a_newer_one_is_kept() {
    let hot = Hot::within(1 << 20);
    let body = body("");
    let question = Question { body: &body, ..QUESTION };
    let place = remember(&hot, &question, Key([1; 32]));
    let has_answer = |now_ms: u64| find(&hot, &question, now_ms).unwrap().answer.is_some();
    assert!(!has_answer(NOW));
    hot.answer(place, &entry(Key([1; 32]), 1), NOW);
    assert!(has_answer(NOW) && has_answer(NOW + ANSWER_MS - 1));
    assert!(!has_answer(NOW + ANSWER_MS) && !has_answer(NOW - 1), "a clock may be set back");
    hot.renew(place);
    assert!(!has_answer(NOW));
}

#[test]
fn more_than_there_is_room_for_do_not_drive_each_other_out() {
    let hot = Hot::within(1 << 20);
    let bodies: Vec<_> = (0..500).map(|n| body(&format!("{n:1000}"))).collect();
    let mut found = 0;
    for turn in 0..20 {
        for body in &bodies {
            let question = Question { body, ..QUESTION };
            match find(&hot, &question, NOW) {
                Some(_) => found += usize::from(turn > 10),
                None => drop(remember(&hot, &question, Key([1; 32]))),
            }
        }
    }
    let room = hot.memo.lock().unwrap().questions.len();
    assert!(room < 100 && found > 9 * room / 3, "{found} in nine turns of {room}");
}

#[test]
fn it_takes_its_share_of_the_memory_at_the_most_and_forgets_the_oldest() {
    for memory in [1 << 20, 16 << 20, 1 << 34] {
        let hot = Hot::within(memory);
        assert!(hot.most_bytes as u64 <= MOST_BYTES.min(memory / SHARE));
        let body = |n: usize| body(&format!("{n}{}", "x".repeat(n * 7 % 3000)));
        for n in 0..3000 {
            // Some bodies come from several tenants.
            let (body, key) = (body(n / 3 * 3), Key([n as u8; 32]));
            let question = Question { tenant: TenantId(n as u32 % 5), body: &body, ..QUESTION };
            // Whoever asks is the one that takes the oldest's place.
            hot.memo.lock().unwrap().turned_away = TURNS - 1;
            let place = remember(&hot, &question, key);
            hot.memo.lock().unwrap().turned_away = TURNS - 1;
            remember(&hot, &question, key);
            hot.answer(place, &entry(key, n * 11 % 5000), NOW);
            hot.answer(place, &entry(key, n * 13 % 5000), NOW);
            let memo = hot.memo.lock().unwrap();
            assert!(memo.bytes <= hot.most_bytes && memo.order.len() == memo.questions.len());
            if n % 500 == 499 {
                assert_eq!(memo.bytes, memo.questions.values().map(|known| known.bytes()).sum::<usize>());
                let questions: usize = memo.bodies.values().map(|shelf| shelf.questions).sum();
                assert_eq!(questions, memo.questions.len());
                let frames = (memo.questions.capacity() * size_of::<(u64, Box<Remembered>)>()
                    + memo.bodies.capacity() * size_of::<(u64, Shelf)>())
                    * 8
                    / 7
                    + memo.order.capacity() * size_of::<u64>();
                assert!(frames <= hot.most_bytes / 8, "{frames}");
            }
        }
        let find = |n: usize| {
            find(&hot, &Question { tenant: TenantId(n as u32 % 5), body: &body(n / 3 * 3), ..QUESTION }, NOW)
        };
        assert!(find(2999).is_some() && find(0).is_none());
    }
    let hot = Hot::within(1 << 30);
    let longest = body(&"x".repeat(LONGEST_BODY));
    let (long, short) = (Question { body: &longest, ..QUESTION }, Question { body: &body(""), ..QUESTION });
    assert!(look(&hot, &long, NOW).0.is_none());
    // Of few bytes, but much that was found.
    let many = format!(
        "{{\"messages\":[{{\"role\":\"user\"}}]{}}}",
        (0..600).map(|n| format!(",\"m{n}\":0")).collect::<String>()
    );
    remember(&hot, &Question { body: many.as_bytes(), ..QUESTION }, Key([1; 32]));
    assert!(many.len() < LONGEST_BODY && hot.see(many.as_bytes()).body.is_none());
    let place = remember(&hot, &short, Key([1; 32]));
    hot.answer(place, &entry(Key([1; 32]), LONGEST_ANSWER), NOW);
    assert!(find(&hot, &short, NOW).unwrap().answer.is_none());
}
