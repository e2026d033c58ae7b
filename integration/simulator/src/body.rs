//! A response body: one piece of known length, or the pieces that a player plays.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::record::Exchange;

/// A response body.
pub enum SimBody {
    /// The whole body at once.
    Whole {
        /// What is left to send.
        rest: Option<Bytes>,
        /// Notified when the body is sent. The control API's own answers have none.
        exchange: Option<Exchange>,
    },
    /// Piece by piece.
    Played {
        /// What is left to send.
        pieces: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
        /// Trailers to send after the pieces. HTTP/1.1 leaves them out.
        trailers: Option<HeaderMap>,
    },
}

impl SimBody {
    /// Creates a body of known length.
    pub fn whole(bytes: impl Into<Bytes>, mut exchange: Option<Exchange>) -> Self {
        let rest = Some(bytes.into()).filter(|bytes| !bytes.is_empty());
        if rest.is_none()
            && let Some(exchange) = &mut exchange
        {
            exchange.finish();
        }
        Self::Whole { rest, exchange }
    }

    /// Creates a body that a player plays, with trailers after it if `trailers` is set.
    pub fn played(pieces: impl Stream<Item = Bytes> + Send + 'static, trailers: bool) -> Self {
        let name = HeaderName::from_static("x-simulator-trailer");
        let trailers = trailers.then(|| HeaderMap::from_iter([(name, HeaderValue::from_static("end"))]));
        Self::Played { pieces: Box::pin(pieces), trailers }
    }
}

impl Body for SimBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole { rest, exchange } => {
                let rest = rest.take();
                if let Some(exchange) = exchange {
                    exchange.finish();
                }
                Poll::Ready(rest.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Played { pieces, trailers } => pieces.as_mut().poll_next(cx).map(|piece| match piece {
                Some(bytes) => Some(Ok(Frame::data(bytes))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers))),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole { rest: None, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { rest, .. } => SizeHint::with_exact(rest.as_ref().map_or(0, Bytes::len) as u64),
            Self::Played { .. } => SizeHint::default(),
        }
    }
}
