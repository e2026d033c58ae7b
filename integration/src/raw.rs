//! HTTP/1.1 written by hand, for requests that no client library would send.

use crate::deadline::PATIENCE;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// One connection.
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

/// One response, without its framing.
#[derive(Debug)]
pub struct RawResponse {
    /// HTTP status.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl RawResponse {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Connection {
    /// Connects to `address`.
    pub fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("sets an option");
        stream.set_nodelay(true).expect("sets an option");
        Self { stream, received: Vec::new() }
    }

    /// Sends bytes. Ignores errors: if the other side has already closed, a later read shows it.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.stream.write_all(bytes.as_ref());
        self
    }

    /// Reads the response to a request other than HEAD.
    ///
    /// # Panics
    /// If the connection ends before the response.
    pub fn response(&mut self) -> RawResponse {
        self.read(false)
    }

    /// Does the same, waiting up to `limit` for each read instead of [`PATIENCE`].
    pub fn response_within(&mut self, limit: Duration) -> RawResponse {
        self.stream.set_read_timeout(Some(limit)).expect("sets an option");
        self.read(false)
    }

    /// Reads a response whose body ends with the connection, as in HTTP/1.0.
    pub fn response_to_end(&mut self) -> RawResponse {
        let mut response = self.read(false);
        while self.more() {}
        response.body.append(&mut self.received);
        response
    }

    /// Reads the response to a HEAD request.
    pub fn response_to_head(&mut self) -> RawResponse {
        self.read(true)
    }

    fn read(&mut self, is_head: bool) -> RawResponse {
        let end = self.read_to(b"\r\n\r\n");
        let head = String::from_utf8(self.received.drain(..end).collect()).expect("a response head is text");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {head:?}"));
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut response = RawResponse { status, headers, body: Vec::new() };
        if is_head || (100..200).contains(&status) || status == 204 {
            return response;
        }
        if response.header("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
            response.body = self.chunked();
        } else if let Some(length) = response.header("content-length").and_then(|length| length.parse().ok()) {
            while self.received.len() < length {
                assert!(self.more(), "the connection ended in the middle of a body");
            }
            response.body = self.received.drain(..length).collect();
        }
        response
    }

    fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let end = self.read_to(b"\r\n");
            let line: Vec<u8> = self.received.drain(..end).collect();
            let line = String::from_utf8(line).expect("a chunk size is text");
            let size = usize::from_str_radix(line.trim(), 16).expect("is a chunk size");
            while self.received.len() < size + 2 {
                assert!(self.more(), "the connection ended in the middle of a chunk");
            }
            body.extend(self.received.drain(..size));
            self.received.drain(..2);
            if size == 0 {
                return body;
            }
        }
    }

    /// Waits for more data. Returns whether the other side has closed the connection instead, with nothing left to
    /// read.
    pub fn is_closed(&mut self) -> bool {
        self.received.is_empty() && !self.more()
    }

    fn read_to(&mut self, mark: &[u8]) -> usize {
        loop {
            if let Some(at) = self.received.windows(mark.len()).position(|window| window == mark) {
                return at + mark.len();
            }
            assert!(self.more(), "the connection ended after {:?}", String::from_utf8_lossy(&self.received));
        }
    }

    fn more(&mut self) -> bool {
        let mut piece = [0; 65_536];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(count) => {
                self.received.extend_from_slice(&piece[..count]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came within {PATIENCE:?}")
            }
            Err(_) => false,
        }
    }
}
