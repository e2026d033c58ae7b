//! The body of a response: one piece of known length, or what a player plays.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body, Frame, SizeHint};

use crate::record::Exchange;

/// A response body.
pub enum SimBody {
    /// All of it at once.
    Whole {
        /// What is left to send.
        rest: Option<Bytes>,
        /// Told when it is sent; the control API's own answers have none.
        exchange: Option<Exchange>,
    },
    /// Piece by piece.
    Played(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

impl SimBody {
    /// A body of known length.
    pub fn whole(bytes: impl Into<Bytes>, mut exchange: Option<Exchange>) -> Self {
        let rest = Some(bytes.into()).filter(|bytes| !bytes.is_empty());
        if rest.is_none()
            && let Some(exchange) = &mut exchange
        {
            exchange.finish();
        }
        Self::Whole { rest, exchange }
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
            Self::Played(pieces) => {
                pieces.as_mut().poll_next(cx).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole { rest: None, .. })
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole { rest, .. } => SizeHint::with_exact(rest.as_ref().map_or(0, Bytes::len) as u64),
            Self::Played(_) => SizeHint::default(),
        }
    }
}
