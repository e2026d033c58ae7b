//! Streams and whole answers under every split, and what they cost.

use super::*;
use crate::wire::sse;

const STREAM: &str = concat!(
    "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"Hél\"}}],\"usage\":null}\n\n",
    "data: {\"choices\":[{\"delta\":{\"content\":\"lo\"}}],\"usage\":null}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n",
    "data: [DONE]\n\n"
);

fn stream(hide_usage: bool) -> Answer {
    let rules = StreamRules { hide_usage, recording: None, max_event: 16 << 20, held: None };
    Answer::stream(ClientDialect::OpenAi, 200, rules)
}

fn tokens_of(input: u64, output: u64) -> Usage {
    Usage { input, output, ..Usage::default() }
}

/// The usage, and whether any of it is an estimate.
fn counted(answer: &Answer, input_bytes: usize) -> Option<(Usage, bool)> {
    answer.usage(input_bytes).map(|(usage, estimated)| (usage, estimated.any()))
}

fn run(chunks: &[&[u8]], hide_usage: bool) -> (Answer, Vec<u8>) {
    let mut answer = stream(hide_usage);
    let mut out = Vec::new();
    for (i, chunk) in chunks.iter().enumerate() {
        let replaced = answer.stream_chunk(chunk, i + 1 == chunks.len(), || 5);
        out.extend(replaced.unwrap_or_else(|| chunk.to_vec()));
    }
    (answer, out)
}

#[test]
fn every_split_gives_the_same_usage_and_the_same_bytes() {
    let text = STREAM.as_bytes();
    let without =
        STREAM.replace("data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2}}\n\n", "");
    for i in 0..text.len() {
        for j in i..text.len() {
            for (hide, expected) in [(false, STREAM), (true, without.as_str())] {
                let (answer, out) = run(&[&text[..i], &text[i..j], &text[j..]], hide);
                assert_eq!(String::from_utf8(out).unwrap(), expected);
                assert_eq!(counted(&answer, 0), Some((tokens_of(7, 2), false)));
                assert_eq!(answer.error_code(), None);
            }
        }
    }
}

#[test]
fn a_whole_chunk_is_passed_without_a_copy() {
    let mut answer = stream(false);
    assert_eq!(answer.stream_chunk(STREAM.as_bytes(), false, || 1), None);
    assert_eq!(answer.stream_chunk(b"", true, || 2), None);
}

#[test]
fn an_aborted_stream_is_charged_for_what_was_seen() {
    let mut answer = stream(true);
    answer.stream_chunk(STREAM.split_inclusive("\n\n").next().unwrap().as_bytes(), false, || 3);
    let (usage, estimated) = counted(&answer, 400).unwrap();
    assert!(estimated);
    assert_eq!(usage, tokens_of(100, 3));
    assert_eq!(answer.error_code(), Some(Outcome::StreamAborted));
    assert_eq!(answer.time_to_first_token_ms(), Some(3));
}

#[test]
fn a_stream_is_whole_at_its_end_marker_and_no_sooner() {
    let mut answer = stream(true);
    for (event, is_done) in STREAM.split_inclusive("\n\n").zip([false, false, false, true]) {
        answer.stream_chunk(event.as_bytes(), false, || 3);
        assert_eq!(
            (answer.is_done(), answer.is_cut_off(), answer.error_code().is_none()),
            (is_done, !is_done, is_done)
        );
    }
    answer.cut_off(Outcome::ClientDisconnected, 200);
    assert_eq!(counted(&answer, 0), Some((tokens_of(7, 2), false)));
}

#[test]
fn a_usage_that_came_before_the_text_does_not_count_it() {
    let chunk = |text: &str, usage: &str| {
        format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]{usage}}}\n\n")
    };
    let early = ",\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":1}";
    let mut answer = stream(true);
    answer.stream_chunk(chunk("Ten", early).as_bytes(), false, || 1);
    assert_eq!(counted(&answer, 0), Some((tokens_of(7, 1), false)));
    for _ in 0..20 {
        answer.stream_chunk(chunk("words of a text that goes on and on", "").as_bytes(), false, || 1);
    }
    let (usage, estimated) = counted(&answer, 0).unwrap();
    assert!(estimated && usage.input == 7 && usage.output > 100, "{usage:?}");
    let last = early.replace(":1}", ":181}");
    answer.stream_chunk(chunk("", &last).as_bytes(), false, || 1);
    assert_eq!(counted(&answer, 0), Some((tokens_of(7, 181), false)));
}

