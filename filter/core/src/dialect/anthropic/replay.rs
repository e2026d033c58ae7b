//! Replays a stored message to a caller, whole or as a stream.

use crate::dialect::anthropic::message::Message;
use crate::dialect::anthropic::object::Object;
use crate::dialect::anthropic::stream::END;
use crate::wire::json::{InvalidJson, Scanner, quote_into};

/// Returns the answer for a caller that does not stream.
pub fn whole(kept: &Message, id: &str) -> Vec<u8> {
    let Message { common, blocks, ending, usage } = kept;
    let content = blocks.join(",");
    ["{\"id\":\"", id, "\"", common, ",\"content\":[", &content, "]", ending, ",\"usage\":", usage, "}"]
        .concat()
        .into_bytes()
}

/// Returns the answer as a complete stream of server-sent events.
pub fn stream(kept: &Message, id: &str) -> Vec<u8> {
    let Message { common, blocks, ending, usage } = kept;
    let mut out = Events(Vec::with_capacity(2 * kept.bytes() + 1024));
    let mut at_start = Object::parse(usage.as_bytes()).unwrap_or_default();
    at_start.set("\"output_tokens\"", "0".to_owned());
    let at_start = at_start.json();
    out.event(
        "message_start",
        &[
            ",\"message\":{\"id\":\"",
            id,
            "\"",
            common,
            ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":",
            &at_start,
            "}",
        ],
    );
    for (index, block) in blocks.iter().enumerate() {
        out.block(&index.to_string(), block);
    }
    let ending = ending.strip_prefix(',').unwrap_or(ending);
    out.event("message_delta", &[",\"delta\":{", ending, "},\"usage\":", usage]);
    out.0.extend_from_slice(END);
    out.0
}

struct Events(Vec<u8>);

impl Events {
    /// Writes an event. `members`: those of its data after the type.
    fn event(&mut self, kind: &str, members: &[&str]) {
        for part in ["event: ", kind, "\ndata: {\"type\":\"", kind, "\""].iter().chain(members).chain(&["}\n\n"]) {
            self.0.extend_from_slice(part.as_bytes());
        }
    }

    fn delta(&mut self, index: &str, kind: &str, member: &str, value: &str) {
        self.event(
            "content_block_delta",
            &[",\"index\":", index, ",\"delta\":{\"type\":\"", kind, "\",\"", member, "\":", value, "}"],
        );
    }

    /// Writes a block: its start without what comes in pieces, then each of these as one piece.
    fn block(&mut self, index: &str, block: &str) {
        let block = Object::parse(block.as_bytes()).unwrap_or_default();
        let mut start = block.clone();
        let kind = block.get("\"type\"").unwrap_or_default();
        for (name, empty) in pieces(kind) {
            if block.get(name).is_some_and(|value| value != "null") {
                start.set(name, (*empty).to_owned());
            }
        }
        self.event("content_block_start", &[",\"index\":", index, ",\"content_block\":", &start.json()]);
        for (name, _) in pieces(kind) {
            match (*name, block.get(name).filter(|value| *value != "null")) {
                ("\"text\"", Some(text)) => self.delta(index, "text_delta", "text", text),
                ("\"thinking\"", Some(text)) => self.delta(index, "thinking_delta", "thinking", text),
                ("\"signature\"", Some(text)) => self.delta(index, "signature_delta", "signature", text),
                ("\"input\"", Some(input)) => {
                    let mut quoted = Vec::with_capacity(input.len() + 16);
                    quote_into(&mut quoted, input);
                    let quoted = String::from_utf8_lossy(&quoted);
                    self.delta(index, "input_json_delta", "partial_json", &quoted);
                }
                ("\"citations\"", Some(list)) => {
                    let mut scanner = Scanner::new(list.as_bytes(), u32::MAX);
                    // It was scanned before, so it cannot fail.
                    let _ = scanner.array(|s, _| {
                        let one = s.value()?;
                        let one = String::from_utf8_lossy(s.bytes(&one.span)).into_owned();
                        self.delta(index, "citations_delta", "citation", &one);
                        Ok::<_, InvalidJson>(())
                    });
                }
                _ => {}
            }
        }
        self.event("content_block_stop", &[",\"index\":", index]);
    }
}

