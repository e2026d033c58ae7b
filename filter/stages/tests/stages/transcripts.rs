//! Every answer of the corpus through both stages: however its bytes are cut, its caller, its record and the cache have
//! the same, and it is what its file expects.

use crate::envoy::Envoy;
use crate::fake_host::Headers;
use crate::policy;
use crate::request::{Event, Request};
use pointsman_transcripts::answer::{self, Answer};
use pointsman_transcripts::pending::PENDING;
use pointsman_transcripts::{Outcome, Transcript, Usage};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Longest body of which every split is tried; of a longer one, or with a long prompt, a sample is.
const EVERY_SPLIT: usize = 4096;
/// How many splits a sample has.
const SAMPLE: usize = 64;
/// Longest body that is tried byte by byte.
const LONG: usize = 1 << 16;
/// How much Envoy reads from a connection at once.
const READ: usize = 16 << 10;
/// One in so many splits is followed by a look into the cache.
const LOOK_EVERY: usize = 16;

/// How a body's bytes come.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Whole,
    /// In two pieces, of which the first has so many bytes.
    At(usize),
    /// In pieces of so many bytes; the end comes by itself.
    Pieces(usize),
}

/// Everything that is known of an exchange once it is over.
#[derive(Debug)]
struct Seen {
    headers: Headers,
    body: String,
    is_whole: bool,
    is_reset: bool,
    /// The models that were asked.
    asked: usize,
    audit: Value,
    /// What the cache gives a second caller, not streamed and streamed; `None` if it was not asked.
    kept: Option<Option<[Answer; 2]>>,
}

/// The policy of these tests: a plan of two models that answer alike, and a cache for every request.
fn policy() -> Value {
    let mut document = policy::with_cache("local");
    for model in ["small", "big"] {
        let model = document["models"][model].as_object_mut().unwrap();
        model.remove("max_concurrent");
    }
    document
}

fn body(transcript: &Transcript, members: &Map<String, Value>, prompt: &str) -> Value {
    let mut request = json!({"messages": [{"role": "user", "content": prompt}]});
    let filler = transcript.prompt_bytes.saturating_sub(prompt.len());
    if filler > 0 {
        request["messages"][0]["content"] = format!("{prompt} {}", "word ".repeat(filler / 5)).into();
    }
    request.as_object_mut().unwrap().extend(members.clone());
    request
}

fn events(transcript: &Transcript, cut: Cut) -> Vec<Event> {
    let response = &transcript.response;
    let status = response.status.to_string();
    let mut lines = vec![(":status", &*status)];
    lines.extend(response.content_type.as_deref().map(|value| ("content-type", value)));
    lines.extend(response.headers.iter().map(|(name, value)| (&**name, &**value)));
    let bytes = response.body.as_bytes();
    let piece = |bytes: &[u8], end| Event::Body(bytes.to_vec(), end);
    let body: Vec<Event> = match cut {
        Cut::Whole => vec![piece(bytes, true)],
        Cut::At(at) => vec![piece(&bytes[..at], false), piece(&bytes[at..], true)],
        Cut::Pieces(size) => {
            let pieces = bytes.chunks(size).map(|bytes| piece(bytes, false));
            pieces.chain([piece(&[], true)]).collect()
        }
    };
    [Event::Headers(Headers::of(&lines), false)].into_iter().chain(body).collect()
}

/// Whether Envoy's router makes another attempt after this status, by the headers that the request came with.
fn is_retried(request: &Request, status: u16) -> bool {
    let sent = request.sent.as_ref().unwrap();
    let listed = sent.header("x-envoy-retriable-status-codes").unwrap_or_default();
    let on = sent.header("x-envoy-retry-on").unwrap_or_default();
    listed.split(',').any(|one| one.parse() == Ok(status))
        || on.split(',').any(|one| one == "5xx") && (500..600).contains(&status)
}

