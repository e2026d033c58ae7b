//! Writes a message as one document.

use super::usage;
use crate::answer::{Answer, Ask, Ending, Said, Stamp};
use crate::chunked::Chunked;
use crate::write::{array, quoted, quoted_or_null};

/// A block of a message's content.
#[derive(Debug)]
pub enum Block<'a> {
    /// Reasoning and its signature.
    Thinking(&'a Chunked, &'a str),
    /// Reasoning that only the provider can read.
    Redacted(&'a str),
    /// Text.
    Text(&'a Chunked),
    /// A tool call: its id, the tool's name and its input.
    ToolUse(String, &'a str, &'a Chunked),
}

/// Returns the blocks of an answer, in order.
pub fn blocks(answer: &Answer) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    if let Some(reasoning) = &answer.reasoning {
        match &reasoning.redacted {
            Some(data) => blocks.push(Block::Redacted(data)),
            None => blocks.push(Block::Thinking(&reasoning.text, reasoning.seal.as_deref().unwrap_or_default())),
        }
    }
    blocks.extend(answer.lead.as_ref().map(Block::Text));
    match &answer.said {
        Said::Text(text) => blocks.push(Block::Text(text)),
        Said::Calls(calls) => {
            let call = |call: &crate::answer::Call| call.id.replace("call_", "toolu_");
            blocks.extend(calls.iter().map(|made| Block::ToolUse(call(made), &made.name, &made.arguments)));
        }
    }
    blocks
}

/// Returns the `message` document.
pub fn document(stamp: Stamp, ask: &Ask, answer: &Answer) -> Vec<u8> {
    let content = array(blocks(answer).iter().map(|block| match block {
        Block::Thinking(text, signature) => {
            format!(r#"{{"type":"thinking","thinking":{},"signature":{}}}"#, quoted(text.text()), quoted(signature))
        }
        Block::Redacted(data) => format!(r#"{{"type":"redacted_thinking","data":{}}}"#, quoted(data)),
        Block::Text(text) => format!(r#"{{"type":"text","text":{}}}"#, quoted(text.text())),
        Block::ToolUse(id, name, input) => format!(
            r#"{{"type":"tool_use","id":{},"name":{},"input":{}}}"#,
            quoted(id),
            quoted(name),
            input_object(input.text())
        ),
    }));
    let (reason, sequence) = stop(ask, answer);
    message(stamp, ask, &content, Some(reason), sequence, usage::whole(answer)).into_bytes()
}

/// Returns the message around its content: at the start of a stream both content and reason are missing.
pub fn message(
    stamp: Stamp,
    ask: &Ask,
    content: &str,
    reason: Option<&str>,
    sequence: Option<&str>,
    usage: Option<String>,
) -> String {
    let usage = usage.map_or_else(String::new, |usage| format!(r#","usage":{usage}"#));
    format!(
        r#"{{"model":{},"id":{},"type":"message","role":"assistant","content":{content},"stop_reason":{},"stop_sequence":{}{usage}}}"#,
        quoted(&ask.model),
        quoted(&stamp.id("msg_sim")),
        quoted_or_null(reason),
        quoted_or_null(sequence),
    )
}

/// Returns why the message ends, and the stop sequence that ended it.
pub fn stop<'a>(ask: &'a Ask, answer: &'a Answer) -> (&'a str, Option<&'a str>) {
    match (&answer.ending, &answer.said) {
        (Ending::Given(reason), _) if reason == "stop_sequence" => (reason, ask.stop.as_deref()),
        (Ending::Given(reason), _) => (reason, None),
        (Ending::Limit, _) => ("max_tokens", None),
        (Ending::Natural, Said::Text(_)) => ("end_turn", None),
        (Ending::Natural, Said::Calls(_)) => ("tool_use", None),
    }
}

/// Returns a tool's input as an object. Arguments that a behavior made up as text that is no JSON become a string.
fn input_object(text: &str) -> String {
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() { text.to_owned() } else { quoted(text) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::answer::{Call, Reasoning, Usage};

    fn made(answer: &Answer) -> Value {
        let ask = Ask { model: "m".to_owned(), stop: Some("END".to_owned()), ..Ask::default() };
        serde_json::from_slice(&document(Stamp { number: 1, created: 5 }, &ask, answer)).unwrap()
    }

    fn answer(said: Said) -> Answer {
        Answer {
            reasoning: None,
            lead: None,
            said,
            ending: Ending::Natural,
            service_tier: "standard".to_owned(),
            usage: Usage::Tokens { input: 12, output: 9, cached: 3, cache_write: 4, reasoning: 2 },
        }
    }

    #[test]
    fn counts_exclude_what_the_cache_had() {
        let made = made(&answer(Said::Text(Chunked::words("Hé".to_owned()))));
        assert_eq!(made["content"][0]["text"], "Hé");
        assert_eq!((&made["stop_reason"], &made["stop_sequence"]), (&"end_turn".into(), &Value::Null));
        let usage = &made["usage"];
        assert_eq!(usage["input_tokens"], 5);
        assert_eq!((&usage["cache_read_input_tokens"], &usage["cache_creation_input_tokens"]), (&3.into(), &4.into()));
        assert_eq!((&usage["output_tokens"], &usage["service_tier"]), (&9.into(), &"standard".into()));
        assert_eq!(usage["output_tokens_details"]["thinking_tokens"], 2);
    }

    #[test]
    fn thinking_and_text_come_before_a_call() {
        let arguments = Chunked::bytes("{\"a\":1}".to_owned(), 2);
        let call = Call { id: "call_1".to_owned(), name: "f".to_owned(), arguments, takes_text: false };
        let text = Chunked::words("hm".to_owned());
        let reasoning = Reasoning { text, tokens: 1, seal: Some("c2ln".to_owned()), redacted: None };
        let lead = Some(Chunked::words("I look.".to_owned()));
        let made = made(&Answer { reasoning: Some(reasoning), lead, ..answer(Said::Calls(vec![call])) });
        let kinds: Vec<_> = made["content"].as_array().unwrap().iter().map(|block| block["type"].clone()).collect();
        assert_eq!(kinds, ["thinking", "text", "tool_use"]);
        assert_eq!(made["content"][0]["signature"], "c2ln");
        assert_eq!((&made["content"][2]["id"], &made["content"][2]["input"]["a"]), (&"toolu_1".into(), &1.into()));
        assert_eq!(made["stop_reason"], "tool_use");
    }

    #[test]
    fn an_ending_has_its_reason() {
        let text = || Said::Text(Chunked::default());
        let limited = made(&Answer { ending: Ending::Limit, ..answer(text()) });
        assert_eq!(limited["stop_reason"], "max_tokens");
        let stopped = made(&Answer { ending: Ending::Given("stop_sequence".to_owned()), ..answer(text()) });
        assert_eq!(stopped["stop_sequence"], "END");
        let uncounted = made(&Answer { usage: Usage::Omit, ..answer(text()) });
        assert_eq!(uncounted.get("usage"), None);
    }
}
