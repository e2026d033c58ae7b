//! Writes a response as a stream of numbered events.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::item::{Item, items, summary_part, text_part};
use super::object::{begun, failed};
use crate::answer::{Answer, Ask, Stamp};
use crate::sse::{Event, Framing, Kind};
use crate::write::quoted;

/// An event before it has its number: its name, and the members after that.
struct Piece {
    kind: Kind,
    name: &'static str,
    rest: String,
}

impl Piece {
    fn new(kind: Kind, name: &'static str, rest: String) -> Self {
        Self { kind, name, rest }
    }

    fn framed(&self, framing: Framing, number: usize) -> Event {
        let Self { kind, name, rest } = self;
        framing.named(*kind, name, |out| {
            out.extend_from_slice(format!(r#"{{"type":"{name}","sequence_number":{number},{rest}}}"#).as_bytes());
        })
    }
}

/// Returns the events of a stream. It ends with the finished response, given as [`super::finished`] makes it.
pub fn events(
    stamp: Stamp,
    ask: &Ask,
    answer: Answer,
    finished: (String, &'static str),
    framing: Framing,
) -> impl Iterator<Item = Event> + use<> {
    let begun = begun(stamp, ask);
    let head = ["response.created", "response.in_progress"]
        .map(|name| Piece::new(Kind::Head, name, format!(r#""response":{begun}"#)));
    let (response, status) = finished;
    let name = match status {
        "incomplete" => "response.incomplete",
        "failed" => "response.failed",
        _ => "response.completed",
    };
    let last = Piece::new(Kind::Done, name, format!(r#""response":{response}"#));
    let answer = Arc::new(answer);
    let count = items(&answer).len();
    let content = (0..count).flat_map(move |index| item_pieces(Arc::clone(&answer), stamp, index, index + 1 == count));
    let pieces = head.into_iter().chain(content).chain(std::iter::once(last));
    pieces.enumerate().map(move |(number, piece)| piece.framed(framing, number))
}

/// Returns the event with which a stream fails after `sent` events.
pub fn error(json: Option<&Value>, framing: Framing, sent: usize) -> Bytes {
    let Some(json) = json else {
        let message = "The server had an error while processing your request. Sorry about that!";
        let rest = format!(r#""code":"server_error","message":"{message}","param":null"#);
        return Piece::new(Kind::Tail, "error", rest).framed(framing, sent).bytes;
    };
    framing.named(Kind::Tail, "error", |out| out.extend_from_slice(json.to_string().as_bytes())).bytes
}

/// Returns `response.failed` after `sent` events, for a response that failed with this error.
pub fn failure(
    stamp: Stamp,
    ask: &Ask,
    error: Option<&Value>,
    framing: Framing,
) -> impl FnOnce(usize) -> Bytes + Send + use<> {
    let rest = format!(r#""response":{}"#, failed(stamp, ask, error));
    let piece = Piece::new(Kind::Tail, "response.failed", rest);
    move |sent| piece.framed(framing, sent).bytes
}

/// Returns the events of one item, its deltas on demand.
fn item_pieces(answer: Arc<Answer>, stamp: Stamp, index: usize, is_last: bool) -> impl Iterator<Item = Piece> {
    let end = if is_last { Kind::Tail } else { Kind::Between };
    let (before, delta_name, at, count, after) = match items(&answer).get(index) {
        Some(item) => around(item, stamp, index, end),
        None => (Vec::new(), "", String::new(), 0, Vec::new()),
    };
    let deltas = (0..count).map(move |number| {
        let items = items(&answer);
        let (text, logprobs) = match items.get(index) {
            Some(Item::Message { text, .. }) => (text.chunk(number), r#","logprobs":[]"#),
            Some(Item::Reasoning { summary: text, .. } | Item::Call { input: text, .. }) => (text.chunk(number), ""),
            None => ("", ""),
        };
        Piece::new(Kind::Content, delta_name, format!(r#"{at},"delta":{}{logprobs}"#, quoted(text)))
    });
    before.into_iter().chain(deltas).chain(after)
}

/// Returns what comes before an item's deltas, their name, the members that say to what they belong, their number, and
/// what comes after them.
fn around(
    item: &Item<'_>,
    stamp: Stamp,
    index: usize,
    end: Kind,
) -> (Vec<Piece>, &'static str, String, usize, Vec<Piece>) {
    let of = format!(r#""item_id":{},"output_index":{index}"#, quoted(&item.id(stamp, index)));
    let added = format!(r#""output_index":{index},"item":{}"#, item.opened(stamp, index));
    let mut before = vec![Piece::new(Kind::Between, "response.output_item.added", added)];
    let mut after = Vec::new();
    let (delta, at, count) = match item {
        Item::Reasoning { summary, .. } if summary.text().is_empty() => ("", String::new(), 0),
        Item::Reasoning { summary, .. } => {
            let at = format!(r#"{of},"summary_index":0"#);
            let part = |text: &str| format!(r#"{at},"part":{}"#, summary_part(text));
            before.push(Piece::new(Kind::Between, "response.reasoning_summary_part.added", part("")));
            let done = format!(r#"{at},"text":{}"#, quoted(summary.text()));
            after.push(Piece::new(end, "response.reasoning_summary_text.done", done));
            after.push(Piece::new(end, "response.reasoning_summary_part.done", part(summary.text())));
            ("response.reasoning_summary_text.delta", at, summary.len())
        }
        Item::Message { text, .. } => {
            let at = format!(r#"{of},"content_index":0"#);
            let part = |text: &str| format!(r#"{at},"part":{}"#, text_part(text));
            before.push(Piece::new(Kind::Between, "response.content_part.added", part("")));
            let done = format!(r#"{at},"text":{},"logprobs":[]"#, quoted(text.text()));
            after.push(Piece::new(end, "response.output_text.done", done));
            after.push(Piece::new(end, "response.content_part.done", part(text.text())));
            ("response.output_text.delta", at, text.len())
        }
        Item::Call { name, input, takes_text: false, .. } => {
            let done = format!(r#"{of},"arguments":{},"name":{}"#, quoted(input.text()), quoted(name));
            after.push(Piece::new(end, "response.function_call_arguments.done", done));
            ("response.function_call_arguments.delta", of, input.len())
        }
        Item::Call { input, takes_text: true, .. } => {
            let done = format!(r#"{of},"input":{}"#, quoted(input.text()));
            after.push(Piece::new(end, "response.custom_tool_call_input.done", done));
            ("response.custom_tool_call_input.delta", of, input.len())
        }
    };
    let done = format!(r#""output_index":{index},"item":{}"#, item.whole(stamp, index));
    after.push(Piece::new(end, "response.output_item.done", done));
    (before, delta, at, count, after)
}

#[cfg(test)]
mod tests {
    use super::super::object::finished;
    use super::*;
    use crate::answer::{Call, Ending, Reasoning, Said, Usage};
    use crate::chunked::Chunked;

    #[test]
    fn every_kind_of_item_has_its_events() {
        let text = |text: &str| Chunked::words(text.to_owned());
        let call = |name: &str, takes_text| {
            let arguments = Chunked::bytes("{\"a\":1}".to_owned(), 8);
            Call { id: "call_1".to_owned(), name: name.to_owned(), arguments, takes_text }
        };
        let seal = Some("AAAA".to_owned());
        let answer = Answer {
            reasoning: Some(Reasoning { text: text("hm"), tokens: 1, seal, redacted: None }),
            lead: Some(text("Hé")),
            said: Said::Calls(vec![call("f", false), call("g", true)]),
            ending: Ending::Natural,
            service_tier: String::new(),
            usage: Usage::Omit,
        };
        let (stamp, ask) = (Stamp { number: 1, created: 5 }, Ask::default());
        let finished = finished(stamp, &ask, &answer);
        let events: Vec<(String, Value)> = events(stamp, &ask, answer, finished, Framing::default())
            .map(|event| {
                let text = String::from_utf8(event.bytes.to_vec()).unwrap();
                let (name, data) = text.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
                (name.to_owned(), serde_json::from_str(data).unwrap())
            })
            .collect();
        let names: Vec<_> = events.iter().map(|(name, _)| name.strip_prefix("response.").unwrap()).collect();
        assert_eq!(
            names,
            [
                "created",
                "in_progress",
                "output_item.added",
                "reasoning_summary_part.added",
                "reasoning_summary_text.delta",
                "reasoning_summary_text.done",
                "reasoning_summary_part.done",
                "output_item.done",
                "output_item.added",
                "content_part.added",
                "output_text.delta",
                "output_text.done",
                "content_part.done",
                "output_item.done",
                "output_item.added",
                "function_call_arguments.delta",
                "function_call_arguments.done",
                "output_item.done",
                "output_item.added",
                "custom_tool_call_input.delta",
                "custom_tool_call_input.done",
                "output_item.done",
                "completed",
            ]
        );
        for (number, (name, event)) in events.iter().enumerate() {
            assert_eq!((&event["type"], &event["sequence_number"]), (&name.as_str().into(), &number.into()));
        }
        let output = events.last().unwrap().1["response"]["output"].clone();
        let done = events.iter().filter(|(name, _)| name == "response.output_item.done");
        assert_eq!(Value::Array(done.map(|(_, event)| event["item"].clone()).collect()), output);
        assert_eq!(output[0]["encrypted_content"], "AAAA");
    }
}
