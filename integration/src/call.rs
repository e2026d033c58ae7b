//! A request as a caller writes it, down to chunks, trailers and bytes that are not text.

use crate::deadline::PATIENCE;
use crate::response::{Open, Response};
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::LazyLock;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// Runs every call, so that tests are plain functions.
pub(crate) static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("starts a runtime"));

/// One request.
#[derive(Debug, Clone)]
pub struct Call {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Body,
    http2: bool,
}

#[derive(Debug, Clone)]
enum Body {
    /// A body sent with its length.
    Whole(Bytes),
    /// A body sent in these pieces, without a length, followed by these trailers.
    Pieces(Vec<Bytes>, Option<HeaderMap>),
}

impl Call {
    /// Creates a request without a body.
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.parse().expect("is a method"),
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Body::Whole(Bytes::new()),
            http2: false,
        }
    }

    /// Creates a chat completion request with this body.
    pub fn chat(body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", "/v1/chat/completions").header("content-type", "application/json").body(body)
    }

    /// Creates a chat completion request with this document.
    pub fn chat_json(body: &Value) -> Self {
        Self::chat(body.to_string())
    }

    /// Sends the API key as OpenAI's clients do.
    pub fn key(self, key: &str) -> Self {
        self.header("authorization", format!("Bearer {key}"))
    }

    /// Adds a header; the value may be any bytes that HTTP allows.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("is a header name");
        self.headers.append(name, HeaderValue::from_bytes(value.as_ref()).expect("is a header value"));
        self
    }

    /// Sets the body, with its length.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Whole(Bytes::from(body.into()));
        self
    }

    /// Sets the body in pieces, without its length: chunked in HTTP/1.1.
    pub fn pieces<P: Into<Vec<u8>>>(mut self, pieces: impl IntoIterator<Item = P>) -> Self {
        self.body = Body::Pieces(pieces.into_iter().map(|piece| Bytes::from(piece.into())).collect(), None);
        self
    }

    /// Adds a trailer to a body sent in pieces. In HTTP/1.1 a `trailer` header announces it.
    pub fn trailer(mut self, name: &'static str, value: &'static str) -> Self {
        if let Body::Pieces(_, trailers) = &mut self.body {
            trailers.get_or_insert_default().insert(name, HeaderValue::from_static(value));
        }
        if !self.http2 {
            self = self.header("trailer", name);
        }
        self
    }

    /// Uses HTTP/2, with prior knowledge.
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    /// Sends the request and reads the whole response.
    ///
    /// # Panics
    /// If there is no response.
    pub fn send(self, to: SocketAddr) -> Response {
        RUNTIME.block_on(async { self.start(to).await.expect("gets a response").whole().await })
    }

    /// Sends the request and reads the headers of the response.
    ///
    /// # Panics
    /// If there is no response.
    pub fn open(self, to: SocketAddr) -> Open {
        RUNTIME.block_on(self.start(to)).expect("gets a response")
    }

    /// Does the same without a panic.
    ///
    /// # Errors
    /// hyper's error, if there is no response.
    pub fn try_open(self, to: SocketAddr) -> Result<Open, hyper::Error> {
        RUNTIME.block_on(self.start(to))
    }

    /// Sends the request and reads the headers of the response.
    ///
    /// # Errors
    /// hyper's error, if there is no response.
    pub async fn start(self, to: SocketAddr) -> Result<Open, hyper::Error> {
        let http2 = self.http2;
        let request = self.request(to);
        let exchange = async {
            let socket = TcpStream::connect(to).await.expect("connects");
            socket.set_nodelay(true).expect("sets an option");
            let io = TokioIo::new(socket);
            let (response, connection) = if http2 {
                let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
                let connection = tokio::spawn(async { connection.await.unwrap_or_default() });
                (sender.send_request(request).await?, connection)
            } else {
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
                let connection = tokio::spawn(async { connection.await.unwrap_or_default() });
                (sender.send_request(request).await?, connection)
            };
            Ok(Open::new(response, connection.abort_handle()))
        };
        tokio::time::timeout(PATIENCE, exchange).await.expect("answers in time")
    }

    fn request(mut self, to: SocketAddr) -> Request<BoxBody<Bytes, Infallible>> {
        let mut request = Request::builder().method(self.method);
        request = if self.http2 {
            let host = self.headers.remove("host");
            let host = host.map_or(to.to_string(), |host| host.to_str().expect("is text").to_owned());
            request.uri(Uri::try_from(format!("http://{host}{}", self.path)).expect("is a path"))
        } else {
            request.uri(Uri::try_from(self.path).expect("is a path")).header("host", to.to_string())
        };
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers);
        }
        let body = match self.body {
            Body::Whole(bytes) => Full::new(bytes).boxed(),
            Body::Pieces(pieces, trailers) => {
                let mut frames: Vec<_> = pieces.into_iter().map(|piece| Ok(Frame::data(piece))).collect();
                frames.extend(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                StreamBody::new(Pieces(frames.into())).boxed()
            }
        };
        request.body(body).expect("is a request")
    }
}

/// A stream of these frames, in order.
struct Pieces(std::collections::VecDeque<Result<Frame<Bytes>, Infallible>>);

impl futures_core::Stream for Pieces {
    type Item = Result<Frame<Bytes>, Infallible>;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.pop_front())
    }
}
