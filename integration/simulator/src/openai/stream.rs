//! Writes a chat completion as a stream of `chat.completion.chunk` events.

use std::sync::Arc;

use super::put_usage;
use super::whole::{finish_reason, put_service_tier};
use crate::answer::{Answer, Ask, Said, Stamp, Usage};
use crate::sse::{Event, Framing, Kind};
use crate::write::put_string;

/// Returns the events of a stream, made on demand: roles, content, finish reasons, usage if asked for, `[DONE]`.
pub fn events(stamp: &Stamp, ask: &Ask, answer: Answer, framing: Framing) -> impl Iterator<Item = Event> + use<> {
    let choices = ask.choices.max(1);
    let usage = ask.include_usage && !matches!(answer.usage, Usage::Omit);
    let chunks = Arc::new(Chunks {
        before: before(stamp, ask, &answer),
        after: if ask.include_usage { b",\"usage\":null}" } else { b"}" },
        deltas: Deltas::of(&answer),
        answer,
        framing,
    });
    let [roles, contents, ends, last] = [(); 4].map(|()| Arc::clone(&chunks));
    let content = (0..chunks.answer.chunks()).flat_map(move |at| (0..choices).map(move |index| (at, index)));
    (0..choices)
        .map(move |index| roles.role(index))
        .chain(content.map(move |(at, index)| contents.content(at, index)))
        .chain((0..choices).map(move |index| ends.finish(index)))
        .chain(usage.then(|| chunks.usage()))
        .chain(std::iter::once_with(move || last.framing.event(Kind::Done, |out| out.extend_from_slice(b"[DONE]"))))
}

