//! The output items of a response, as they open and as they end.

use crate::answer::{Answer, Ending, Said, Stamp};
use crate::chunked::Chunked;
use crate::write::{array, quoted};

/// An output item.
#[derive(Debug)]
pub enum Item<'a> {
    /// Reasoning: its summary, which may be empty, and its encrypted form.
    Reasoning { summary: &'a Chunked, encrypted: Option<&'a str> },
    /// Text. It is cut short if the response is.
    Message { text: &'a Chunked, is_cut: bool },
    /// A call of a function, or of a tool that takes text.
    Call { id: &'a str, name: &'a str, input: &'a Chunked, takes_text: bool },
}

/// Returns the items of an answer, in order.
pub fn items(answer: &Answer) -> Vec<Item<'_>> {
    let mut items = Vec::new();
    if let Some(reasoning) = &answer.reasoning {
        items.push(Item::Reasoning { summary: &reasoning.text, encrypted: reasoning.seal.as_deref() });
    }
    items.extend(answer.lead.as_ref().map(|text| Item::Message { text, is_cut: false }));
    match &answer.said {
        Said::Text(text) => items.push(Item::Message { text, is_cut: answer.ending == Ending::Limit }),
        Said::Calls(calls) => items.extend(calls.iter().map(|call| Item::Call {
            id: &call.id,
            name: &call.name,
            input: &call.arguments,
            takes_text: call.takes_text,
        })),
    }
    items
}

impl Item<'_> {
    /// Returns the item's id.
    pub fn id(&self, stamp: Stamp, index: usize) -> String {
        let prefix = match self {
            Self::Reasoning { .. } => "rs_sim",
            Self::Message { .. } => "msg_sim",
            Self::Call { takes_text: false, .. } => "fc_sim",
            Self::Call { takes_text: true, .. } => "ctc_sim",
        };
        format!("{}{index:02}", stamp.id(prefix))
    }

    /// Returns the item as it opens, without content.
    pub fn opened(&self, stamp: Stamp, index: usize) -> String {
        let id = quoted(&self.id(stamp, index));
        match self {
            Self::Reasoning { .. } => format!(r#"{{"id":{id},"type":"reasoning","summary":[]}}"#),
            Self::Message { .. } => {
                format!(r#"{{"id":{id},"type":"message","status":"in_progress","content":[],"role":"assistant"}}"#)
            }
            Self::Call { .. } => self.call(&id, "in_progress", ""),
        }
    }

    /// Returns the item as it ends.
    pub fn whole(&self, stamp: Stamp, index: usize) -> String {
        let id = quoted(&self.id(stamp, index));
        match self {
            Self::Reasoning { summary, encrypted } => {
                let encrypted =
                    encrypted.map_or_else(String::new, |text| format!(r#","encrypted_content":{}"#, quoted(text)));
                let parts = array((!summary.text().is_empty()).then(|| summary_part(summary.text())));
                format!(r#"{{"id":{id},"type":"reasoning"{encrypted},"summary":{parts}}}"#)
            }
            Self::Message { text, is_cut } => format!(
                r#"{{"id":{id},"type":"message","status":"{}","content":[{}],"role":"assistant"}}"#,
                if *is_cut { "incomplete" } else { "completed" },
                text_part(text.text()),
            ),
            Self::Call { input, .. } => self.call(&id, "completed", input.text()),
        }
    }

    fn call(&self, id: &str, status: &str, input: &str) -> String {
        let Self::Call { id: call_id, name, takes_text, .. } = self else { return "null".to_owned() };
        let (kind, member) = if *takes_text { ("custom_tool_call", "input") } else { ("function_call", "arguments") };
        format!(
            r#"{{"id":{id},"type":"{kind}","status":"{status}","{member}":{},"call_id":{},"name":{}}}"#,
            quoted(input),
            quoted(call_id),
            quoted(name),
        )
    }
}

/// Returns a part of a reasoning's summary.
pub fn summary_part(text: &str) -> String {
    format!(r#"{{"type":"summary_text","text":{}}}"#, quoted(text))
}

/// Returns a part of a message.
pub fn text_part(text: &str) -> String {
    format!(r#"{{"type":"output_text","annotations":[],"logprobs":[],"text":{}}}"#, quoted(text))
}