#[test]
fn what_was_seen_is_counted_by_its_language_however_it_was_cut_into_chunks() {
    let seen = |text: &str, size: usize| {
        let mut answer = stream(false);
        for piece in text.chars().collect::<Vec<_>>().chunks(size) {
            let piece: String = piece.iter().collect();
            let event = serde_json::json!({"choices": [{"delta": {"content": piece}}]});
            answer.stream_chunk(format!("data: {event}\n\n").as_bytes(), false, || 1);
        }
        counted(&answer, 0).unwrap().0.output
    };
    let (chinese, english) = ("春天来了，河边的柳树发芽了。".repeat(20), "The gate is open. ".repeat(20));
    // Characters count, not bytes: 280 of the former are 840 bytes, 360 of the latter are 360.
    assert!((280..=400).contains(&seen(&chinese, 1000)), "{}", seen(&chinese, 1000));
    assert!((80..=140).contains(&seen(&english, 1000)), "{}", seen(&english, 1000));
    for text in [&chinese, &english] {
        let whole = seen(text, 1000);
        for size in 1..40 {
            // A word that is cut counts as two.
            assert!((whole..=whole * 4).contains(&seen(text, size)), "{size}: {} of {whole}", seen(text, size));
        }
    }
}

#[test]
fn a_whole_answer_that_breaks_off_is_charged_for_what_had_passed_and_for_nothing_where_it_was_held() {
    let mut passed = Answer::buffered(200);
    passed.on_uninspected(600, false);
    passed.cut_off(Outcome::ClientDisconnected, 200);
    assert_eq!(counted(&passed, 400), Some((tokens_of(100, 150), true)));
    assert_eq!((passed.status(), passed.error_code()), (Some(200), Some(Outcome::ClientDisconnected)));
    let mut held = Answer::buffered(200);
    held.cut_off(Outcome::ProviderUnreachable, 503);
    assert_eq!((counted(&held, 400), held.status()), (None, Some(503)));
}

