//! A connection that the simulator can cut with a FIN or a RST.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// How a connection ends when a behavior cuts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// An orderly TCP close, with nothing after the bytes already written.
    Fin,
    /// A TCP reset (`SO_LINGER` 0).
    Rst,
}

/// The handle with which a request cuts its connection.
#[derive(Debug, Default)]
pub struct Line {
    reset: AtomicBool,
    cut: Notify,
}

impl Line {
    /// Asks the connection's task to drop the connection, which closes the socket as `how` says.
    pub fn cut(&self, how: Cut) {
        self.reset.store(how == Cut::Rst, Ordering::Release);
        self.cut.notify_one();
    }

    /// Waits until the connection is to be dropped.
    pub async fn when_cut(&self) {
        self.cut.notified().await;
    }
}

/// The socket. Dropping it resets the connection if its [`Line`] was cut with a reset.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    line: Arc<Line>,
}

impl Wire {
    /// Wraps an accepted socket.
    pub fn new(stream: TcpStream, line: Arc<Line>) -> Self {
        Self { stream, line }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.line.reset.load(Ordering::Acquire) {
            // If the peer has already closed the socket, there is nothing left to reset.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
