//! What most events of a stream have in common, so that not each of them is read from its first byte to its last.
//!
//! Providers send the same object over and over with another piece of text in it. An event that is, byte for byte, one
//! that has been read but for the inside of one JSON string is as valid and has the same members: RFC 8259 allows any
//! string where it allows one.

use crate::json::{self, Span};

/// An event that has been read, without its text.
#[derive(Debug, Default)]
pub struct Frame {
    /// Up to the text, its opening quotation mark included; empty as long as no event has been learned.
    before: Vec<u8>,
    /// From the text's closing quotation mark on.
    after: Vec<u8>,
}

impl Frame {
    /// Learns an event whose `data` has its one text at `text`, quotation marks included. An event of several lines, or of
    /// other line ends than LF, is none that is expected again.
    pub fn learn(&mut self, event: &[u8], text: &Span) {
        self.before.clear();
        let head = if event.starts_with(b"data: ") { 6 } else { 5 };
        let is_plain = event.starts_with(b"data:")
            && event.ends_with(b"\n\n")
            && memchr::memchr2(b'\n', b'\r', event) == Some(event.len() - 2);
        if let (true, Some(before), Some(after)) =
            (is_plain, event.get(..=head + text.start), event.get((head + text.end).saturating_sub(1)..))
        {
            self.before.extend_from_slice(before);
            self.after.clear();
            self.after.extend_from_slice(after);
        }
    }

    /// Length of the text, in bytes, if `chunk` is the event that was learned with perhaps another text, and nothing else.
    pub fn text_len(&self, chunk: &[u8]) -> Option<usize> {
        let quote = self.before.len().checked_sub(1)?;
        let text = chunk.strip_prefix(&*self.before)?.strip_suffix(&*self.after)?;
        (json::string_len(chunk.get(quote..)?)? == text.len() + 2).then_some(text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = "data: {\"id\":\"é\",\"choices\":[{\"delta\":{\"content\":\"Hello\"}}]}\n\n";

    fn learned(event: &str) -> Frame {
        let mut frame = Frame::default();
        let start = event.find("\"Hello\"").unwrap() - if event.starts_with("data: ") { 6 } else { 5 };
        frame.learn(event.as_bytes(), &(start..start + 7));
        frame
    }

    #[test]
    fn another_text_is_known_and_its_length() {
        for event in [EVENT, &EVENT.replace("data: ", "data:")] {
            let frame = learned(event);
            for text in ["Hello", "", "é", "\\n", "\\\"", "\\u00e9 \\\\", &"long ".repeat(100)] {
                assert_eq!(frame.text_len(event.replace("Hello", text).as_bytes()), Some(text.len()), "{text}");
            }
        }
    }

    #[test]
    fn what_is_not_the_same_event_with_another_text_is_not() {
        let frame = learned(EVENT);
        let no_text =
            ["\n", "\u{1f}", "\\", "\\x", "\\u12", "\"", "\",\"name\":\"x", "x\"}}]}\n\ndata: {\"a\":\"", "\\\\\""];
        for text in no_text {
            assert_eq!(frame.text_len(EVENT.replace("Hello", text).as_bytes()), None, "{text:?}");
        }
        for other in
            [EVENT.replace("id", "ID"), EVENT.repeat(2), EVENT.replace("\n\n", "\n"), EVENT.replace("}}]", "}] ")]
        {
            assert_eq!(frame.text_len(other.as_bytes()), None, "{other}");
        }
        let broken: Vec<u8> = EVENT.bytes().map(|b| if b == b'l' { 0xff } else { b }).collect();
        assert_eq!(frame.text_len(&broken), None);
        for short in 0..EVENT.len() {
            assert_eq!(frame.text_len(&EVENT.as_bytes()[..short]), None);
        }
    }

    #[test]
    fn only_plain_events_are_learned() {
        assert_eq!(Frame::default().text_len(EVENT.as_bytes()), None);
        for event in [format!(": x\n{EVENT}"), EVENT.replace('\n', "\r\n"), EVENT.replace("\n\n", "\ndata: \n\n")] {
            assert_eq!(learned(&event).text_len(event.as_bytes()), None, "{event:?}");
        }
    }
}