#[test]
fn text_that_a_provider_counts_as_nothing_is_estimated() {
    let mut answer = Answer::buffered(200);
    let body = br#"{"choices":[{"message":{"role":"assistant","content":"eight by"}}],"usage":{"prompt_tokens":7,"completion_tokens":0}}"#;
    answer.on_full_body(ClientDialect::OpenAi, body).unwrap();
    assert_eq!(counted(&answer, 0), Some((tokens_of(7, 3), true)));
    let mut answer = Answer::buffered(200);
    answer
        .on_full_body(ClientDialect::OpenAi, br#"{"choices":[{"message":{"content":"eight by"}}],"usage":{}}"#)
        .unwrap();
    assert_eq!(counted(&answer, 40), Some((tokens_of(10, 3), true)));
}

/// An event of so many bytes, with text or an image.
fn event(bytes: usize, text: &str) -> String {
    let frame = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
    frame.replace("\"}}]}", &format!("{}\"}}}}]}}", "x".repeat(bytes - frame.len())))
}

#[test]
fn an_event_of_any_length_passes_however_it_is_cut_into_chunks() {
    for len in [sse::MAX_HELD, sse::MAX_HELD + 1, 1_600_000] {
        let text = format!("{}{}", event(len, "data:image/png;base64,"), STREAM);
        let end = text.len() - STREAM.len();
        for size in [text.len(), 1 << 19, 65_536, 30_011] {
            // Also after a similar event, which is then recognized by its frame.
            for before in ["", &event(100, "")] {
                let chunks: Vec<_> = before.as_bytes().chunks(1000).chain(text.as_bytes().chunks(size)).collect();
                let (answer, out) = run(&chunks, false);
                assert!(out == format!("{before}{text}").as_bytes(), "{len} {size}");
                assert_eq!((answer.error_code(), counted(&answer, 0)), (None, Some((tokens_of(7, 2), false))));
            }
        }
        // Cut off: the caller is told in an event of its own.
        let (answer, out) = run(&[&text.as_bytes()[..end - 1000]], false);
        assert_eq!(answer.error_code(), Some(Outcome::StreamTruncated));
        let is_held = end - 1000 <= sse::MAX_HELD;
        let error = ClientDialect::OpenAi.stream_reader(None).error_event(Outcome::StreamTruncated);
        assert!(out.ends_with(&error) && (out.len() == error.len()) == is_held);
        assert!(is_held || out[..out.len() - error.len()].ends_with(b"xx\n\n"));
    }
}

#[test]
fn the_service_tier_is_read_wherever_the_stream_names_it() {
    let served = |text: &str| run(&[text.as_bytes()], false).0.service_tier().map(|tier| tier.name().to_owned());
    let long = event(sse::MAX_HELD + 1, "");
    let named = "\"service_tier\":\"priority\"";
    for text in [
        format!("data: {{{named}}}\n\n{STREAM}"),
        format!("{}{STREAM}", long.replacen("{\"choices\"", &format!("{{{named},\"choices\""), 1)),
        format!("{}{STREAM}", long.replace("]}\n", &format!("],{named}}}\n"))),
    ] {
        assert_eq!(served(&text).as_deref(), Some("priority"));
    }
    // Text is no name of a tier.
    let text =
        event(sse::MAX_HELD + 100, "").replacen("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", &named.replace('"', "\\\""), 1);
    assert_eq!(served(&format!("{text}{STREAM}")), None);
}

#[test]
fn an_event_is_too_long_however_it_is_cut_into_chunks() {
    let max = 1 << 20;
    let run = |chunks: &[&[u8]]| {
        let rules = StreamRules { hide_usage: false, recording: None, max_event: max, held: None };
        let mut answer = Answer::stream(ClientDialect::OpenAi, 200, rules);
        let out: Vec<u8> = chunks
            .iter()
            .flat_map(|chunk| answer.stream_chunk(chunk, false, || 5).unwrap_or_else(|| chunk.to_vec()))
            .collect();
        (answer.error_code(), out)
    };
    let max = usize::try_from(max).unwrap();
    let (longest, longer) = (event(max, ""), event(max + 1, ""));
    let mut outs = Vec::new();
    for size in [longer.len(), 1 << 19, 300_000, 1000] {
        for (text, code) in [(&longest, None), (&longer, Some(Outcome::StreamMalformed))] {
            let mut chunks: Vec<_> = text.as_bytes().chunks(size).collect();
            chunks.push(b"data: [DONE]\n\n");
            let (error, out) = run(&chunks);
            assert_eq!(error, code, "{size} {}", text.len());
            outs.push(out);
        }
    }
    assert!(outs.chunks(2).all(|pair| pair == &outs[..2]), "the same bytes for every split");
    // A comment passes, and counts for nothing.
    let comment = format!(": {}\n\n", "x".repeat(sse::MAX_HELD));
    let (answer, out) = self::run(&[comment.as_bytes(), STREAM.as_bytes()], false);
    assert!(out == [comment.as_bytes(), STREAM.as_bytes()].concat());
    assert_eq!((answer.error_code(), counted(&answer, 0)), (None, Some((tokens_of(7, 2), false))));
    let (answer, _) = self::run(&[comment.as_bytes()], false);
    assert_eq!((answer.time_to_first_token_ms(), counted(&answer, 0)), (None, None));
    // What is long and no chunk is not forwarded at all.
    let foreign = format!("data: {{\"x\":\"{}\"}}\n\n", "x".repeat(sse::MAX_HELD));
    let (error, out) = run(&[foreign.as_bytes()]);
    assert_eq!(error, Some(Outcome::StreamMalformed));
    assert!(out.starts_with(b"data: {\"error\""));
}

#[test]
fn nothing_is_held_of_what_comes_after_the_end_marker() {
    let mut answer = stream(false);
    answer.stream_chunk(STREAM.as_bytes(), false, || 1);
    for _ in 0..4 {
        assert_eq!(answer.stream_chunk(&[b'x'; 1 << 20], false, || 1), Some(Vec::new()));
        let Answer::Stream(stream) = &answer else { unreachable!() };
        assert!(stream.cutter.is_between_events());
    }
    assert_eq!(answer.error_code(), None);
}

#[test]
fn a_usage_chunk_without_choices_is_hidden_too() {
    for choices in ["\"choices\":[],", ""] {
        let chunk = format!("data: {{{choices}\"usage\":{{\"prompt_tokens\":7,\"completion_tokens\":2}}}}\n\n");
        for (hide, passes) in [(true, ""), (false, &*chunk)] {
            let (_, out) = run(&[chunk.as_bytes(), b"data: [DONE]\n\n"], hide);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{passes}data: [DONE]\n\n"));
        }
    }
}

#[test]
fn what_a_server_adds_to_the_usage_passes_without_it() {
    let chunk = "data: {\"choices\":[],\"usage\":{\"completion_tokens\":2},\"timings\":{\"n\":1},\"id\":\"x\"}\n\n";
    let (answer, out) = run(&[chunk.as_bytes(), b"data: [DONE]\n\n"], true);
    let passes = "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":null}],\"timings\":{\"n\":1},\"id\":\"x\"}";
    assert_eq!(String::from_utf8(out).unwrap(), format!("data: {passes}\n\ndata: [DONE]\n\n"));
    assert_eq!(counted(&answer, 0), Some((tokens_of(0, 2), true)));
}

