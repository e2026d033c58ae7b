//! HTTP/1.1 over a raw socket, which shows what a client library would hide.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How the peer ended the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
    /// Nothing arrived for a while, as expected.
    Silent,
}

/// The response.
#[derive(Debug)]
pub struct Answer {
    /// 0 when no response came.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    /// With any chunked framing removed.
    pub body: Vec<u8>,
    /// The sizes of the chunks, if it was chunked.
    pub chunks: Vec<usize>,
    /// Whether the body was complete, by its length or its last chunk.
    pub complete: bool,
    pub end: End,
}

pub fn post(path: &str, body: &str) -> Vec<u8> {
    post_with(path, "Authorization: Bearer sk-test\r\nContent-Type: application/json\r\n", body.as_bytes())
}

/// Returns a request with these header lines.
pub fn post_with(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: sim.test\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

pub fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: sim.test\r\nConnection: close\r\n\r\n").into_bytes()
}

/// Sends `request` and reads until the peer ends the connection.
pub fn exchange(address: SocketAddr, request: &[u8]) -> Answer {
    exchange_until(Duration::from_secs(60), address, request)
}

/// Does the same for a peer that is expected to fall silent and keep the connection open.
pub fn exchange_until_silent(address: SocketAddr, request: &[u8]) -> Answer {
    exchange_until(Duration::from_secs(1), address, request)
}

fn exchange_until(silence: Duration, address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(silence)).unwrap();
    stream.write_all(request).unwrap();
    let mut bytes = Vec::new();
    let mut piece = vec![0; 65_536];
    let end = loop {
        match stream.read(&mut piece) {
            Ok(0) => break End::Closed,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break End::Reset,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break End::Silent,
            Err(error) => panic!("{error}"),
        }
    };
    Answer::read(&bytes, end)
}

impl Answer {
    fn read(bytes: &[u8], end: End) -> Self {
        let none = Self { status: 0, headers: vec![], body: vec![], chunks: vec![], complete: false, end };
        let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            assert!(bytes.is_empty(), "half a head");
            return none;
        };
        let head = String::from_utf8(bytes[..at].to_vec()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<_> =
            lines.map(|line| line.split_once(": ").unwrap()).map(|(n, v)| (n.into(), v.into())).collect();
        let mut answer = Self { status, headers, ..none };
        let rest = &bytes[at + 4..];
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.read_chunks(rest);
        } else {
            let length: usize = answer.header("content-length").map_or(0, |length| length.parse().unwrap());
            answer.complete = rest.len() == length;
            answer.body = rest.to_vec();
        }
        answer
    }

    fn read_chunks(&mut self, mut rest: &[u8]) {
        while let Some(at) = rest.windows(2).position(|window| window == b"\r\n") {
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
            if size == 0 {
                self.complete = true;
                return;
            }
            let Some(chunk) = rest.get(at + 2..at + 2 + size) else { return };
            self.body.extend_from_slice(chunk);
            self.chunks.push(size);
            rest = rest.get(at + 4 + size..).unwrap_or_default();
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Returns the data of every complete event.
    pub fn events(&self) -> Vec<String> {
        let text = self.text().replace("\r\n", "\n");
        let whole = text.rfind("\n\n").map_or("", |at| &text[..at]);
        whole
            .split("\n\n")
            .filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")))
            .map(str::to_owned)
            .collect()
    }

    /// Returns the names and the JSON data of every complete event.
    pub fn named_events(&self) -> Vec<(String, Value)> {
        let text = self.text().replace("\r\n", "\n");
        let whole = text.rfind("\n\n").map_or("", |at| &text[..at]);
        let field = |event: &str, name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let event = |event| Some((field(event, "event: ")?, serde_json::from_str(&field(event, "data: ")?).ok()?));
        whole.split("\n\n").filter_map(event).collect()
    }

    /// Returns the text of the first choice, assembled from its deltas.
    pub fn streamed_text(&self) -> String {
        let documents = self.events().into_iter().filter_map(|data| serde_json::from_str::<Value>(&data).ok());
        documents.filter_map(|d| d["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
    }
}
