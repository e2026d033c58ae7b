//! A provider's stream: however it is split, the caller gets the same bytes, the same usage is counted and recorded,
//! and the same whole answer is put together.
//!
//! The first byte of the input selects the caller's options, the next two where the stream is split.

use pointsman_core::cache::local::recording::{Recording, RecordingBudget};
use pointsman_core::config::Dialect;
use pointsman_core::dialect::client::ClientDialect;
use pointsman_core::exchange::answer::held::Held;
use pointsman_core::exchange::answer::{Answer, StreamRules};
use pointsman_core::outcome::provider_error::{self, CallersOwn};
use pointsman_core::wire::json::Scanner;

pub fn stream(input: &[u8]) {
    let Some(([flags, a, b], text)) = input.split_first_chunk() else { return };
    let at = |part: &u8| text.len() * usize::from(*part) / 256;
    let (first, last) = (at(a).min(at(b)), at(a).max(at(b)));
    for dialect in [ClientDialect::OpenAi, ClientDialect::Anthropic] {
        let run = |chunks: &mut dyn Iterator<Item = &[u8]>| run(dialect, *flags, chunks);
        let whole = run(&mut [text].into_iter());
        assert_eq!(run(&mut [&text[..first], &text[first..last], &text[last..]].into_iter()), whole, "in three");
        assert_eq!(run(&mut text.chunks(1)), whole, "byte by byte");
        assert_eq!(run(&mut by_event(text).into_iter()), whole, "by event");
        let _ = (dialect.read_whole(text).is_ok(), dialect.beginning(text).is_ok());
        let _ = provider_error::error_body(400, None, &CallersOwn::default(), || dialect.read_error(text));
    }
    // The verdict before anything has gone to the caller: more of the stream does not change it.
    for dialect in [Dialect::Openai, Dialect::Anthropic] {
        let is_taken = dialect.first_event(text, &mut 0, true).map(|judged| judged.is_ok());
        for end in [first, last] {
            if let Some(early) = dialect.first_event(&text[..end], &mut 0, false) {
                assert_eq!(Some(early.is_ok()), is_taken, "{dialect:?}, after {end} bytes");
            }
        }
        let _ = (dialect.whole(text).is_ok(), dialect.beginning(text).is_ok());
    }
}

/// Returns what the caller receives of a stream, and what is known of it at the end.
fn run(
    dialect: ClientDialect,
    flags: u8,
    chunks: &mut dyn Iterator<Item = &[u8]>,
) -> impl PartialEq + std::fmt::Debug + use<> {
    let (hide_usage, is_recorded, is_for_caller) = (flags & 1 == 1, flags & 6 != 0, flags & 4 == 4);
    let recording = is_recorded.then(|| {
        let budget = RecordingBudget::default().guard();
        Recording { max_bytes: 10_000, budget, is_for_caller }
    });
    let held = is_for_caller.then(|| Held::new(RecordingBudget::default().guard()));
    let rules = StreamRules { hide_usage, recording, max_event: 1 << 20, held };
    let mut answer = Answer::stream(dialect, 200, rules);
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend(answer.stream_chunk(chunk, false, || 1).unwrap_or_else(|| chunk.to_vec()));
    }
    out.extend(answer.stream_chunk(b"", true, || 1).unwrap_or_default());
    let (usage, error, is_done) = (answer.usage(10), answer.error_code(), answer.is_done());
    let Answer::Stream(mut stream) = answer else { panic!("it was one") };
    let assembled = is_for_caller.then(|| stream.take_assembled());
    if let Some(Ok(assembled)) = &assembled {
        let mut scanner = Scanner::lenient(&assembled.body, u32::MAX);
        let is_valid = scanner.value().and_then(|_| scanner.finish()).is_ok();
        assert!(is_valid, "{}", String::from_utf8_lossy(&assembled.body));
    }
    (String::from_utf8_lossy(&out).into_owned(), usage, error, is_done, assembled, stream.take_kept(1))
}

/// Splits the text at the ends of events, as it usually arrives.
fn by_event(text: &[u8]) -> Vec<&[u8]> {
    let (mut all, mut start) = (Vec::new(), 0);
    for at in 1..text.len() {
        if text[at - 1..=at] == *b"\n\n" {
            all.push(&text[start..=at]);
            start = at + 1;
        }
    }
    all.push(&text[start..]);
    all
}
