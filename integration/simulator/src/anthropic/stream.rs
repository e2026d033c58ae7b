//! Writes a message as a stream of named events.

use std::sync::Arc;

use serde_json::Value;

use super::usage;
use super::whole::{Block, blocks, message, stop};
use crate::answer::{Answer, Ask, Stamp};
use crate::sse::{Event, Framing, Kind};
use crate::write::{quoted, quoted_or_null};

/// Returns the events of a stream: start, ping, the blocks, the message's end.
pub fn events(
    stamp: Stamp,
    ask: &Ask,
    answer: Answer,
    usage_start: Option<&Value>,
    framing: Framing,
) -> impl Iterator<Item = Event> + use<> {
    let start = message(stamp, ask, "[]", None, None, usage::start(&answer, usage_start));
    let start = named(framing, Kind::Head, "message_start", &format!(r#""message":{start}"#));
    let end = end(ask, &answer, framing);
    let answer = Arc::new(answer);
    let count = blocks(&answer).len();
    let content =
        (0..count).flat_map(move |index| block_events(Arc::clone(&answer), index, index + 1 == count, framing));
    [start, ping(framing, Kind::Head)].into_iter().chain(content).chain(end)
}

/// Returns a `ping`.
pub fn ping(framing: Framing, kind: Kind) -> Event {
    framing.named(kind, "ping", |out| out.extend_from_slice(br#"{"type":"ping"}"#))
}

/// Frames one event. `rest` are the members after its type.
fn named(framing: Framing, kind: Kind, name: &str, rest: &str) -> Event {
    let comma = if rest.is_empty() { "" } else { "," };
    framing.named(kind, name, |out| {
        out.extend_from_slice(format!(r#"{{"type":"{name}"{comma}{rest}}}"#).as_bytes());
    })
}

/// Returns `message_delta` and `message_stop`.
fn end(ask: &Ask, answer: &Answer, framing: Framing) -> [Event; 2] {
    let (reason, sequence) = stop(ask, answer);
    let usage = usage::delta(answer).map_or_else(String::new, |usage| format!(r#","usage":{usage}"#));
    let sequence = quoted_or_null(sequence);
    let delta = format!(r#""delta":{{"stop_reason":{},"stop_sequence":{sequence}}}{usage}"#, quoted(reason));
    [named(framing, Kind::Tail, "message_delta", &delta), named(framing, Kind::Done, "message_stop", "")]
}

/// Returns the events of one block, its deltas on demand.
fn block_events(answer: Arc<Answer>, index: usize, is_last: bool, framing: Framing) -> impl Iterator<Item = Event> {
    let stop_kind = if is_last { Kind::Tail } else { Kind::Between };
    let (start, signature, deltas) = blocks(&answer).get(index).map_or_else(Default::default, opening);
    let around =
        move |kind: Kind, name: &str, rest: String| named(framing, kind, name, &format!(r#""index":{index}{rest}"#));
    let start = around(Kind::Between, "content_block_start", format!(r#","content_block":{start}"#));
    let deltas = (0..deltas).map(move |at| {
        let delta = blocks(&answer).get(index).map(|block| delta(block, at)).unwrap_or_default();
        around(Kind::Content, "content_block_delta", format!(r#","delta":{delta}"#))
    });
    let signature = signature.map(|signature| {
        let delta = format!(r#","delta":{{"type":"signature_delta","signature":{}}}"#, quoted(&signature));
        around(Kind::Between, "content_block_delta", delta)
    });
    let stop = around(stop_kind, "content_block_stop", String::new());
    std::iter::once(start).chain(deltas).chain(signature).chain(std::iter::once(stop))
}

/// Returns how a block opens, its signature, and the number of its deltas.
fn opening(block: &Block<'_>) -> (String, Option<String>, usize) {
    match block {
        Block::Thinking(text, signature) => {
            let open = r#"{"type":"thinking","thinking":"","signature":""}"#.to_owned();
            (open, Some((*signature).to_owned()), text.len())
        }
        Block::Redacted(data) => (format!(r#"{{"type":"redacted_thinking","data":{}}}"#, quoted(data)), None, 0),
        Block::Text(text) => (r#"{"type":"text","text":""}"#.to_owned(), None, text.len()),
        Block::ToolUse(id, name, input) => {
            let open = format!(r#"{{"type":"tool_use","id":{},"name":{},"input":{{}}}}"#, quoted(id), quoted(name));
            (open, None, input.len() + 1)
        }
    }
}

/// Returns one delta of a block. A tool's input begins with an empty one, as Anthropic's does.
fn delta(block: &Block<'_>, at: usize) -> String {
    match block {
        Block::Thinking(text, _) => {
            format!(r#"{{"type":"thinking_delta","thinking":{}}}"#, quoted(text.chunk(at)))
        }
        Block::Redacted(_) => String::new(),
        Block::Text(text) => format!(r#"{{"type":"text_delta","text":{}}}"#, quoted(text.chunk(at))),
        Block::ToolUse(_, _, input) => {
            let piece = at.checked_sub(1).map_or("", |at| input.chunk(at));
            format!(r#"{{"type":"input_json_delta","partial_json":{}}}"#, quoted(piece))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::{Call, Ending, Reasoning, Said, Usage};
    use crate::chunked::Chunked;

    fn streamed(reasoning: Option<Reasoning>, lead: Option<&str>, said: Said) -> Vec<(Kind, Value)> {
        let ask = Ask { model: "m".to_owned(), stream: true, ..Ask::default() };
        let answer = Answer {
            reasoning,
            lead: lead.map(|text| Chunked::words(text.to_owned())),
            said,
            ending: Ending::Natural,
            service_tier: String::new(),
            usage: Usage::Tokens { input: 12, output: 9, cached: 3, cache_write: 0, reasoning: 0 },
        };
        let framed = events(Stamp { number: 1, created: 5 }, &ask, answer, None, Framing::default());
        framed
            .map(|event| {
                let text = String::from_utf8(event.bytes.to_vec()).unwrap();
                let (name, data) = text.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
                let data: Value = serde_json::from_str(data.strip_suffix("\n\n").unwrap()).unwrap();
                assert_eq!(data["type"], name);
                (event.kind, data)
            })
            .collect()
    }

    fn names(events: &[(Kind, Value)]) -> Vec<&str> {
        events.iter().map(|(_, event)| event["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn a_text_is_one_block() {
        let events = streamed(None, None, Said::Text(Chunked::words("hi you".to_owned())));
        let expected = [
            "message_start",
            "ping",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ];
        assert_eq!(names(&events), expected);
        assert_eq!(events[0].1["message"]["usage"]["output_tokens"], 1);
        assert_eq!(events[4].1["delta"]["text"], " you");
        assert_eq!(events[6].1["usage"]["input_tokens"], 9);
        assert_eq!(events[6].1["delta"]["stop_reason"], "end_turn");
        let kinds: Vec<_> = events.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds[2..], [Kind::Between, Kind::Content, Kind::Content, Kind::Tail, Kind::Tail, Kind::Done]);
    }

    #[test]
    fn blocks_follow_each_other() {
        let text = Chunked::words("hm".to_owned());
        let reasoning = Reasoning { text, tokens: 1, seal: Some("c2ln".to_owned()), redacted: None };
        let arguments = Chunked::bytes("{\"a\":1}".to_owned(), 5);
        let call = Call { id: "call_1".to_owned(), name: "f".to_owned(), arguments, takes_text: false };
        let events = streamed(Some(reasoning), Some("Hé"), Said::Calls(vec![call]));
        let indexes: Vec<_> = events.iter().filter_map(|(_, event)| event["index"].as_u64()).collect();
        assert_eq!(indexes, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]);
        assert_eq!(events[4].1["delta"]["signature"], "c2ln");
        assert_eq!(events[9].1["content_block"]["name"], "f");
        let input: String = events.iter().filter_map(|(_, event)| event["delta"]["partial_json"].as_str()).collect();
        assert_eq!(input, "{\"a\":1}");
    }

    #[test]
    fn redacted_thinking_comes_whole() {
        let redacted = Some("AAAA".to_owned());
        let reasoning = Reasoning { text: Chunked::default(), tokens: 0, seal: None, redacted };
        let events = streamed(Some(reasoning), None, Said::Text(Chunked::default()));
        assert_eq!(events[2].1["content_block"]["data"], "AAAA");
        assert_eq!(events[3].1["type"], "content_block_stop");
    }
}
