//! Frames server-sent events.

use bytes::Bytes;

/// The part of the stream an event belongs to, on which the timing of a fault depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Before the content.
    Head,
    /// A piece of content.
    Content,
    /// Among the content, without any itself.
    Between,
    /// A sign of life in a stream that has nothing more to say.
    Ping,
    /// After the content.
    Tail,
    /// The marker that the stream is complete.
    Done,
}

/// One framed event.
#[derive(Debug, Clone)]
pub struct Event {
    /// The part of the stream it belongs to.
    pub kind: Kind,
    /// Its bytes, up to and including the blank line.
    pub bytes: Bytes,
}

/// How events are written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Framing {
    /// Lines end in CR LF.
    pub crlf: bool,
    /// Comments, `event:` and `id:` lines are added.
    pub comments: bool,
    /// Events have no `event:` line, even if they have a name.
    pub no_event_lines: bool,
    /// No space follows a field's colon.
    pub no_space: bool,
}

impl Framing {
    /// Frames one event without a name. `data` writes its data, which must not contain a line end.
    pub fn event(self, kind: Kind, data: impl FnOnce(&mut Vec<u8>)) -> Event {
        self.named(kind, if self.comments { "message" } else { "" }, data)
    }

    /// Frames one event with a name, unless that is empty. `data` writes its data, which must not contain a line end.
    pub fn named(self, kind: Kind, name: &str, data: impl FnOnce(&mut Vec<u8>)) -> Event {
        let mut out = Vec::with_capacity(320);
        if self.comments {
            out.extend_from_slice(b": keep-alive");
            self.end_line(&mut out);
            self.end_line(&mut out);
        }
        if !name.is_empty() && !self.no_event_lines {
            self.field(&mut out, b"event:", |out| out.extend_from_slice(name.as_bytes()));
        }
        if self.comments {
            self.field(&mut out, b"id:", |out| out.extend_from_slice(b"sim"));
        }
        self.field(&mut out, b"data:", data);
        self.end_line(&mut out);
        Event { kind, bytes: out.into() }
    }

    /// Frames a comment, which is a sign of life in every dialect.
    pub fn comment(self) -> Event {
        let mut out = b": keep-alive".to_vec();
        self.end_line(&mut out);
        self.end_line(&mut out);
        Event { kind: Kind::Ping, bytes: out.into() }
    }

    fn field(self, out: &mut Vec<u8>, name: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(name);
        if !self.no_space {
            out.push(b' ');
        }
        value(out);
        self.end_line(out);
    }

    fn end_line(self, out: &mut Vec<u8>) {
        out.extend_from_slice(if self.crlf { b"\r\n" } else { b"\n" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framings() {
        let event = |framing: Framing| framing.event(Kind::Head, |out| out.extend_from_slice(b"x")).bytes;
        assert_eq!(event(Framing::default()), "data: x\n\n");
        assert_eq!(event(Framing { crlf: true, ..Framing::default() }), "data: x\r\n\r\n");
        assert_eq!(event(Framing { no_space: true, ..Framing::default() }), "data:x\n\n");
        assert_eq!(
            event(Framing { comments: true, ..Framing::default() }),
            ": keep-alive\n\nevent: message\nid: sim\ndata: x\n\n"
        );
    }

    #[test]
    fn an_event_may_have_a_name() {
        let event = |framing: Framing| framing.named(Kind::Head, "ping", |out| out.extend_from_slice(b"x")).bytes;
        assert_eq!(event(Framing::default()), "event: ping\ndata: x\n\n");
        assert_eq!(event(Framing { no_event_lines: true, ..Framing::default() }), "data: x\n\n");
        assert_eq!(
            event(Framing { comments: true, ..Framing::default() }),
            ": keep-alive\n\nevent: ping\nid: sim\ndata: x\n\n"
        );
    }
}
