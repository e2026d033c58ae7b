//! Frames server-sent events.

use bytes::Bytes;

/// The part of the stream an event belongs to, on which the timing of a fault depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Before the content.
    Head,
    /// A piece of content.
    Content,
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
}

impl Framing {
    /// Frames one event. `data` writes its data, which must not contain a line end.
    pub fn event(self, kind: Kind, data: impl FnOnce(&mut Vec<u8>)) -> Event {
        let mut out = Vec::with_capacity(320);
        let end: &[u8] = if self.crlf { b"\r\n" } else { b"\n" };
        if self.comments {
            for line in [&b": keep-alive"[..], b"", b"event: message", b"id: sim"] {
                out.extend_from_slice(line);
                out.extend_from_slice(end);
            }
        }
        out.extend_from_slice(b"data: ");
        data(&mut out);
        out.extend_from_slice(end);
        out.extend_from_slice(end);
        Event { kind, bytes: out.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn framings() {
        let event = |framing: Framing| framing.event(Kind::Head, |out| out.extend_from_slice(b"x")).bytes;
        assert_eq!(event(Framing::default()), "data: x\n\n");
        assert_eq!(event(Framing { crlf: true, comments: false }), "data: x\r\n\r\n");
        assert_eq!(
            event(Framing { crlf: false, comments: true }),
            ": keep-alive\n\nevent: message\nid: sim\ndata: x\n\n"
        );
    }
}
