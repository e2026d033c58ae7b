//! Splits a stream of server-sent events at the ends of events, regardless of chunk boundaries.
//!
//! The rules are from the WHATWG HTML standard, "Server-sent events": lines end in LF, CRLF or CR. An empty line ends
//! an event. Several `data:` lines are joined by LF. Lines that start with a colon are comments.

/// Cuts a stream of chunks into events. It buffers only the bytes of an unfinished event, and of a long one only the
/// first [`MAX_HELD`] bytes.
#[derive(Debug, Default)]
pub struct EventCutter {
    held: Vec<u8>,
    /// How much of `held` has already been searched for an end.
    searched: usize,
    /// Where the scan of a long event stands; `None` outside of one.
    long: Option<LineScan>,
}

/// A part of a stream, as [`EventCutter`] cuts it. The parts of a long event are the same for every split of the
/// stream, except that its middle may come in any number of pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A whole event, its closing empty line included.
    Event(&'a [u8]),
    /// The first [`MAX_HELD`] bytes of an event that is longer.
    Start(&'a [u8]),
    /// More of a long event.
    Middle(&'a [u8]),
    /// The rest of a long event, its closing empty line included.
    End(&'a [u8]),
}

/// Longest event to buffer, in bytes. What is longer passes in pieces, so no provider can make the gateway buffer more.
pub const MAX_HELD: usize = 256 << 10;

impl EventCutter {
    /// Returns whether the stream stands between two events.
    pub fn is_between_events(&self) -> bool {
        self.held.is_empty() && self.long.is_none()
    }

    /// Returns whether a part of an unfinished event is held.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Cuts the next chunk. Calls `piece` with each finished event, and with the parts of long ones as they come.
    ///
    /// A chunk of whole events is not copied.
    pub fn push(&mut self, chunk: &[u8], mut piece: impl FnMut(Piece)) {
        let mut held = std::mem::take(&mut self.held);
        let mut from = std::mem::take(&mut self.searched);
        let mut rest = if held.is_empty() {
            chunk
        } else {
            held.extend_from_slice(chunk);
            &held
        };
        let whole = rest.len();
        loop {
            if self.long.is_some() {
                rest = self.more(rest, &mut piece);
                if self.long.is_some() {
                    return;
                }
            }
            match event_end(rest, from) {
                Some(end) if end <= MAX_HELD => {
                    let (one, after) = rest.split_at(end);
                    piece(Piece::Event(one));
                    rest = after;
                }
                None if rest.len() <= MAX_HELD => break,
                _ => {
                    let (start, after) = rest.split_at(MAX_HELD);
                    piece(Piece::Start(start));
                    self.long = Some(LineScan::after(start));
                    rest = after;
                }
            }
            from = 0;
        }
        // The end of an event may straddle two chunks, so search the last three bytes again.
        self.searched = rest.len().saturating_sub(3);
        self.held = if rest.len() == whole && !held.is_empty() { held } else { rest.to_vec() };
    }

    /// Passes what `bytes` has of a long event, and returns what follows it.
    fn more<'a>(&mut self, bytes: &'a [u8], piece: &mut impl FnMut(Piece)) -> &'a [u8] {
        let Some(scan) = &mut self.long else { return bytes };
        match scan.find_end(bytes) {
            Some(end) => {
                let (last, after) = bytes.split_at(end);
                piece(Piece::End(last));
                self.long = None;
                after
            }
            None => {
                if !bytes.is_empty() {
                    piece(Piece::Middle(bytes));
                }
                &[]
            }
        }
    }

    /// Takes the bytes of the unfinished event; of a long one there are none.
    pub fn take_rest(&mut self) -> Vec<u8> {
        (self.searched, self.long) = (0, None);
        std::mem::take(&mut self.held)
    }
}

/// Finds the empty line that ends a long event, whose bytes are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineScan {
    /// Within a line.
    Line,
    /// At the start of a line.
    LineStart,
    /// After a CR that ends a line, and that a LF may follow.
    Cr,
    /// After a CR that ends an empty line, and that a LF may follow.
    EmptyCr,
}

impl LineScan {
    /// Returns where the scan stands after `text`, in which no event ends.
    fn after(text: &[u8]) -> Self {
        let mut scan = Self::Line;
        // Line breaks of at most three bytes decide.
        scan.find_end(text.get(text.len().saturating_sub(3)..).unwrap_or_default());
        scan
    }

    /// Returns the place in `bytes` after the end of the event.
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            *self = match (*self, byte) {
                (Self::EmptyCr, b'\n') | (Self::LineStart, b'\n') => return Some(at + 1),
                (Self::EmptyCr, _) => return Some(at),
                (Self::Cr, b'\n') => Self::LineStart,
                (Self::Cr | Self::LineStart, b'\r') => Self::EmptyCr,
                _ => {
                    at += memchr::memchr2(b'\n', b'\r', bytes.get(at..)?).unwrap_or(bytes.len() - at);
                    match bytes.get(at) {
                        None => Self::Line,
                        Some(b'\n') => Self::LineStart,
                        Some(_) => Self::Cr,
                    }
                }
            };
            at += 1;
        }
        None
    }
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

