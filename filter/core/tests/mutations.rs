//! Parsers of outside bytes under mutation: none panics, and the request scanner accepts what serde_json accepts.
//!
//! Deterministic, so that a failure can be run again; `MUTATIONS=1000000` looks longer.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use pointsman_core::config::Dialect;
use pointsman_core::dialect::client::ClientDialect;
use pointsman_core::exchange::answer::Answer;
use pointsman_core::outcome::provider_error;
use pointsman_core::policy::parse;
use pointsman_core::routing::{dispatch, in_flight};

/// SplitMix64 (public domain, Vigna): enough for picking bytes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        const BYTES: &[u8] = b"\"\\{}[],:0-9.eE \n\r\t\0\x7f\x80\xc3\xed\xff datanull";
        let mut text = seed.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(text.len());
            match self.below(5) {
                0 if !text.is_empty() => text[at] = BYTES[self.below(BYTES.len())],
                1 => text.insert(at, BYTES[self.below(BYTES.len())]),
                2 if !text.is_empty() => drop(text.remove(at)),
                3 => text.truncate(at),
                _ => {
                    let from = self.below(text.len());
                    let piece = text[from..(from + 12).min(text.len())].to_vec();
                    text.splice(at..at, piece);
                }
            }
        }
        text
    }
}

fn rounds() -> usize {
    std::env::var("MUTATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(30_000)
}

const REQUEST: &[u8] = br#"{"model":"m\u0041","messages":[{"role":"user","content":[{"type":"text","text":"h\u00e9llo"}]}],
  "stream":true,"stream_options":{"include_usage":false},"max_tokens":12,"metadata":{"task":"t"},"tools":[{"function":{"name":"f"}}],
  "response_format":{"type":"json_schema"},"temperature":1.0e-3,"user":"u"}"#;

#[test]
fn the_request_scanner_agrees_with_serde_json_and_what_it_passes_has_no_duplicate() {
    let mut random = Random(1);
    for _ in 0..rounds() {
        let text = random.mutate(REQUEST);
        let ours = ClientDialect::OpenAi.parse(&text, 64);
        if let Ok(request) = ours {
            let tree: serde_json::Map<String, serde_json::Value> = match serde_json::from_slice(&text) {
                Ok(tree) => tree,
                // The grammar allows half a surrogate pair; only a decoder refuses it.
                Err(e) if e.to_string().contains("surrogate") => continue,
                Err(e) if e.to_string().contains("number out of range") => continue,
                Err(e) => panic!("{e}: {}", String::from_utf8_lossy(&text)),
            };
            assert_eq!(tree.len(), request.facts().members.len(), "{}", String::from_utf8_lossy(&text));
        }
    }
}

#[test]
fn no_parser_panics() {
    let stream = b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],\"usage\":null}\r\n\r\n: c\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2,\"prompt_tokens_details\":{\"cached_tokens\":1}}}\n\ndata: [DONE]\n\n";
    let policy = br#"{"providers":{"p":{"dialect":"openai","data":"public"}},"models":{"m":{"provider":"p","model":"x","tier":"mid","context":1,"max_output_tokens":1,"price":{"input":0.5,"output":1}}},"tiers":{"t":{"models":["m"]}},"tenants":{"a":{"tier":"t","keys":["sha256:00"]}}}"#;
    let error = br#"{"error":{"message":"for org-x at https://a.b.c","param":"p","code":429}}"#;
    let mut random = Random(2);
    for _ in 0..rounds() {
        let text = random.mutate(stream);
        let mut answer = Answer::stream(ClientDialect::OpenAi, 200, random.below(2) == 0, None);
        let cut = random.below(text.len());
        answer.stream_chunk(&text[..cut], false, || 1);
        answer.stream_chunk(&text[cut..], true, || 2);
        let _ = (answer.usage(10), answer.error_code(), Dialect::Openai.first_event(&text, true));
        let text = random.mutate(error);
        let _ = (ClientDialect::OpenAi.read_whole(&text), Dialect::Openai.whole(&text));
        let _ = provider_error::error_body(400, None, || ClientDialect::OpenAi.read_error(&text));
        let _ = (dispatch::decode(&text), dispatch::read_failed(&text), in_flight::acquire(&text, random.next(), 3));
        let _ = parse::from_json(&random.mutate(policy));
    }
}

#[test]
fn however_a_broken_stream_is_split_the_caller_gets_the_same() {
    let stream = b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\r\n\r\n: c\n\ndata: {\"choices\":[{}],\ndata: \"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n";
    let mut random = Random(3);
    for _ in 0..rounds() / 10 {
        let text = random.mutate(stream);
        let run = |chunks: &[&[u8]]| {
            let mut answer = Answer::stream(ClientDialect::OpenAi, 200, true, None);
            let mut out = Vec::new();
            for (i, chunk) in chunks.iter().enumerate() {
                out.extend(answer.stream_chunk(chunk, i + 1 == chunks.len(), || 1).unwrap_or_else(|| chunk.to_vec()));
            }
            (out, answer.usage(0), answer.error_code())
        };
        let whole = run(&[&text, b""]);
        for _ in 0..8 {
            let (a, b) = (random.below(text.len() + 1), random.below(text.len() + 1));
            let (a, b) = (a.min(b), a.max(b));
            assert_eq!(run(&[&text[..a], &text[a..b], &text[b..], b""]), whole, "{}", String::from_utf8_lossy(&text));
        }
    }
}

#[test]
fn events_that_resemble_each_other_are_read_as_if_each_were_the_first() {
    let event = "data: {\"choices\":[{\"delta\":{\"content\":\"one \\n\"}}],\"usage\":null,\"obfuscation\":\"ab\"}\n\n";
    let stream = [
        event,
        &event.replace("one", "two and more"),
        &event.replace("one", "é").replace("ab", "c"),
        "data: [DONE]\n\n",
    ]
    .concat();
    let mut random = Random(4);
    for _ in 0..rounds() {
        let text = random.mutate(stream.as_bytes());
        let run = |chunks: &mut dyn Iterator<Item = &[u8]>| {
            let mut answer = Answer::stream(ClientDialect::OpenAi, 200, true, None);
            let mut out = Vec::new();
            for chunk in chunks {
                out.extend(answer.stream_chunk(chunk, false, || 1).unwrap_or_else(|| chunk.to_vec()));
            }
            out.extend(answer.stream_chunk(b"", true, || 1).unwrap_or_default());
            (out, answer.usage(0), answer.error_code())
        };
        // Chunks that end where events do, as they come in practice, and bytes, of which none is an event.
        let by_event = run(&mut split_events(&text).into_iter());
        assert_eq!(by_event, run(&mut text.chunks(1)), "{}", String::from_utf8_lossy(&text));
    }
}

/// The text in pieces that end after two line feeds.
fn split_events(text: &[u8]) -> Vec<&[u8]> {
    let (mut all, mut start) = (Vec::new(), 0);
    for at in 1..text.len() {
        if text.get(at - 1..=at) == Some(b"\n\n") {
            all.extend(text.get(start..=at));
            start = at + 1;
        }
    }
    all.extend(text.get(start..));
    all
}