#[test]
fn an_error_in_any_form_ends_the_stream() {
    let chunk = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    for error in [
        "error: {\"code\":500}\n\n",
        "{\"error\":{\"message\":\"x\"}}\n\n",
        "Internal Server Error\n\n",
        "event: error\n\n",
        "data: {\"code\":1302,\"msg\":\"rate limit\"}\n\n",
        "data: {\"choices\":null,\"base_resp\":{\"status_code\":1008}}\n\n",
        "data: {\"error_code\":336501,\"error_msg\":\"x\"}\n\n",
        "data: {\"errors\":[{}]}\n\n",
        "data: {\"status\":500,\"title\":\"x\"}\n\n",
        "data: {\"anything\":1}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"error\"}]}\n\n",
    ] {
        let (answer, out) = run(&[chunk.as_bytes(), error.as_bytes(), b"data: [DONE]\n\n"], false);
        assert_eq!(answer.error_code(), Some(Outcome::StreamError), "{error}");
        let told = ClientDialect::OpenAi.stream_reader(None).error_event(Outcome::StreamError);
        assert_eq!(out, [chunk.as_bytes(), &told].concat(), "{error}");
    }
    // None of these is one.
    for passes in [": comment\n\n", "data: {}\n\n", "data: {\"type\":\"ping\"}\n\n", "event: ping\ndata: {}\n\n"] {
        let chunks = [chunk.as_bytes(), passes.as_bytes(), chunk.as_bytes(), b"data: [DONE]\n\n"];
        let (answer, out) = run(&chunks, false);
        assert_eq!((answer.error_code(), out), (None, chunks.concat()), "{passes}");
    }
    let sources = "data: {\"sources\":[1]}\n\n";
    let (answer, _) = run(&[sources.as_bytes(), chunk.as_bytes(), b"data: [DONE]\n\n"], false);
    assert_eq!(answer.error_code(), None);
}

#[test]
fn a_stream_whose_end_could_not_be_sent_is_no_success() {
    let mut answer = stream(false);
    assert_eq!(answer.stream_chunk(STREAM.as_bytes(), true, || 1), None);
    assert_eq!(answer.error_code(), None);
    answer.truncated();
    assert_eq!(answer.error_code(), Some(Outcome::StreamTruncated));
}

#[test]
fn a_stream_without_its_end_or_with_an_error_is_no_success() {
    let done = STREAM.len() - "data: [DONE]\n\n".len();
    let broken: [(&[u8], Outcome, usize); 5] = [
        (&STREAM.as_bytes()[..done], Outcome::StreamTruncated, done),
        (&STREAM.as_bytes()[..done - 9], Outcome::StreamTruncated, STREAM.find("data: {\"choices\":[],").unwrap()),
        (b"data: {\"error\":{\"message\":\"org-x\"}}\n\ndata: [DONE]\n\n", Outcome::StreamError, 0),
        (b"data: {oops\n\ndata: [DONE]\n\n", Outcome::StreamMalformed, 0),
        (b"", Outcome::StreamTruncated, 0),
    ];
    for (text, code, kept) in broken {
        for at in 0..=text.len() {
            let (answer, out) = run(&[&text[..at], &text[at..], b""], false);
            assert_eq!(answer.error_code(), Some(code));
            assert_eq!(&out[..kept], &text[..kept]);
            assert_eq!(out[kept..], ClientDialect::OpenAi.stream_reader(None).error_event(code));
        }
    }
    // Nothing after the end marker is forwarded or changes the answer.
    let more = format!("{STREAM}data: {{oops\n\ndata: {{\"error\":{{\"message\":\"org-x\"}}}}\n\n\n");
    for at in 0..=more.len() {
        let (answer, out) = run(&[&more.as_bytes()[..at], &more.as_bytes()[at..], b""], false);
        assert_eq!((answer.error_code(), String::from_utf8(out).unwrap().as_str()), (None, STREAM));
    }
    // The end marker needs no empty line after it.
    assert_eq!(run(&[&STREAM.as_bytes()[..STREAM.len() - 1]], false).0.error_code(), None);
}