/// Returns the lines of one event, without their ends and without a byte order mark.
fn lines(event: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = event.strip_prefix(BOM).unwrap_or(event);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (line, after) = rest.split_at(memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len()));
        rest = after.get(1..).unwrap_or_default();
        Some(line)
    })
}

/// Returns the values that the lines of one event give to a field.
fn values<'a>(event: &'a [u8], field: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    lines(event).filter_map(move |line| match line.strip_prefix(field)?.split_first() {
        Some((b':', value)) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        None => Some(&[][..]),
        Some(_) => None,
    })
}

/// Returns whether an event has a line that is not a field of the standard, such as plain JSON. Receivers ignore such
/// lines, so their sender failed.
pub fn has_foreign_line(event: &[u8]) -> bool {
    lines(event).any(|line| {
        let name = memchr::memchr(b':', line).and_then(|colon| line.get(..colon)).unwrap_or(line);
        !matches!(name, b"" | b"data" | b"event" | b"id" | b"retry")
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
            cutter.push(chunk, |piece| match piece {
                Piece::Event(event) => events.push(event.to_vec()),
                other => panic!("{other:?}"),
            });
        }
        (events, cutter.take_rest())
    }

    /// The pieces of a stream, the middle of each long event as one.
    fn pieces(chunks: &[&[u8]]) -> (Vec<(char, Vec<u8>)>, Vec<u8>) {
        let (mut cutter, mut all) = (EventCutter::default(), Vec::<(char, Vec<u8>)>::new());
        for chunk in chunks {
            cutter.push(chunk, |piece| {
                let (kind, bytes) = match piece {
                    Piece::Event(bytes) => ('e', bytes),
                    Piece::Start(bytes) => ('s', bytes),
                    Piece::Middle(bytes) | Piece::End(bytes) => ('m', bytes),
                };
                match all.last_mut() {
                    Some(('m', before)) if kind == 'm' => before.extend_from_slice(bytes),
                    _ => all.push((kind, bytes.to_vec())),
                }
            });
        }
        (all, cutter.take_rest())
    }

    #[test]
    fn a_long_event_passes_in_pieces_and_every_split_gives_the_same() {
        for line_end in ["\n", "\r\n", "\r"] {
            // The empty line begins just before, at and after the longest event that is held.
            for len in MAX_HELD - 12..MAX_HELD + 6 {
                let text = format!("data: {}{line_end}{line_end}data: x{line_end}{line_end}", "y".repeat(len));
                let end = text.len() - 7 - 2 * line_end.len();
                let (all, rest) = pieces(&[text.as_bytes()]);
                // A CR at the very end may be half of a line break.
                let is_open = line_end == "\r";
                let total: usize = all.iter().map(|(_, bytes)| bytes.len()).sum();
                assert_eq!((total + rest.len(), rest.len()), (text.len(), if is_open { 9 } else { 0 }));
                assert_eq!(all[0].0, if end <= MAX_HELD { 'e' } else { 's' }, "{len} {line_end:?}");
                let first: usize =
                    all.iter().take_while(|(_, bytes)| **bytes != text.as_bytes()[end..]).map(|(_, b)| b.len()).sum();
                assert_eq!(first, end);
                for at in (0..8).chain(MAX_HELD - 4..text.len()) {
                    assert_eq!(
                        pieces(&[&text.as_bytes()[..at], &text.as_bytes()[at..]]),
                        (all.clone(), rest.clone()),
                        "{at}"
                    );
                }
            }
        }
        let text = [b"data: ", &vec![b'z'; 3 * MAX_HELD][..], b"\n\n"].concat();
        let (all, _) = pieces(&text.chunks(1000).collect::<Vec<_>>());
        assert_eq!((all[0].1.len(), all[1].1.len()), (MAX_HELD, text.len() - MAX_HELD));
    }

    #[test]
    fn a_line_that_is_no_field_is_foreign() {
        for event in
            ["data: x\n\n", ": comment\n\n", "event: x\r\ndata\rid: 1\nretry: 5\n\n", "\u{feff}data: x\n\n", "\n"]
        {
            assert!(!has_foreign_line(event.as_bytes()), "{event:?}");
        }
        for event in ["error: {}\n\n", "{\"error\":1}\n\n", "data: x\nInternal error\n\n", "<html>\n\n", "Data: x\n\n"]
        {
            assert!(has_foreign_line(event.as_bytes()), "{event:?}");
        }
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
