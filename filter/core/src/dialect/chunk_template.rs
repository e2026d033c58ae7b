//! A template of a stream's events, which saves parsing most of them in full.
//!
//! Providers send the same object repeatedly with a different piece of text in it. If an event equals a parsed one in
//! every byte except inside one JSON string, it is just as valid and has the same members: RFC 8259 allows any string
//! where it allows one.

use crate::wire::json::{self, Span};

/// A parsed event without its text, and without the filler that OpenAI adds to hide the text's length.
#[derive(Debug, Default)]
pub struct ChunkTemplate {
    /// Up to and including the text's opening quotation mark; empty until an event is learned.
    before: Vec<u8>,
    /// From the text's closing quotation mark to the filler's opening one; empty if there is no filler.
    between: Vec<u8>,
    /// The rest, from the last closing quotation mark on.
    after: Vec<u8>,
}

impl ChunkTemplate {
    /// Learns an event. `text`: the span within its data of its only text; `filler`: that of its filler, if any;
    /// quotation marks included. Events of several lines of data, or with line ends other than LF, are not learned.
    pub fn learn(&mut self, event: &[u8], text: &Span, filler: Option<&Span>) {
        for part in [&mut self.before, &mut self.between, &mut self.after] {
            part.clear();
        }
        // An event may have a line with its type in front.
        let line = match event.starts_with(b"event:") {
            true => memchr::memchr(b'\n', event).map_or(0, |end| end + 1),
            false => 0,
        };
        let data = event.get(line..).unwrap_or_default();
        let head = line + if data.starts_with(b"data: ") { 6 } else { 5 };
        let is_plain = data.starts_with(b"data:")
            && data.ends_with(b"\n\n")
            && memchr::memchr2(b'\n', b'\r', data) == Some(data.len() - 2)
            && memchr::memchr(b'\r', event).is_none();
        let filler = filler.filter(|filler| filler.start >= text.end);
        let last = filler.unwrap_or(text);
        let upto = |quote: usize| head + quote + 1;
        let from = |end: usize| (head + end).saturating_sub(1);
        let parts = (
            event.get(..upto(text.start)),
            event.get(filler.map_or(0..0, |filler| from(text.end)..upto(filler.start))),
            event.get(from(last.end)..),
        );
        if let (true, (Some(before), Some(between), Some(after))) = (is_plain, parts) {
            self.before.extend_from_slice(before);
            self.between.extend_from_slice(between);
            self.after.extend_from_slice(after);
        }
    }

    /// Returns the text, JSON-escaped, if `chunk` is exactly the learned event, apart from its text and filler.
    pub fn text<'a>(&self, chunk: &'a [u8]) -> Option<&'a [u8]> {
        let (text, mut rest) = string_after(chunk, &self.before)?;
        if !self.between.is_empty() {
            (_, rest) = string_after(rest, &self.between)?;
        }
        (rest == self.after).then_some(text)
    }
}

/// If `chunk` starts with `before`, which ends with an opening quotation mark, returns the inside of that string and
/// the rest from the closing quotation mark on.
fn string_after<'a>(chunk: &'a [u8], before: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let quote = before.len().checked_sub(1)?;
    let string = chunk.starts_with(before).then(|| chunk.get(quote..))??;
    let len = json::string_len(string)?;
    Some((string.get(1..len - 1)?, string.get(len - 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = "data: {\"id\":\"é\",\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n";

    fn learned(event: &str) -> ChunkTemplate {
        let mut template = ChunkTemplate::default();
        let start = event.find("\"Hello\"").unwrap() - if event.starts_with("data: ") { 6 } else { 5 };
        template.learn(event.as_bytes(), &(start..start + 7), None);
        template
    }

    #[test]
    fn a_filler_may_differ_as_well() {
        let event = EVENT.replace("}]}", "}],\"obfuscation\":\"abc\"}");
        let at = |part: &str| event.find(part).map(|at| at - 6..at - 6 + part.len()).unwrap();
        let mut template = ChunkTemplate::default();
        template.learn(event.as_bytes(), &at("\"Hello\""), Some(&at("\"abc\"")));
        for (text, filler) in [("Hello", "abc"), ("x", ""), ("", "defgh")] {
            let other = event.replace("Hello", text).replace("abc", filler);
            assert_eq!(template.text(other.as_bytes()), Some(text.as_bytes()));
        }
        for other in [EVENT.to_owned(), event.replace("abc", "\""), event.replace("abc\"}", "abc\",\"usage\":{}}")] {
            assert_eq!(template.text(other.as_bytes()), None, "{other}");
        }
        // A filler in front of the text must be the same.
        template.learn(event.as_bytes(), &at("\"abc\""), Some(&at("\"Hello\"")));
        assert_eq!(template.text(event.as_bytes()), Some(&b"abc"[..]));
        assert_eq!(template.text(event.replace("Hello", "x").as_bytes()), None);
    }

    #[test]
    fn another_text_is_known() {
        for event in [EVENT, &EVENT.replace("data: ", "data:")] {
            let template = learned(event);
            for text in ["Hello", "", "é", "\\n", "\\\"", "\\u00e9 \\\\", &"long ".repeat(100)] {
                assert_eq!(template.text(event.replace("Hello", text).as_bytes()), Some(text.as_bytes()), "{text}");
            }
        }
    }

    #[test]
    fn what_is_not_the_same_event_with_another_text_is_not() {
        let template = learned(EVENT);
        let no_text =
            ["\n", "\u{1f}", "\\", "\\x", "\\u12", "\"", "\",\"name\":\"x", "x\"}}]}\n\ndata: {\"a\":\"", "\\\\\""];
        for text in no_text {
            assert_eq!(template.text(EVENT.replace("Hello", text).as_bytes()), None, "{text:?}");
        }
        for other in
            [EVENT.replace("id", "ID"), EVENT.repeat(2), EVENT.replace("\n\n", "\n"), EVENT.replace("}}]", "}] ")]
        {
            assert_eq!(template.text(other.as_bytes()), None, "{other}");
        }
        let broken: Vec<u8> = EVENT.bytes().map(|b| if b == b'l' { 0xff } else { b }).collect();
        assert_eq!(template.text(&broken), None);
        for short in 0..EVENT.len() {
            assert_eq!(template.text(&EVENT.as_bytes()[..short]), None);
        }
    }

    #[test]
    fn only_plain_events_are_learned() {
        assert_eq!(ChunkTemplate::default().text(EVENT.as_bytes()), None);
        for event in [format!(": x\n{EVENT}"), EVENT.replace('\n', "\r\n"), EVENT.replace("\n\n", "\ndata: \n\n")] {
            assert_eq!(learned(&event).text(event.as_bytes()), None, "{event:?}");
        }
    }
}