/// Returns the members of a block of this type that come in pieces, each with its value at the start.
fn pieces(kind: &str) -> &'static [(&'static str, &'static str)] {
    match kind {
        "\"text\"" => &[("\"text\"", "\"\""), ("\"citations\"", "[]")],
        "\"thinking\"" => &[("\"thinking\"", "\"\""), ("\"signature\"", "\"\"")],
        "\"tool_use\"" | "\"server_tool_use\"" | "\"mcp_tool_use\"" => &[("\"input\"", "{}")],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::local::recording::{Recording, RecordingBudget};
    use crate::dialect::anthropic::stream::StreamReader;
    use crate::wire::sse::{EventCutter, Piece};
    use serde_json::{Value, json};

    fn message() -> Value {
        json!({"id": "msg_old", "type": "message", "role": "assistant", "model": "claude", "container": null,
            "content": [
                {"type": "thinking", "thinking": "Let me\n\"see\"", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "eA=="},
                {"type": "text", "text": "é", "citations": [{"type": "char_location", "cited_text": "x"}]},
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"b": [1, "\"\\"], "a": {}}},
                {"type": "tool_use", "id": "toolu_2", "name": "g", "input": {}}],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 3, "cache_read_input_tokens": 9, "output_tokens": 40}})
    }

    fn kept() -> Message {
        Message::from_whole(message().to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_whole_answer_is_the_same_but_for_its_id() {
        let mut expected = message();
        expected["id"] = json!("msg_new");
        assert_eq!(serde_json::from_slice::<Value>(&whole(&kept(), "msg_new")).unwrap(), expected);
    }

    #[test]
    fn a_replayed_stream_folds_to_the_same_answer() {
        let stream = stream(&kept(), "msg_new");
        let recording =
            Recording { max_bytes: 1 << 20, budget: RecordingBudget::default().guard(), is_for_caller: false };
        let mut reader = StreamReader::new(Some(recording));
        let mut kinds = Vec::new();
        EventCutter::default().push(&stream, |piece| {
            let Piece::Event(event) = piece else { panic!("{piece:?}") };
            kinds.push(String::from_utf8_lossy(event).lines().next().unwrap().to_owned());
            reader.event(event);
        });
        assert_eq!(reader.take_kept().unwrap().unwrap(), kept());
        assert_eq!(kinds.iter().filter(|kind| *kind == "event: content_block_start").count(), 6);
        assert_eq!(
            (kinds[0].as_str(), kinds.last().unwrap().as_str()),
            ("event: message_start", "event: message_stop")
        );
    }

    #[test]
    fn what_is_no_answer_for_others_is_not_kept() {
        let refused = |change: fn(&mut Value)| {
            let mut message = message();
            change(&mut message);
            Message::from_whole(message.to_string().as_bytes()).unwrap_err().0
        };
        assert_eq!(refused(|m| m["stop_reason"] = json!("refusal")), "filtered");
        assert_eq!(refused(|m| m["stop_reason"] = json!("pause_turn")), "filtered");
        assert_eq!(refused(|m| m["stop_reason"] = Value::Null), "unfinished");
        assert_eq!(refused(|m| m["content"] = json!([{"type": "text", "text": ""}])), "empty");
        assert_eq!(refused(|m| m["content"] = json!([])), "empty");
        assert_eq!(refused(|m| m["content"][0] = json!({"no": "type"})), "shape");
        assert_eq!(refused(|m| m["type"] = json!("error")), "shape");
        assert_eq!(Message::from_whole(b"{\"type\":1,\"type\":2}").unwrap_err().0, "shape");
    }
}