fn before(stamp: &Stamp, ask: &Ask, answer: &Answer) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"id\":");
    put_string(&mut out, &stamp.id("chatcmpl-sim-"));
    let created = stamp.created;
    out.extend_from_slice(format!(r#","object":"chat.completion.chunk","created":{created},"model":"#).as_bytes());
    put_string(&mut out, &ask.model);
    put_service_tier(&mut out, answer);
    out.extend_from_slice(br#","system_fingerprint":"fp_simulator","choices":["#);
    out
}

/// What all chunks of one stream share.
struct Chunks {
    before: Vec<u8>,
    after: &'static [u8],
    deltas: Deltas,
    answer: Answer,
    framing: Framing,
}

impl Chunks {
    fn event(&self, kind: Kind, index: usize, delta: impl FnOnce(&mut Vec<u8>), finish: Option<&str>) -> Event {
        self.framing.event(kind, |out| {
            out.extend_from_slice(&self.before);
            out.extend_from_slice(b"{\"index\":");
            out.extend_from_slice(index.to_string().as_bytes());
            out.extend_from_slice(b",\"delta\":{");
            delta(out);
            out.extend_from_slice(b"},\"logprobs\":null,\"finish_reason\":");
            match finish {
                Some(reason) => put_string(out, reason),
                None => out.extend_from_slice(b"null"),
            }
            out.extend_from_slice(b"}]");
            out.extend_from_slice(self.after);
        })
    }

    fn role(&self, index: usize) -> Event {
        let delta: &[u8] = match self.answer.said {
            Said::Text(_) => br#""role":"assistant","content":"","refusal":null"#,
            Said::Calls(_) => br#""role":"assistant","content":null,"refusal":null"#,
        };
        self.event(Kind::Head, index, |out| out.extend_from_slice(delta), None)
    }

    fn content(&self, at: usize, index: usize) -> Event {
        let reasoning = self.answer.reasoning.as_ref();
        let thoughts = reasoning.map_or(0, |reasoning| reasoning.text.len());
        let delta = |out: &mut Vec<u8>| match (&self.deltas, &self.answer.said) {
            _ if at < thoughts => {
                out.extend_from_slice(b"\"reasoning_content\":");
                put_string(out, reasoning.map_or("", |reasoning| reasoning.text.chunk(at)));
            }
            (Deltas::Text, Said::Text(text)) => {
                out.extend_from_slice(b"\"content\":");
                put_string(out, text.chunk(at - thoughts));
            }
            (Deltas::Calls(deltas), _) => out.extend_from_slice(deltas.get(at - thoughts).map_or(&[], Vec::as_slice)),
            _ => {}
        };
        self.event(Kind::Content, index, delta, None)
    }

    fn finish(&self, index: usize) -> Event {
        self.event(Kind::Tail, index, |_| {}, Some(finish_reason(&self.answer)))
    }

    fn usage(&self) -> Event {
        self.framing.event(Kind::Tail, |out| {
            out.extend_from_slice(&self.before);
            out.extend_from_slice(b"],\"usage\":");
            put_usage(out, &self.answer.usage);
            out.push(b'}');
        })
    }
}

/// The content deltas of a choice: cut from the text on demand, or made in advance for tool calls.
enum Deltas {
    Text,
    Calls(Vec<Vec<u8>>),
}

impl Deltas {
    fn of(answer: &Answer) -> Self {
        let Said::Calls(calls) = &answer.said else { return Self::Text };
        let mut deltas = Vec::with_capacity(answer.chunks());
        let lead = answer.lead.iter().flat_map(|lead| (0..lead.len()).map(|at| lead.chunk(at)));
        deltas.extend(lead.map(|text| {
            let mut delta = b"\"content\":".to_vec();
            put_string(&mut delta, text);
            delta
        }));
        for (index, call) in calls.iter().enumerate() {
            let mut open = format!(r#""tool_calls":[{{"index":{index},"id":"#).into_bytes();
            put_string(&mut open, &call.id);
            open.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
            put_string(&mut open, &call.name);
            open.extend_from_slice(b",\"arguments\":\"\"}}]");
            deltas.push(open);
            for at in 0..call.arguments.len() {
                let mut fragment = format!(r#""tool_calls":[{{"index":{index},"function":{{"arguments":"#).into_bytes();
                put_string(&mut fragment, call.arguments.chunk(at));
                fragment.extend_from_slice(b"}}]");
                deltas.push(fragment);
            }
        }
        Self::Calls(deltas)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::answer::{Call, Ending};
    use crate::chunked::Chunked;

    fn streamed(said: Said, include_usage: bool, choices: usize) -> Vec<Value> {
        let ask = Ask { model: "m".to_owned(), choices, include_usage, stream: true, ..Ask::default() };
        let stamp = Stamp { number: 1, created: 5 };
        let answer = Answer {
            said,
            reasoning: None,
            lead: None,
            ending: Ending::Natural,
            service_tier: String::new(),
            usage: Usage::Tokens { input: 1, output: 2, cached: 0, cache_write: 0, reasoning: 0 },
        };
        let mut data: Vec<String> = events(&stamp, &ask, answer, Framing::default())
            .map(|event| {
                let text = String::from_utf8(event.bytes.to_vec()).unwrap();
                text.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap().to_owned()
            })
            .collect();
        assert_eq!(data.pop().as_deref(), Some("[DONE]"));
        data.iter().map(|text| serde_json::from_str(text).unwrap()).collect()
    }

    #[test]
    fn a_text_stream_is_role_content_finish_usage() {
        let events = streamed(Said::Text(Chunked::words("hi you".to_owned())), true, 1);
        assert_eq!(events.len(), 5);
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(events[2]["choices"][0]["delta"]["content"], " you");
        assert_eq!(events[2]["usage"], Value::Null);
        assert!(events[2].as_object().unwrap().contains_key("usage"));
        assert_eq!(events[3]["choices"][0]["finish_reason"], "stop");
        assert_eq!(events[4]["choices"], Value::Array(vec![]));
        assert_eq!(events[4]["usage"]["total_tokens"], 3);
    }

    #[test]
    fn usage_is_not_mentioned_unless_asked_for() {
        let events = streamed(Said::Text(Chunked::words("hi".to_owned())), false, 2);
        assert_eq!(events.len(), 6);
        assert!(events.iter().all(|event| event.get("usage").is_none()));
        assert_eq!(events[3]["choices"][0]["index"], 1);
    }

    #[test]
    fn arguments_come_in_fragments() {
        let arguments = Chunked::bytes("{\"a\":1}".to_owned(), 3);
        let call = Call { id: "c".to_owned(), name: "f".to_owned(), arguments, takes_text: false };
        let events = streamed(Said::Calls(vec![call]), false, 1);
        let call = |event: &Value| event["choices"][0]["delta"]["tool_calls"][0].clone();
        assert_eq!(call(&events[1])["function"]["name"], "f");
        let fragments: String = events[1..5]
            .iter()
            .map(|event| call(event)["function"]["arguments"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(fragments, "{\"a\":1}");
        assert_eq!(events[5]["choices"][0]["finish_reason"], "tool_calls");
    }
}