/// The answer comes, cut like this, from each model that is asked; `number` makes the question one of its own.
fn replay(envoy: &mut Envoy, transcript: &Transcript, cut: Cut, number: usize) -> Seen {
    let prompt = format!("{number:08}");
    let mut request = envoy.chat("sk-other", &body(transcript, &transcript.request, &prompt));
    assert!(request.sent.is_some(), "{}", request.client.text());
    let providers = ["vllm", "openai"];
    let mut asked = 0;
    for provider in providers {
        asked += 1;
        let mut attempt = request.attempt(envoy, provider);
        let mut fails = false;
        for event in events(transcript, cut) {
            attempt.respond([event]);
            let is_asked_for = attempt.header("x-pointsman-next").is_some();
            let retries = |status| is_asked_for || is_retried(&request, status);
            fails = asked < providers.len() && attempt.status().is_some_and(retries);
            if fails {
                break;
            }
            request.relay(&mut attempt);
        }
        attempt.end();
        if !fails {
            break;
        }
    }
    let client = &request.client;
    let (headers, body) = (client.headers.clone().unwrap_or_default(), client.text());
    let (is_whole, is_reset) = (client.is_whole, client.is_reset);
    let audit = request.end();
    let looks = !matches!(cut, Cut::At(_)) || number.is_multiple_of(LOOK_EVERY);
    let kept = looks.then(|| kept(envoy, transcript, &prompt));
    Seen { headers, body, is_whole, is_reset, asked, audit, kept }
}

/// What the cache gives to the next who ask the same, if it has it.
fn kept(envoy: &mut Envoy, transcript: &Transcript, prompt: &str) -> Option<[Answer; 2]> {
    let mut look = |stream: bool| {
        let mut members = transcript.request.clone();
        members.remove("stream_options");
        members.insert("stream".to_owned(), stream.into());
        let request = envoy.chat("sk-other", &body(transcript, &members, prompt));
        if request.client.headers.is_none() {
            request.end_without_answer();
            return None;
        }
        assert_eq!(request.client.header("x-pointsman-cache"), Some("hit"), "{}", request.client.text());
        let kept = answer::read(&request.client.text(), stream);
        request.end();
        Some(kept)
    };
    let [whole, stream] = [false, true].map(&mut look);
    assert_eq!(whole.is_some(), stream.is_some(), "one entry serves both kinds of callers");
    Some([whole?, stream?])
}

/// Compares two runs of the same bytes.
#[track_caller]
fn same(first: &Seen, other: &Seen, cut: Cut) {
    assert_eq!(other.body, first.body, "{cut:?}: the caller's bytes");
    assert_eq!(other.audit, first.audit, "{cut:?}: the record");
    assert_eq!(other.headers, first.headers, "{cut:?}: the caller's headers");
    if other.kept.is_some() {
        assert_eq!(other.kept, first.kept, "{cut:?}: what is kept");
    }
    assert_eq!((other.is_whole, other.is_reset, other.asked), (first.is_whole, first.is_reset, first.asked), "{cut:?}");
}

/// Checks a run against what its file expects.
fn check(transcript: &Transcript, seen: &Seen) {
    let expect = &transcript.expect;
    let audit = &seen.audit;
    let code = expect.code.as_deref();
    assert_eq!(audit["error_code"].as_str(), code, "error_code: {audit}");
    assert!(seen.is_whole && !seen.is_reset, "the response has its end: {seen:?}");
    let status: u16 = seen.headers.one(":status").unwrap().parse().unwrap();
    assert_eq!(status, expect.status.unwrap_or(200), "status: {}", seen.body);
    for shown in &expect.shows {
        assert!(seen.body.contains(shown), "does not show {shown}: {}", seen.body);
    }
    for hidden in &expect.hides {
        assert!(!seen.body.contains(hidden), "does not hide {hidden}: {}", seen.body);
    }
    let is_next_asked = expect.next.unwrap_or(false);
    assert_eq!(seen.asked, 1 + usize::from(is_next_asked), "models asked: {audit}");
    if expect.outcome == Outcome::Failed {
        let error: Value = serde_json::from_str(&seen.body).unwrap();
        assert_eq!(error["error"]["code"].as_str(), code, "{error}");
        let message = error["error"]["message"].as_str().unwrap_or_default();
        for said in &expect.says {
            assert!(message.contains(said), "does not say {said}: {message}");
        }
        let reasons = audit["failed_attempts"].as_array().unwrap();
        if let Some(attempt) = &expect.attempt {
            assert!(reasons.iter().all(|failed| failed["reason"] == **attempt), "reasons: {audit}");
        }
        for tokens in ["input_tokens", "output_tokens"] {
            assert_eq!(audit[tokens].as_u64().unwrap_or(0), 0, "a failure is charged: {audit}");
        }
    } else {
        check_answer(transcript, &answer::read(&seen.body, transcript.is_stream()));
        check_usage(&expect.usage.unwrap(), audit);
    }
    let kept = seen.kept.as_ref().expect("the cache is asked after a whole body");
    assert_eq!(kept.is_some(), expect.kept, "kept");
    for (kept, is_stream) in kept.iter().flatten().zip([false, true]) {
        assert_eq!((&kept.text, &kept.tool_calls), (&expect.text, &expect.tool_calls), "the cache's");
        assert_eq!((kept.error.as_deref(), kept.is_done), (None, is_stream), "the cache's");
    }
}

