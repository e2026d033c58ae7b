//! A minimal HTTP/1.1 client over one persistent connection. It uses little CPU and checks every answer.

use crate::Result;
use crate::scenario::STREAM_CHUNKS;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

/// The timeout of each read and write. No answer of the bench takes longer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One connection, one request at a time.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// When an answer arrived.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// When the first byte of the body arrived.
    pub first_byte: Instant,
    /// When the last byte arrived.
    pub last_byte: Instant,
    /// How many reads returned data. For a stream, that is about the number of pieces it arrived in.
    pub reads: usize,
}

impl Connection {
    /// Connects to a local port.
    pub fn open(port: u16) -> Result<Self> {
        let open = || {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            Ok(stream)
        };
        let stream = open().map_err(|e: std::io::Error| format!("connect: {e}"))?;
        Ok(Self { stream, buffer: Vec::with_capacity(128 << 10) })
    }

    /// Sends a whole request.
    pub fn send(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).map_err(|e| format!("request: {e}"))
    }

    /// Receives the whole answer and checks that it is the expected one.
    pub fn receive(&mut self, is_stream: bool) -> Result<Received> {
        self.buffer.clear();
        let mut piece = [0u8; 16 << 10];
        let (mut head, mut first_byte, mut reads) = (None, None, 0);
        loop {
            let n = self.stream.read(&mut piece).map_err(|e| self.wrong(&format!("reading: {e}")))?;
            if n == 0 {
                return Err(self.wrong("the connection was closed"));
            }
            reads += 1;
            self.buffer.extend_from_slice(piece.get(..n).unwrap_or_default());
            if head.is_none() {
                head = Head::read(&self.buffer, is_stream).map_err(|e| self.wrong(&e))?;
            }
            let Some(Head { len, length }) = head else { continue };
            let body = self.buffer.get(len..).unwrap_or_default();
            if !body.is_empty() && first_byte.is_none() {
                first_byte = Some(Instant::now());
            }
            let whole = length.map_or_else(|| body.ends_with(b"\r\n0\r\n\r\n"), |length| body.len() >= length);
            if let (true, Some(first_byte)) = (whole, first_byte) {
                let last_byte = Instant::now();
                check_body(body, length, is_stream).map_err(|e| self.wrong(e))?;
                return Ok(Received { first_byte, last_byte, reads });
            }
        }
    }

    fn wrong(&self, what: &str) -> String {
        let seen = String::from_utf8_lossy(self.buffer.get(..self.buffer.len().min(600)).unwrap_or_default());
        format!("a wrong answer ({what}): {seen}")
    }
}

/// The relevant parts of the response head.
#[derive(Clone, Copy)]
struct Head {
    /// The length of the head, in bytes.
    len: usize,
    /// `content-length`; `None` means chunked.
    length: Option<usize>,
}

impl Head {
    /// Parses the head. Returns `None` while it is incomplete.
    fn read(bytes: &[u8], is_stream: bool) -> std::result::Result<Option<Self>, String> {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
        let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).to_ascii_lowercase();
        if !text.starts_with("http/1.1 200") {
            return Err("not 200".to_owned());
        }
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
        let length = field("content-length").and_then(|n| n.parse().ok());
        if length.is_none() && field("transfer-encoding") != Some("chunked") {
            return Err("neither a length nor chunks".to_owned());
        }
        let kind = if is_stream { "text/event-stream" } else { "application/json" };
        if !field("content-type").is_some_and(|value| value.starts_with(kind)) {
            return Err(format!("not {kind}"));
        }
        Ok(Some(Self { len: end + 4, length }))
    }
}

fn check_body(body: &[u8], length: Option<usize>, is_stream: bool) -> std::result::Result<(), &'static str> {
    let text = String::from_utf8_lossy(body);
    if is_stream {
        let text = text.trim_end_matches("\r\n0\r\n\r\n");
        let done = text.ends_with("data: [DONE]\n\n") || text.ends_with("data: {\"type\":\"message_stop\"}\n\n");
        let chunks = text.matches("\"delta\":{\"content\"").count() + text.matches("\"text_delta\"").count();
        return match (done, chunks) {
            (false, _) => Err("the stream does not end with its end marker"),
            (true, n) if n < STREAM_CHUNKS => Err("chunks of the stream are missing"),
            (true, _) => Ok(()),
        };
    }
    if length.is_some_and(|length| body.len() != length) {
        return Err("longer than its content-length");
    }
    if text.contains("The points are set.") { Ok(()) } else { Err("not the simulator's answer") }
}
