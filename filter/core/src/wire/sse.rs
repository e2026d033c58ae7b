//! Splits a stream of server-sent events at the ends of events, regardless of chunk boundaries.
//!
//! The rules are from the WHATWG HTML standard, "Server-sent events": lines end in LF, CRLF or CR. An empty line ends
//! an event. Several `data:` lines are joined by LF. Lines that start with a colon are comments.

/// Cuts a stream of chunks into events. It buffers only the bytes of an unfinished event.
#[derive(Debug, Default)]
pub struct EventCutter {
    held: Vec<u8>,
    /// How much of `held` has already been searched for an end.
    searched: usize,
}

/// Longest event in bytes. A longer one is an error, so no provider can make the gateway buffer more.
pub const MAX_EVENT: usize = 1 << 20;

impl EventCutter {
    /// Returns whether no unfinished event is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Cuts the next chunk. Calls `event` with each finished event, its closing empty line included.
    ///
    /// A chunk of whole events is not copied.
    pub fn push(&mut self, chunk: &[u8], mut event: impl FnMut(&[u8])) {
        let mut held = std::mem::take(&mut self.held);
        let mut from = self.searched;
        let mut rest = if held.is_empty() {
            chunk
        } else {
            held.extend_from_slice(chunk);
            &held
        };
        let whole = rest.len();
        while let Some(end) = event_end(rest, from) {
            let (one, after) = rest.split_at(end);
            event(one);
            rest = after;
            from = 0;
        }
        // The end of an event may straddle two chunks, so search the last three bytes again.
        self.searched = rest.len().saturating_sub(3);
        self.held = if rest.len() == whole && !held.is_empty() { held } else { rest.to_vec() };
    }

    /// Takes the bytes of the unfinished event.
    pub fn take_rest(&mut self) -> Vec<u8> {
        self.searched = 0;
        std::mem::take(&mut self.held)
    }

    /// Returns the bytes of the unfinished event.
    pub fn held(&self) -> &[u8] {
        &self.held
    }
}

/// Returns whether an event, finished or not, is longer than [`MAX_EVENT`].
pub fn is_too_long(event: &[u8]) -> bool {
    event.len() > MAX_EVENT
}

/// Returns where the first event of `text` ends: after an empty line. Starts the search at `from`.
fn event_end(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(offset) = memchr::memchr2(b'\n', b'\r', text.get(at..)?) {
        let line_end = at + offset;
        let next = after_line_break(text, line_end)?;
        if let Some(end) = match text.get(next) {
            Some(b'\n' | b'\r') => after_line_break(text, next),
            _ => None,
        } {
            return Some(end);
        }
        at = next;
    }
    None
}

/// Returns the position after the line break at `at`. Returns `None` for a CR at the end of the text, which the next
/// chunk may turn into a CRLF.
fn after_line_break(text: &[u8], at: usize) -> Option<usize> {
    match (text.get(at)?, text.get(at + 1)) {
        (b'\r', Some(b'\n')) => Some(at + 2),
        (b'\r', None) => None,
        _ => Some(at + 1),
    }
}

/// The byte order mark that may start a stream; receivers skip it.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Returns the values of a field in one event.
fn values<'a>(event: &'a [u8], field: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = event.strip_prefix(BOM).unwrap_or(event);
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (line, after) = rest.split_at(memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len()));
            rest = after.get(1..).unwrap_or_default();
            let Some(value) = line.strip_prefix(field) else { continue };
            match value.split_first() {
                Some((b':', value)) => return Some(value.strip_prefix(b" ").unwrap_or(value)),
                None => return Some(value),
                _ => {}
            }
        }
        None
    })
}

/// Returns whether the type of an event is `error`.
pub fn is_error(event: &[u8]) -> bool {
    values(event, b"event").last() == Some(b"error")
}

/// Returns the joined `data` of one event; empty if it has none.
pub fn data(event: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    use std::borrow::Cow;
    let mut found: Cow<[u8]> = Cow::Borrowed(&[]);
    let mut any = false;
    for value in values(event, b"data") {
        if any {
            let joined = found.to_mut();
            joined.push(b'\n');
            joined.extend_from_slice(value);
        } else {
            found = Cow::Borrowed(value);
            any = true;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        "data: {\"a\":1}\n\n: comment\nevent: x\ndata: é\r\n\r\ndata: one\ndata: two\n\ndata:[DONE]\n\nrest";

    fn cut(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<u8>) {
        let (mut cutter, mut events) = (EventCutter::default(), Vec::new());
        for chunk in chunks {
            cutter.push(chunk, |event| events.push(event.to_vec()));
        }
        (events, cutter.take_rest())
    }

    #[test]
    fn the_type_and_the_data_are_told_apart() {
        let said = |event: &str| (data(event.as_bytes()).into_owned(), is_error(event.as_bytes()));
        assert_eq!(said("event: error\ndata: {}\n\n"), (b"{}".to_vec(), true));
        assert_eq!(said("data: {}\nevent:error\n\n"), (b"{}".to_vec(), true));
        // The last type counts; the other two events do not have the type.
        for event in
            ["event: error\nevent: message\ndata: {}\n\n", "events: error\ndata: {}\n\n", "event:  error\ndata: {}\n\n"]
        {
            assert_eq!(said(event), (b"{}".to_vec(), false), "{event:?}");
        }
        assert_eq!(said("\u{feff}data: {}\n\n"), (b"{}".to_vec(), false));
    }

    #[test]
    fn every_split_gives_the_same_events() {
        for text in [STREAM.to_owned(), STREAM.replace('\n', "\r\n").replace("\r\r", "\r")] {
            let text = text.as_bytes();
            let whole = cut(&[text]);
            assert_eq!(whole.0.len(), 4);
            assert_eq!(whole.0.concat().len() + whole.1.len(), text.len());
            for i in 0..text.len() {
                for j in i..text.len() {
                    assert_eq!(cut(&[&text[..i], &text[i..j], &text[j..]]), whole, "{i} {j}");
                }
            }
            assert_eq!(cut(&text.chunks(1).collect::<Vec<_>>()), whole);
        }
    }

    #[test]
    fn data_is_joined_and_the_rest_ignored() {
        let (events, _) = cut(&[STREAM.as_bytes()]);
        let all: Vec<_> = events.iter().map(|e| String::from_utf8(data(e).into_owned()).unwrap()).collect();
        assert_eq!(all, ["{\"a\":1}", "é", "one\ntwo", "[DONE]"]);
        assert_eq!(&*data(b"database: x\n\n"), b"");
        assert_eq!(&*data(b"data\n\n"), b"");
    }
}