fn check_answer(transcript: &Transcript, told: &Answer) {
    let expect = &transcript.expect;
    assert_eq!((&told.text, &told.tool_calls), (&expect.text, &expect.tool_calls), "what the caller is told");
    assert_eq!(told.error.as_deref(), expect.code.as_deref(), "the caller's error");
    let is_done = transcript.is_stream() && expect.outcome == Outcome::Served;
    assert_eq!(told.is_done, is_done, "the end marker");
}

fn check_usage(expect: &Usage, audit: &Value) {
    let Usage { input, output, cached, cache_write, estimated, min_input, min_output } = *expect;
    assert_eq!(audit["usage_estimated"], estimated, "usage_estimated: {audit}");
    for (name, exact, least) in [
        ("input_tokens", input, min_input),
        ("output_tokens", output, min_output),
        ("cached_input_tokens", Some(cached), None),
        ("cache_write_tokens", cache_write, None),
    ] {
        let Some(least) = exact.or(least) else { continue };
        let tokens = audit[name].as_u64().unwrap_or_else(|| panic!("no {name}: {audit}"));
        assert!(tokens == least || exact.is_none() && tokens > least, "{name}: {tokens} for {least}: {audit}");
    }
}

/// The cuts of a body that are tried.
fn cuts(transcript: &Transcript) -> Vec<Cut> {
    let length = transcript.response.body.len();
    if length > LONG {
        return vec![Cut::Pieces(length), Cut::Pieces(length.div_ceil(3)), Cut::Pieces(READ)];
    }
    let is_short = length <= EVERY_SPLIT && transcript.prompt_bytes <= EVERY_SPLIT;
    let step = if is_short { 1 } else { length.div_ceil(SAMPLE) };
    (1..length).step_by(step).map(Cut::At).chain([Cut::Pieces(length), Cut::Pieces(1)]).collect()
}

/// What is wrong with one file.
fn problem(act: impl FnOnce()) -> Option<String> {
    let error = catch_unwind(AssertUnwindSafe(act)).err()?;
    let text = error.downcast_ref::<String>().cloned();
    Some(text.or(error.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
}

/// Replays one part of the corpus.
fn replay_part(part: usize) {
    let mut problems = String::new();
    for transcript in pointsman_transcripts::all().iter().skip(part).step_by(PARTS) {
        let name = &*transcript.name;
        let mut envoy = Envoy::new(&policy());
        let mut first = None;
        let unsteady = problem(|| {
            for (number, cut) in [Cut::Whole].into_iter().chain(cuts(transcript)).enumerate() {
                let seen = replay(&mut envoy, transcript, cut, number);
                match &first {
                    None => first = Some(seen),
                    Some(first) => same(first, &seen, cut),
                }
            }
        });
        let wrong = first.as_ref().and_then(|first| problem(|| check(transcript, first)));
        let is_pending = PENDING.iter().any(|(pending, _)| *pending == name);
        // No file may come out differently by how it is cut.
        match (unsteady, wrong) {
            (Some(wrong), _) => writeln!(problems, "{name}: {wrong:.2000}").unwrap(),
            (None, Some(wrong)) if !is_pending => writeln!(problems, "{name}: {wrong:.2000}").unwrap(),
            (None, None) if is_pending => writeln!(problems, "{name} holds now: take it off PENDING").unwrap(),
            (None, _) => {}
        }
    }
    assert!(problems.is_empty(), "\n{problems}");
}

/// So many tests share the corpus, because they run side by side.
const PARTS: usize = 2;

#[test]
fn every_transcript_comes_out_as_it_should() {
    replay_part(0);
}

#[test]
fn every_other_transcript_comes_out_as_it_should() {
    replay_part(1);
}

#[test]
fn what_is_pending_is_in_the_corpus() {
    let all = pointsman_transcripts::all();
    for (name, why) in PENDING {
        assert!(!why.is_empty() && all.iter().any(|transcript| transcript.name == *name), "{name}");
    }
}
