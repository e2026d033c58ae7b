//! What a caller receives: a complete response, or a stream as it arrives.

use crate::deadline::PATIENCE;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::HeaderMap;
use hyper::body::Incoming;
use serde_json::Value;
use std::time::Instant;
use tokio::task::AbortHandle;

/// A complete response.
#[derive(Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: HeaderMap,
    /// When each piece of the body arrived.
    pub arrivals: Vec<Instant>,
    /// Whether the body ended properly. It did not if the connection was cut.
    pub complete: bool,
}

/// A response that is still being read. Dropping it disconnects the caller.
pub struct Open {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    body: Incoming,
    connection: AbortHandle,
    trailers: HeaderMap,
    broken: bool,
}

/// Returns the value of a header. Panics if it is not text.
fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_else(|_| panic!("{name} is not text: {value:?}")))
}

impl Response {
    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        text_of(&self.headers, name)
    }

    /// Returns the id that all log lines of this request share.
    pub fn trace_id(&self) -> &str {
        self.header("x-request-id").unwrap_or_else(|| panic!("no x-request-id in {self:?}"))
    }

    /// Returns the body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Returns the `data` of every event of a stream.
    pub fn events(&self) -> Vec<String> {
        events(self.text())
    }

    /// Returns the text that a stream carries.
    pub fn streamed_text(&self) -> String {
        let read = |data: &String| serde_json::from_str::<Value>(data).ok();
        let content = |event: Value| event.pointer("/choices/0/delta/content")?.as_str().map(str::to_owned);
        self.events().iter().filter_map(read).filter_map(content).collect()
    }

    /// Returns the text of a completion.
    pub fn content(&self) -> String {
        let document = self.json();
        let content = document.pointer("/choices/0/message/content").and_then(Value::as_str);
        content.unwrap_or_else(|| panic!("no content in {document}")).to_owned()
    }

    /// Checks that this is a refusal with this status and code, in exactly OpenAI's shape.
    ///
    /// # Panics
    /// If it is anything else.
    #[track_caller]
    pub fn assert_refusal(&self, status: u16, code: &str) -> &Self {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let document = self.json();
        let members = |value: &Value| {
            let mut names: Vec<_> = value.as_object().into_iter().flat_map(|o| o.keys().cloned()).collect();
            names.sort();
            names
        };
        assert_eq!(members(&document), ["error"], "{document}");
        assert_eq!(members(&document["error"]), ["code", "message", "param", "type"], "{document}");
        assert_eq!(document["error"]["code"], code, "{document}");
        assert!(document["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{document}");
        assert!(document["error"]["type"].is_string(), "{document}");
        self
    }

    /// Returns `error.param` of a refusal.
    pub fn param(&self) -> Option<String> {
        self.json()["error"]["param"].as_str().map(str::to_owned)
    }
}

/// Returns the `data` of every event in `text`. A blank line ends an event.
pub fn events(text: &str) -> Vec<String> {
    let text = text.replace("\r\n", "\n");
    let data = |event: &str| -> Vec<String> {
        event.lines().filter_map(|line| line.strip_prefix("data:")).map(|data| data.trim_start().to_owned()).collect()
    };
    text.split("\n\n").map(data).filter(|lines| !lines.is_empty()).map(|lines| lines.join("\n")).collect()
}

impl Open {
    pub(crate) fn new(response: hyper::Response<Incoming>, connection: AbortHandle) -> Self {
        let (head, body) = response.into_parts();
        Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            connection,
            trailers: HeaderMap::new(),
            broken: false,
        }
    }

    /// Returns the value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        text_of(&self.headers, name)
    }

    /// Returns the id that all log lines of this request share.
    pub fn trace_id(&self) -> String {
        self.header("x-request-id").expect("has an x-request-id").to_owned()
    }

    /// Reads the next piece of the body, as it arrived. Returns `None` at the end, or if the connection was cut.
    pub fn next_piece(&mut self) -> Option<Bytes> {
        crate::call::RUNTIME.block_on(self.next())
    }

    /// Reads pieces until the text so far contains `wanted`, and returns that text.
    ///
    /// # Panics
    /// If the stream ends first.
    pub fn read_until(&mut self, wanted: &str) -> String {
        let mut text = Vec::new();
        loop {
            let piece = self.next_piece();
            let piece = piece.unwrap_or_else(|| panic!("ended before {wanted:?}: {}", String::from_utf8_lossy(&text)));
            text.extend_from_slice(&piece);
            if text.windows(wanted.len()).any(|window| window == wanted.as_bytes()) {
                return String::from_utf8(text).expect("whole characters");
            }
        }
    }

    /// Reads the rest of the body.
    pub fn finish(self) -> Response {
        crate::call::RUNTIME.block_on(self.whole())
    }

    pub(crate) async fn whole(mut self) -> Response {
        let (mut body, mut arrivals) = (Vec::new(), Vec::new());
        while let Some(piece) = self.next().await {
            body.extend_from_slice(&piece);
            arrivals.push(Instant::now());
        }
        Response {
            status: self.status,
            headers: std::mem::take(&mut self.headers),
            body,
            trailers: std::mem::take(&mut self.trailers),
            arrivals,
            complete: !self.broken,
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("the body goes on in time")?;
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(piece)) if piece.is_empty() => {}
                Ok(Ok(piece)) => return Some(piece),
                Ok(Err(frame)) => self.trailers.extend(frame.into_trailers().unwrap_or_default()),
                Err(_) => {
                    self.broken = true;
                    return None;
                }
            }
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
